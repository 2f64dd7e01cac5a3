"""From a brainstate module to a pure cell `(params, carry, x) -> (carry, out)`."""

import dataclasses
from collections.abc import Callable, Collection, Hashable, Mapping
from typing import Any

import brainstate
import jax
from jaxtyping import PyTree

from ...cell import Values, users_step
from ...core._errors import CompilationError, UsageError
from ._states import Layout, lent, named_states

stop = jax.lax.stop_gradient


@dataclasses.dataclass(frozen=True, eq=False)
class ModuleCell:
    """A module as a cell.

    `params` are its trainable states, `constants` states that the step reads and never writes,
    `carry` those that it writes. The cell's params are the leaves of `params` and `constants`
    together.
    """

    model: Callable[..., PyTree]
    params: Layout
    constants: Layout
    carry: Layout
    # ids of the states with one value per sample, where the model is written for one
    mapped: frozenset[int]
    vmap: bool
    axis_name: Hashable = None  # of the samples, inside the model

    def of_copy(
        self, model: Callable[..., PyTree], copies: Mapping[int, brainstate.State]
    ) -> "ModuleCell":
        """The same of a copy of the model; `copies` are its states, by the ids of these. States
        outside of the model are the same ones.
        """
        moved = lambda layout: dataclasses.replace(
            layout, states=tuple(copies.get(id(s), s) for s in layout.states)
        )
        mapped = frozenset(id(copies[k]) if k in copies else k for k in self.mapped)
        params, constants, carry = map(moved, (self.params, self.constants, self.carry))
        return ModuleCell(model, params, constants, carry, mapped, self.vmap, self.axis_name)

    def read_params(self) -> Values:
        trainable, fixed = self.params.read(), self.constants.read()
        return Values(trainable.names + fixed.names, trainable.leaves + fixed.leaves)

    @property
    def states(self) -> list[brainstate.State]:
        return [*self.params.states, *self.constants.states, *self.carry.states]

    def put_params(self, leaves: list[jax.Array]) -> None:
        count = len(self.params.leaf_names)
        self.params.put(leaves[:count])
        self.constants.put([stop(v) for v in leaves[count:]])

    def cell(self, params: Values, carry: Values, x: tuple[PyTree, ...]) -> tuple[Values, PyTree]:
        """The step as a pure function; leaves every state as it was."""
        return self._over_samples(params, carry, x) if self.vmap else self._once(params, carry, x)

    def _once(self, params: Values, carry: Values, x: tuple[PyTree, ...]) -> tuple[Values, PyTree]:
        with lent(self.states):
            self.put_params(params.leaves)
            self.carry.put(self._hold_statistics(carry.leaves))
            out = self.model(*x)
            new = self.carry.read()
        return Values(new.names, self._hold_statistics(new.leaves)), out

    def _hold_statistics(self, leaves: list[jax.Array]) -> list[jax.Array]:
        """No gradient passes through long-term states: they are statistics and keys, not hidden
        state.
        """
        states = self.carry.leaf_states()
        return [
            v if isinstance(s, brainstate.ShortTermState) else stop(v)
            for s, v in zip(states, leaves, strict=True)
        ]

    def _over_samples(
        self, params: Values, carry: Values, x: tuple[PyTree, ...]
    ) -> tuple[Values, PyTree]:
        axes = self.axes(self.carry)
        samples = jax.tree.leaves(x)[0].shape[0]
        inner, after, inner_axes = list(carry.leaves), {}, list(axes)
        for k, (state, key) in enumerate(zip(self.carry.leaf_states(), carry.leaves, strict=True)):
            if isinstance(state, brainstate.random.RandomState) and axes[k] is None:
                keys = jax.random.split(key, samples + 1)
                after[k], inner[k], inner_axes[k] = keys[0], keys[1:], 0
        param_axes = Values(params.names, [*self.axes(self.params), *self.axes(self.constants)])
        carry_axes = Values(carry.names, inner_axes)
        try:
            axes_in, axes_out = (param_axes, carry_axes, 0), (carry_axes, 0)
            new, out = jax.vmap(self._once, axes_in, axes_out, axis_name=self.axis_name)(
                params, Values(carry.names, inner), x
            )
        except ValueError as error:
            if "out_axes" not in str(error):
                raise
            shared = [n for n, axis in zip(carry.names, inner_axes, strict=True) if axis is None]
            raise CompilationError(
                "The step writes a state that the samples share.",
                got=f"shared states {shared}",
                expected="states with one value per sample, made by init_state",
                do="make the state in init_state, or write the model for a batch and leave vmap "
                "out",
            ) from error
        return Values(new.names, [after.get(k, v) for k, v in enumerate(new.leaves)]), out

    def axes(self, layout: Layout) -> list[int | None]:
        """0 for the leaves with one value per sample."""
        return [0 if id(s) in self.mapped else None for s in layout.leaf_states()]


