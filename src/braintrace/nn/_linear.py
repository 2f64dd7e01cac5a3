"""Linear layers: grouped, of low rank, sparse, standardised."""

import math
from typing import Any

import brainstate
import jax
import numpy as np

from ..core._domains import described
from ..core._errors import UsageError
from ..operators import grouped_matmul, lora_matmul, matmul, sparse_matmul
from ..operators._sparse import Matrix, no_matrix, with_elements
from ..operators._units import Value, join, split
from ._arguments import LECUN, ZERO, Init, Module, Size, check_inits, check_kind, features

_LoRA: Any = brainstate.nn.LoRA


def kaiming_of_groups(shape: tuple[int, ...]) -> jax.Array:
    """Weights (G, I, O), normal, with variance 2 / I: the fan-in is that of a group (He et al.
    2015).
    """
    return brainstate.nn.init.Normal(0.0, math.sqrt(2 / shape[-2]))(shape)


class GroupedLinear(Module):
    """`y[..., g, :] = x[..., g, :] @ W[g] + b[g]`: a linear layer for each of G groups.

    Args:
        num_groups: G.
        in_features, out_features: I and O of each group.
        w_init, b_init: of W, (G, I, O), and b, (G, O); None for no bias.
        name: of the module.
        param_type: class of the parameter state, whose value is `{'weight', 'bias'}`.

    x is (..., G, I), y (..., G, O).

    >>> import jax.numpy as jnp
    >>> import braintrace
    >>> braintrace.nn.GroupedLinear(4, 8, 2)(jnp.ones((16, 4, 8))).shape
    (16, 4, 2)
    """

    def __init__(
        self,
        num_groups: int,
        in_features: int,
        out_features: int,
        w_init: Init = kaiming_of_groups,
        b_init: Init | None = ZERO,
        name: str | None = None,
        param_type: type = brainstate.ParamState,
    ):
        super().__init__(name=name)
        G = features(num_groups, "num_groups")
        I, O = features(in_features, "in_features"), features(out_features, "out_features")
        check_inits(w_init=w_init, b_init=b_init)
        check_kind(param_type)
        self.num_groups, self.in_size, self.out_size = G, (G, I), (G, O)
        value = {"weight": brainstate.nn.init.param(w_init, (G, I, O))}
        if b_init is not None:
            value["bias"] = brainstate.nn.init.param(b_init, (G, O))
        self.weight = param_type(value)

    def update(self, x: Value) -> Value:
        """y."""
        return grouped_matmul(x, self.weight.value["weight"], self.weight.value.get("bias"))


class LoRA(_LoRA):
    """`y = base(x) + (x A) B / r`: a weight of rank r beside a base layer (Hu et al. 2021).

    Args:
        in_features, lora_rank, out_features: I, r and O.
        base_module: a layer whose output is added, or None.
        kernel_init: of `lora_a`, (I, r), and `lora_b`, (r, O). Zeros for `lora_b` leave the base
            layer as it is at first.
        param_type: class of the parameter state, whose value is `{'lora_a', 'lora_b'}`.
        in_size: the size of x, where it is not I.

    >>> import jax.numpy as jnp
    >>> import braintrace
    >>> base = braintrace.nn.Linear(3, 4)
    >>> braintrace.nn.LoRA(3, 2, 4, base_module=base)(jnp.ones((16, 3))).shape
    (16, 4)
    """

    def __init__(
        self,
        in_features: int,
        lora_rank: int,
        out_features: int,
        *,
        base_module: brainstate.nn.Module | None = None,
        kernel_init: Init = LECUN,
        param_type: type = brainstate.ParamState,
        in_size: Size | None = None,
    ):
        lora_rank = features(lora_rank, "lora_rank")
        check_inits(kernel_init=kernel_init)
        check_kind(param_type)
        if not isinstance(base_module, brainstate.nn.Module | None):
            got, expected = described(base_module), "a brainstate module, or None"
            raise UsageError("Invalid base_module.", got=got, expected=expected)
        super().__init__(
            features(in_features, "in_features"),
            lora_rank,
            features(out_features, "out_features"),
            base_module=base_module,
            kernel_init=kernel_init,
            param_type=param_type,
            in_size=in_size,
        )
        self.lora_rank = lora_rank

    def __call__(self, x: jax.Array) -> jax.Array:
        """y."""
        factors = self.weight.value
        y = lora_matmul(x, factors["lora_a"], factors["lora_b"], alpha=1 / self.lora_rank)
        return y if self.base_module is None else y + self.base_module(x)


