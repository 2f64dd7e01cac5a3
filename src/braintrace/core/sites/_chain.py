"""A product whose result goes on through linear operations: the first factor of `(x @ A) @ B`.

With `y = T(op(A, x))` and T linear, made of constants and of what the prelude computes, A acts on y
as a weight with the data x: its influence on the state is that of the whole product's weight,
pulled back through T.
"""

import copy
from collections.abc import Sequence, Set

import jax
import jax.numpy as jnp
from jaxtyping import Array, Num

from .._compat import P
from ..jaxpr import SIGNS, Atom, Equation, Var, axes_through, evaluate, scales
from ._dot_general import DotGeneralRule
from ._rule import SiteRule

_MOVES = (P.transpose_p, P.dot_general_p)


class ChainRule(SiteRule):
    """The rule of `first`'s weight with y the result of `chain`, the equations from `first`'s
    result on.

    The trace has y's shape and `first`'s contraction index, as that of the weight `A @ B` would
    have; `collect` pulls it back through T. Weight gradients pull the cotangent back through T
    before it meets the data, so that nothing of that size is made.
    """

    def __init__(self, first: DotGeneralRule, chain: Sequence[Equation], samples: dict[int, int]):
        super().__init__(first.equation, first.operand)
        self._first, self._chain, self._lanes = first, list(chain), samples
        inside = {v for e in chain for v in e.outputs} | {first.equation.outputs[0]}
        atoms = [v for e in chain for v in e.inputs if v not in inside]
        self.structure = tuple(dict.fromkeys(v for v in atoms if isinstance(v, Var)))
        self._values: dict[Var, jax.Array] | None = None if self.structure else {}

    def bound(self, values: Sequence[jax.Array]) -> "ChainRule":
        rule = copy.copy(self)
        pairs = zip(self.structure, values, strict=True)
        rule._values = {v: value for v, value in pairs if isinstance(v, Var)}
        return rule

    @property
    def is_bound(self) -> bool:
        return self._values is not None

    @property
    def data(self) -> tuple[int, ...]:
        return self._first.data

    @property
    def _y(self) -> Var:
        return self._chain[-1].outputs[0]

    @property
    def _y_shape(self) -> tuple[int, ...]:
        return self._y.shape

    def contraction(self) -> tuple[int, ...]:
        return self._first.contraction()

    def lane_axis(self, axis: int) -> int | None:
        return self._lanes.get(axis)

    def neurons(self) -> list[tuple[int, int | None]]:
        return [(d, None) for d in range(len(self._y_shape)) if d not in self._lanes]

    def represent(self, data: list[jax.Array]) -> jax.Array:
        return self._first.represent(data)

    def spread(self, f: jax.Array, data: list[jax.Array]) -> jax.Array:
        x = self.represent(data).astype(f.dtype)
        # the axis of x that runs along each axis of y
        along = [self._lanes.get(d) for d in range(f.ndim)]
        samples = [d for d in along if d is not None]
        (contracted,) = [d for d in range(x.ndim) if d not in samples]
        shape = [1 if d is None else x.shape[d] for d in along]
        return self.at_entries(f) * jnp.transpose(x, [*samples, contracted]).reshape(
            *shape, x.shape[contracted]
        )

    def collect(self, entries: jax.Array) -> jax.Array:
        pulled = jax.vmap(self._pull_back, in_axes=-1, out_axes=-1)(entries)
        return self._first.collect_by_y(pulled)

    def weight_gradient(self, x: jax.Array, c: jax.Array) -> jax.Array:
        return self._first.weight_gradient(x, self._pull_back(c))

    def weight_gradient_sum(self, x: Num[Array, "T ..."], c: Num[Array, "T ..."]) -> jax.Array:
        return self._first.weight_gradient_sum(x, jax.vmap(self._pull_back)(c))

    def data_gradient_sum(
        self, data: list[jax.Array], c: Num[Array, "T ..."], weight: jax.Array
    ) -> jax.Array:
        return self._first.data_gradient_sum(data, jax.vmap(self._pull_back)(c), weight)

    def _pull_back(self, c: jax.Array) -> jax.Array:
        """The cotangent of `first`'s result that c, that of y, stands for."""
        start = self._first.equation.outputs[0]

        def through(u: jax.Array) -> jax.Array:
            env: dict[Var, jax.Array] = {start: u, **(self._values or {})}
            evaluate(self._chain, env)
            return env[self._y]

        _, pull = jax.vjp(through, jnp.zeros(start.shape, start.dtype))
        return pull(c.astype(self._y.dtype))[0].astype(c.dtype)


def chain_rule(first: SiteRule, chain: Sequence[Equation], prelude: Set[Atom]) -> ChainRule | None:
    """The rule of a dense weight whose result runs through `chain`; None when that is not linear,
    or sums over a sample.

    The other operands must be constants or values of the prelude.
    """
    if not isinstance(first, DotGeneralRule) or len(first.contraction()) != 1:
        return None
    u = first.equation.outputs[0]
    samples = {d: axis for d in range(len(u.shape)) if (axis := first.lane_axis(d)) is not None}
    count = len(samples)
    for e in chain:
        operand = e.inputs.index(u)
        if any(
            isinstance(v, Var) and v not in prelude for k, v in enumerate(e.inputs) if k != operand
        ):
            return None
        moves = e.primitive in _MOVES or (e.primitive is P.gather_p and operand == 0)
        linear = moves or e.primitive in SIGNS or scales(e, operand)
        (u,) = e.outputs
        if not linear or not u.differentiable:
            return None
        axes = axes_through(e, operand) or {}
        samples = {b: samples[a] for a, b in axes.items() if a in samples}
    return ChainRule(first, chain, samples) if len(samples) == count else None