def functionalise(
    model: brainstate.nn.Module,
    x: tuple[PyTree, ...],
    mapped: Collection[int],
    vmap: bool,
    axis_name: Hashable = None,
) -> ModuleCell:
    """Trace the module once to see which states its step reads and which it writes."""
    own = named_states(model)
    names = {id(state): name for name, state in own.items()}
    if axis_name is not None and not (vmap and isinstance(axis_name, Hashable)):
        raise UsageError(
            "Invalid axis_name.",
            got=f"axis_name={axis_name!r}, vmap={vmap}",
            expected="the name of the axis that vmap=True maps over",
        )
    size = jax.tree.leaves(x)[0].shape[0] if axis_name is not None else None
    with lent(own.values()), brainstate.StateTraceStack(name="step") as trace:
        if vmap:
            for state in own.values():
                if id(state) in mapped:
                    state.restore_value(jax.tree.map(lambda v: v[0], state.value))
            x = jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape[1:], v.dtype), x)
        _try(model, x, own, {"axis_name": axis_name, "axis_size": size or 1})
        touched = list(zip(trace.states, trace.been_writen, strict=True))
    constants, carry = {}, {}
    params: dict[str, brainstate.State] = {
        n: s for n, s in own.items() if isinstance(s, brainstate.ParamState)
    }
    for state, written in touched:
        name = names.setdefault(id(state), _outside_name(state, names))
        trainable = isinstance(state, brainstate.ParamState)
        if trainable and written:
            raise CompilationError(
                "The step writes a parameter.",
                got=name,
                expected="parameters that only an optimiser writes",
                do="hold what the step writes in a HiddenState, ShortTermState or LongTermState",
            )
        (params if trainable else carry if written else constants)[name] = state
    of_params, of_constants, of_carry = map(Layout.of, (params, constants, carry))
    samples = frozenset(mapped), vmap, axis_name
    return ModuleCell(model, of_params, of_constants, of_carry, *samples)


def _try(
    model: brainstate.nn.Module,
    x: tuple[PyTree, ...],
    own: dict[str, brainstate.State],
    axis: dict[str, Any],
) -> None:
    """Trace the model's step, which must find all its states made, and perhaps the `axis` that it
    names.
    """
    arrays = lambda out: [v for v in jax.tree.leaves(out) if isinstance(v, jax.Array)]
    with users_step({"the inputs": x}, "call it with the inputs of one step, batch first"):
        try:
            step = lambda x: arrays(model(*x))
            named = axis["axis_name"] is not None
            jax.eval_shape(jax.vmap(step, in_axes=None, **axis) if named else step, x)
        except AttributeError as error:
            if any(isinstance(s, brainstate.HiddenState) for s in own.values()):
                raise
            raise CompilationError(
                "The step fails, and the model has no hidden state.",
                got=f"AttributeError: {error}",
                expected="a model whose states are initialised",
                do="call braintrace.compile, or brainstate.nn.init_all_states(model, "
                "batch_size=...) first",
            ) from error
        except KeyError as error:
            if "not found in environment" not in str(error):
                raise
            key = str(error.args[0]).split("'")[1]
            raise CompilationError(
                f"The step reads {key!r} from brainstate.environ, where it is not set.",
                got=f"no {key!r}",
                expected="a value while the model is compiled, which the learner keeps",
                do=f"compile inside `with brainstate.environ.context({key}=...):`"
                + (" (True in training, where dropout acts)" if key == "fit" else ""),
            ) from error
    made = set(named_states(model)) - set(own)
    if made:
        raise CompilationError(
            "The step makes states.",
            got=sorted(made),
            expected="states that exist before the first step",
            do="make them in __init__ or in init_state",
        )


def _outside_name(state: brainstate.State, names: dict[int, str]) -> str:
    """A name for a state that is no part of the module."""
    kind = "random" if state is brainstate.random.DEFAULT else type(state).__name__
    taken = set(names.values())
    candidates = kind, *(f"{kind}_{k}" for k in range(len(taken)))
    return next(name for name in candidates if name not in taken)