class SparseLinear(Module):
    """`y = x @ M + b` with a sparse matrix M, of which only the stored elements are parameters.

    Args:
        spar_mat: a matrix of brainevent or `brainunit.sparse`, or a `jax.experimental.sparse.BCOO`,
            of shape (I, O). Its elements, which may have a unit, are the initial weights.
        b_init: of the bias, (O,); None for no bias.
        in_size: the size of x, where it is not I.
        name: of the module.
        param_type: class of the parameter state, whose value is `{'weight', 'bias'}`.

    x is (I,) or (batch, I). Traces have an entry for each stored element.

    Raises:
        UsageError: when `in_size` does not end with I.

    >>> import jax.numpy as jnp
    >>> from jax.experimental import sparse
    >>> import braintrace
    >>> matrix = sparse.BCOO.fromdense(jnp.array([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]]))
    >>> layer = braintrace.nn.SparseLinear(matrix)
    >>> layer(jnp.ones((5, 2))).shape, layer.weight.value["weight"].shape
    ((5, 3), (3,))
    """

    def __init__(
        self,
        spar_mat: Matrix,
        b_init: Init | None = None,
        in_size: Size | None = None,
        name: str | None = None,
        param_type: type = brainstate.ParamState,
    ):
        super().__init__(name=name)
        if not hasattr(spar_mat, "data") or len(getattr(spar_mat, "shape", ())) != 2:
            raise no_matrix(spar_mat)
        rows, columns = spar_mat.shape
        with_elements(spar_mat, split(spar_mat.data)[0])  # which refuses a dense matrix
        check_inits(b_init=b_init)
        size = (rows,) if in_size is None else tuple(np.atleast_1d(in_size).tolist())
        self.in_size, self.out_size = size, (columns,)
        if size[-1] != rows:
            raise UsageError(
                "in_size does not fit the matrix.",
                got=f"in_size={in_size}, matrix {spar_mat.shape}",
                expected=rows,
            )
        self.spar_mat = spar_mat
        value = {"weight": join(*split(spar_mat.data))}
        if b_init is not None:
            value["bias"] = brainstate.nn.init.param(b_init, self.out_size)
        self.weight = param_type(value)

    def update(self, x: Value) -> Value:
        """y."""
        value = self.weight.value
        return sparse_matmul(x, value["weight"], sparse_mat=self.spar_mat, bias=value.get("bias"))


class ScaledWSLinear(brainstate.nn.ScaledWSLinear):
    """`y = x @ standardised(W) + b`: `brainstate.nn.ScaledWSLinear` for values with and without a
    unit.

    The weights of each output have mean 0 and variance 1 / I, in the unit of W, times a learned
    gain (Qiao et al. 2019).

    >>> import jax.numpy as jnp
    >>> import braintrace
    >>> braintrace.nn.ScaledWSLinear(3, 4)(jnp.ones((16, 3))).shape
    (16, 4)
    """

    def update(self, x: Value) -> Value:
        """y."""
        value = self.weight.value

        def standardised(weight: jax.Array) -> Value:
            even = brainstate.nn.weight_standardization(weight, self.eps, value.get("gain"))
            return even if self.w_mask is None else even * self.w_mask

        return matmul(x, value["weight"], value.get("bias"), weight_fn=standardised)
