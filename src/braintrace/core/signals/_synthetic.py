"""A learned estimate of the later loss: synthetic gradients at the exit of each step."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from .._domains import described, positive, whole
from .._errors import UsageError
from ..analysis import CellGraph, Exit
from ..jaxpr import Var
from ..traces import learned_in, with_learned
from ..traces._filters import counting, sample_shaped
from ._editor import Edit, Editor, sg
from ._linear_loss import add_linear_loss

ESTIMATOR = "synthetic gradient"  # the weights of the estimator, those of all samples
LOSS_SCALE = "loss scale"  # for each sample, what the reduction makes of a loss of weight 1

Weights = Sequence[Array]


@dataclasses.dataclass(frozen=True)
class SyntheticGradient:
    r"""An estimator M of the gradient that the loss of all later steps has at the hidden state.

    .. math::

        M(h^t) = W h^t + b \approx \frac{\partial \sum_{s > t} L^s}{\partial h^t}

    of the whole hidden state of a sample, flattened, n numbers; with `hidden_width` k,
    :math:`M(h) = W \tanh(U h + c) + b`. W and b are zero at first, so that an estimator that has
    learned nothing changes nothing. A subclass with `initial` and `__call__` of its own is an
    estimator of another form.

    Memory: n (n + 1), shared by the samples, or k (2 n + 1) + n. Time: as much for each sample.

    Args:
        group_shapes: taken for programs of the PyPI package braintrace, where each hidden group has
            an estimate of its own; here it is of the whole state.
        hidden_width: neurons of a hidden layer; None for none.
        scale: the standard deviation of W at first, and, over the square root of n, that of U,
            where 0 stands for 1.
        seed: of these draws.

    References:
        Jaderberg et al., ICML 2017, arXiv 1608.05343, section 2.2. Czarnecki et al., ICML 2017,
        arXiv 1703.00522.

    >>> import braintrace, jax.numpy as jnp
    >>> estimator = braintrace.SyntheticGradient()
    >>> weights = [jnp.asarray(w) for w in estimator.initial(3)]
    >>> estimator(weights, jnp.ones((2, 3))).tolist()
    [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """

    __module__ = "braintrace"

    group_shapes: object = dataclasses.field(default=None, compare=False)
    hidden_width: int | None = None
    scale: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.hidden_width is not None:
            whole("hidden_width", self.hidden_width)
        positive("scale", self.scale, zero=True)
        whole("seed", self.seed, least=0)

    def initial(self, size: int) -> list[np.ndarray]:
        """The weights at first, for a state of `size` numbers."""
        random, inner = np.random.default_rng(self.seed), self.hidden_width or size
        last = [self.scale * random.normal(size=(inner, size)), np.zeros(size)]
        if self.hidden_width is None:
            return last
        spread = (self.scale or 1) / np.sqrt(max(size, 1))
        return [spread * random.normal(size=(size, inner)), np.zeros(inner), *last]

    @staticmethod
    def weights(state: PyTree) -> list[Array]:
        """The weights of M in a state of a learner, or in its traces."""
        if found := learned_in(state):
            return found[0].weights
        raise UsageError(
            "There is no estimator.",
            got=described(state),
            expected="the state, or the traces, of a learner of 'dni'",
        )

    @staticmethod
    def placed(state: PyTree, weights: Sequence[ArrayLike]) -> PyTree:
        """The state, or the traces, with these weights of M: those that another state has learned,
        say. At a learner that holds its state: `learner.etrace.value` and `learner.traces`.
        """
        own = SyntheticGradient.weights(state)
        shapes = [[jnp.shape(v) for v in of] for of in (weights, own)]
        if shapes[0] != shapes[1]:
            raise UsageError("The weights do not fit.", got=shapes[0], expected=shapes[1])
        cast = [jnp.asarray(v, like.dtype) for v, like in zip(weights, own, strict=True)]
        return with_learned(state, cast)

    def __call__(self, weights: Weights, state: Float[Array, "B n"]) -> Float[Array, "B n"]:
        """The estimates for the states of samples."""
        *first, matrix, bias = weights
        if first:
            state = jnp.tanh(state @ first[0] + first[1])
        return state @ matrix + bias


@dataclasses.dataclass(frozen=True)
class LaterLoss(Edit):
    """Adds the gradient of `<M(h), h>` at the new hidden state h of each step, M held constant: M's
    estimate of what the later loss has there.

    State that the samples share has no estimate.
    """

    meets: ClassVar[bool] = True  # M is of the loss of all samples, and not weighted as that is

    estimator: SyntheticGradient

    def edit(self, editor: Editor, exits: list[Exit]) -> None:
        graph, leaves = editor.graph, estimated(editor.graph)
        if not leaves:
            return
        dtype = np.result_type(np.float32, *(counting(graph.carry[k].dtype) for k in leaves))
        size = sum(graph.carry[k].size for k in leaves) // graph.samples
        first = [w.astype(dtype) for w in self.estimator.initial(size)]
        weights = [editor.add_leaf(ESTIMATOR, w, shared=True) for w in first]
        scale = editor.add_leaf(LOSS_SCALE, np.ones((graph.samples,), dtype))

        def term(*given: Array) -> Array:
            scale, *rest = given
            h = by_sample(graph, leaves, rest[len(weights) :]).astype(dtype)
            estimate = self.estimator([sg(w) for w in rest[: len(weights)]], sg(h))
            return (sample_shaped(sg(scale), h) * sg(estimate) * h).sum()

        new = [graph.new_carry[k] for k in leaves]
        add_linear_loss(editor, editor.apply(term, scale, *weights, *new))


def estimator_of(edits: Sequence[Edit]) -> SyntheticGradient | None:
    """The estimator of a rule with these edits; None for none."""
    return next((edit.estimator for edit in edits if isinstance(edit, LaterLoss)), None)


def estimated(graph: CellGraph) -> list[int]:
    """The hidden leaves that have an estimate: those of samples, which a step makes anew."""
    own = [k for k in graph.hidden if isinstance(v := graph.new_carry[k], Var) and v.differentiable]
    return [k for k in own if graph.batch is None or graph.leaf_axis(k) is not None]


def by_sample(graph: CellGraph, leaves: Sequence[int], values: Weights) -> Float[Array, "B n"]:
    """The values of these leaves of the carry, in one row for each sample."""
    rows = []
    for k, value in zip(leaves, values, strict=True):
        axis = None if graph.batch is None else graph.leaf_axis(k)
        rows.append((value if axis is None else axis.apart(value)).reshape(graph.samples, -1))
    return jnp.concatenate(rows, axis=1)
