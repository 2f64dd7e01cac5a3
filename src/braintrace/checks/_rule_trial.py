"""A rule on an example cell: its learner, and the gradient as a function of all that laws
change.
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from .._compile import compile
from ..cell import merged
from ..core.signals import LOCAL_TARGET, MODULATOR, RATE_SCALE, TARGET
from ..core.traces import draws_in
from ..gradients import GradientReport, bptt_gradient, compare_gradients, inner_dtypes
from ..learner import FunctionLearner
from ._cells import CellExample

#: Programs that run a few times.
_QUICK = {"xla_backend_optimization_level": 0}
#: The arguments of `update` and of the drivers, by the leaves that their values set.
_ARGUMENTS = {TARGET: "y_target", LOCAL_TARGET: "y_target", MODULATOR: "modulator"}


class Given(NamedTuple):
    """What a gradient depends on. `factors` are those of the two terms of the loss."""

    params: PyTree
    carry: PyTree
    xs: PyTree
    ys: PyTree
    factors: Float[Array, "T 2"]
    mask: Float[Array, "T *B"]
    reset: Bool[Array, "T B"] | None
    signals: dict[str, PyTree]
    key: PyTree


def loss(out: PyTree, y: PyTree, factors: Float[Array, "2"], apart: bool) -> Float[Array, "*B"]:
    """A linear and a quadratic term, for each sample or for all."""

    def term(o: Array, y: Array) -> Array:
        each = factors[0] * (o * jnp.conj(y)).real + factors[1] * 0.5 * jnp.abs(o - y) ** 2
        return each.sum(tuple(range(int(apart), each.ndim)))

    return sum(jax.tree.leaves(jax.tree.map(term, out, y)), jnp.zeros(()))


def compiled(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """`function`, compiled for a few calls."""
    return jax.jit(function, compiler_options=_QUICK)


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
    """A rule on a cell."""

    learner: FunctionLearner
    example: CellExample
    tolerance: float | None

    @classmethod
    def of(
        cls, rule: Any, example: CellExample, options: Mapping[str, Any], tolerance: float | None
    ) -> "Trial":
        """Raises what `compile` raises."""
        first = jax.tree.map(lambda v: v[0], example.xs)
        given = {"params": example.params, "carry": example.carry, **example.options, **options}
        return cls(compile(example.cell, rule, first, **given), example, tolerance)

    @property
    def samples(self) -> int | None:
        """How many there are; None without a batch."""
        return self.learner.graph.batch_size

    @property
    def inputs_of_samples(self) -> bool:
        """Whether each sample has inputs of its own, on axis 1."""
        leaves = jax.tree.leaves((self.given.xs, self.given.ys))
        return all(v.shape[1:2] == (self.samples,) for v in leaves)

    @functools.cached_property
    def given(self) -> Given:
        """The values of the example, with random targets, weights and signals, and no reset."""
        example, samples, steps = self.example, self.samples, self.example.steps
        random = np.random.default_rng(zlib.crc32(b"laws"))
        first = lambda p, c, xs: example.cell(p, c, jax.tree.map(lambda v: v[0], xs))[1]
        out = jax.eval_shape(first, example.params, example.carry, example.xs)
        draw = lambda shape, dtype: jnp.asarray(random.standard_normal((steps, *shape)), dtype)
        ys = jax.tree.map(lambda v: draw(v.shape, v.dtype), out)
        real = jnp.finfo(jnp.result_type(float)).dtype
        shape = () if samples is None else (samples,)
        mask = random.uniform(0.5, 1.5, (steps, *shape))
        signals: dict[str, Any] = {}
        for leaf in self.learner.graph.extra:
            if leaf.name in _ARGUMENTS:
                value = draw(leaf.initial.shape, leaf.initial.dtype)
                signals.setdefault(_ARGUMENTS[leaf.name], []).append(value)
        several = {"modulator"}  # one for each layer, where there are several
        alone = {k: tuple(v) if k in several and v[1:] else v[0] for k, v in signals.items()}
        if self.learner.rule.target_timing == "sequence-end":
            alone = {k: v[0] for k, v in alone.items()}
        factors, weights = jnp.ones((steps, 2), real), jnp.asarray(mask, real)
        values = example.params, example.carry, example.xs, ys, factors, weights, None, alone
        return Given(*values, jax.random.key(0))

    @functools.cached_property
    def draws(self) -> bool:
        """Whether the rule draws random numbers."""
        return bool(draws_in(self.learner.init(self.example.params, self.example.carry).traces))

    @property
    def steps_add_up(self) -> bool:
        """Whether the gradients of single steps add up to that of a sequence: a rate's term is
        weighed by the losses of a sequence, and a target may act at its end.
        """
        names = {leaf.name for leaf in self.learner.graph.extra}
        return RATE_SCALE not in names and self.learner.rule.target_timing != "sequence-end"

    def plain(self, given: Given, window: int | None, **more: Any) -> PyTree:
        """The gradient of a sequence, not compiled as a whole."""
        this, apart = self.learner, self.samples is not None
        gradient, *_ = this.etrace_grad(
            given.params,
            this.init(given.params, given.carry, key=given.key),
            given.xs,
            given.ys,
            given.factors,
            loss_fn=lambda out, y, f: loss(out, y, f, apart),
            mask=given.mask,
            reset=given.reset,
            window=window,
            reduction="sum",
            return_state=False,
            **given.signals,
            **more,
        )
        return gradient

    @functools.cached_property
    def _programs(self) -> dict[Any, Callable[[Given], PyTree]]:
        return {}

    def gradient(self, given: Given, window: int | None = 3) -> PyTree:
        """The gradient of a sequence in windows."""
        key = window, given.reset is None
        if key not in self._programs:
            self._programs[key] = compiled(functools.partial(self.plain, window=window))
        return self._programs[key](given)

    def one_step(self, params: PyTree, state: PyTree, at: Given) -> tuple[PyTree, PyTree]:
        """(the new state, the gradient) of a single step, whose loss has no weight."""
        apart = self.samples is not None

        def objective(trained: PyTree) -> tuple[Array, PyTree]:
            whole = merged(trained, params)
            new, out = self.learner.update(whole, state, at.xs, **at.signals)
            return loss(out, at.ys, at.factors, apart).sum(), new

        found, new = jax.grad(objective, has_aux=True)(self.learner.trained(params))
        return new, found

    def step_by_step(self, given: Given) -> PyTree:
        """The gradients of the steps, which have no weight, added up inside of a scan."""

        def body(both: tuple[PyTree, PyTree], at: Given) -> tuple[PyTree, None]:
            new, found = self.one_step(given.params, both[0], at)
            return (new, jax.tree.map(jnp.add, both[1], found)), None

        start = self.learner.init(given.params, given.carry, key=given.key)
        total = jax.tree.map(jnp.zeros_like, self.learner.trained(given.params))
        return jax.lax.scan(body, (start, total), of_steps(given))[0][1]

    def of_last_step(self, given: Given, many: PyTree, steps: int = 3) -> PyTree:
        """The gradient of the last of a few steps, summed over a map over sequences of inputs."""
        this, apart = self.learner, self.samples is not None
        slices = [jax.tree.map(lambda v, t=t: v[t], of_steps(given)) for t in range(steps)]

        def total(trained: PyTree) -> Array:
            whole = merged(trained, given.params)

            def single(xs: PyTree) -> Array:
                state, out = this.init(whole, given.carry, key=given.key), None
                for t, at in enumerate(slices):
                    x = jax.tree.map(lambda v, t=t: v[t], xs)
                    state, out = this.update(whole, jax.lax.stop_gradient(state), x, **at.signals)
                last = slices[-1]
                return loss(out, last.ys, last.factors, apart).sum()

            return jax.vmap(single)(many).sum()

        return jax.grad(total)(this.trained(given.params))

    def bptt(self, given: Given) -> PyTree:
        """The gradient of the cell itself."""
        apart = self.samples is not None
        sequences = given.xs, given.ys, given.factors
        own = {"loss_fn": lambda out, y, f: loss(out, y, f, apart), "mask": given.mask}
        cell = self.example.cell
        return bptt_gradient(cell, given.params, given.carry, *sequences, **own, reduction="sum")[0]

    def compared(self, a: PyTree, b: PyTree) -> GradientReport:
        """The gradient `a` against `b`, with the certificates."""
        graph, rule = self.learner.graph, self.learner.rule
        certificates = {row.path: row.exactness for row in graph.parameters}
        said = {"tolerance": self.tolerance, "dtypes": inner_dtypes(graph, rule)}
        kept = jax.tree.map(lambda a, b: b if a is not None else None, a, b, is_leaf=_is_none)
        return compare_gradients(a, kept, certificates, **said)


def of_steps(given: Given) -> Given:
    """What steps differ in, time first."""
    return given._replace(params=None, carry=None, reset=None, key=None)


def _is_none(value: object) -> bool:
    return value is None
