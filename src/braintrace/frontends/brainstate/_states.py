"""States as data: named leaves of `brainstate.State`s, read from the states and put into them."""

import contextlib
import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import EllipsisType
from typing import Any, cast

import brainstate
import brainunit
import jax
from jaxtyping import PyTree

from ...cell import Values
from ...core._errors import CompilationError, UsageError
from ...reports import Path

# of the leaves of a state: the axis of the samples, None for none, ... where it is to be found
Axes = tuple[int | EllipsisType | None, ...]


class EligibilityTrace(brainstate.ShortTermState):
    """The eligibility traces of a learner: a pytree of arrays, laid out by the algorithm's carrier.

    >>> import brainstate, braintrace, jax.numpy as jnp
    >>> model = brainstate.nn.Sequential(brainstate.nn.GRUCell(2, 3), brainstate.nn.Linear(3, 1))
    >>> learner = braintrace.compile(model, "d_rtrl", jnp.zeros(2))
    >>> isinstance(learner.etrace, braintrace.EligibilityTrace)
    True
    """

    __module__ = "braintrace"

    fingerprint: str | None = None  # as in `braintrace.State`

    def __pretty_repr_item__(self, k: str, v: Any) -> Any:
        return None if k == "fingerprint" else super().__pretty_repr_item__(k, v)


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """Some states in order, each with its name and the tree of its value."""

    states: tuple[brainstate.State, ...]
    names: tuple[str, ...]
    structures: tuple[Any, ...]
    leaf_names: tuple[str, ...]

    @classmethod
    def of(cls, named: Mapping[str, brainstate.State]) -> "Layout":
        structures, leaf_names = [], []
        for name, state in named.items():
            paths, structure = jax.tree_util.tree_flatten_with_path(state.value)
            structures.append(structure)
            leaf_names += [name + "".join(map(_key_text, path)) for path, _ in paths]
        return cls(tuple(named.values()), tuple(named), tuple(structures), tuple(leaf_names))

    def read(self) -> Values:
        """The present values, in the layout's trees and units."""
        leaves: list[jax.Array] = []
        for state, name, structure in zip(self.states, self.names, self.structures, strict=True):
            leaves += fit(state.value, structure, name)
        return Values(self.leaf_names, leaves)

    def values(self, leaves: Sequence[Any]) -> list[PyTree]:
        """The states' values, made of `leaves`."""
        values, start = [], 0
        for structure in self.structures:
            values.append(structure.unflatten(leaves[start : start + structure.num_leaves]))
            start += structure.num_leaves
        return values

    def leaf_states(self) -> list[brainstate.State]:
        """The state that each leaf belongs to."""
        pairs = zip(self.states, self.structures, strict=True)
        return [s for s, tree in pairs for _ in range(tree.num_leaves)]

    def write(self, leaves: Sequence[jax.Array]) -> None:
        """Give the states new values."""
        for state, value in zip(self.states, self.values(leaves), strict=True):
            state.value = value

    def put(self, leaves: Sequence[jax.Array | None]) -> None:
        """Give the states values for the time of a trace: no write is recorded."""
        for state, value in zip(self.states, self.values(leaves), strict=True):
            state.restore_value(value)


@contextlib.contextmanager
def lent(states: Iterable[brainstate.State] = ()) -> Iterator[brainstate.StateTraceStack]:
    """Inside, the states may hold anything; at the end, every state that was touched holds what it
    held before.
    """
    trace = brainstate.StateTraceStack(name="braintrace")
    try:
        with trace:
            for state in states:
                state.value  # noqa: B018  (it is touched now)
            yield trace
    finally:
        _restore(trace)


@contextlib.contextmanager
def all_or_nothing() -> Iterator[None]:
    """Where what is inside fails, every state that was touched holds what it held before."""
    trace = brainstate.StateTraceStack(name="braintrace")
    try:
        with trace:
            yield
    except Exception:
        _restore(trace)
        raise


def _restore(trace: brainstate.StateTraceStack) -> None:
    for state, value in zip(trace.states, trace.original_state_values, strict=True):
        try:
            state.restore_value(value)
        except ValueError:  # it holds a value of another structure or unit
            state.value = value


@contextlib.contextmanager
def as_before(model: brainstate.nn.Module, *, after_success: bool = True) -> Iterator[None]:
    """At the end every part of the model has the attributes, and every state the value, that it had
    before; where nothing failed, with `after_success` only.
    """
    parts = cast(dict[Path, Any], model.nodes()).values()
    attributes = [(part, dict(vars(part))) for part in parts]
    values = list(_readable(states_of(model).values()))
    undone = True
    try:
        yield
        undone = after_success
    finally:
        if undone:
            for part, held in attributes:
                vars(part).clear()
                vars(part).update(held)
            for state, value in values:
                state.value = value


def _readable(states: Iterable[brainstate.State]) -> Iterator[tuple[brainstate.State, PyTree]]:
    """States with their values; not those whose value was made inside a transformation that has
    ended.
    """
    for state in states:
        with contextlib.suppress(brainstate.TraceContextError):
            yield state, state.value


def fit(value: PyTree, structure: Any, name: str) -> list[jax.Array]:
    """The leaves of `value` in the units of `structure`."""
    leaves, found = jax.tree.flatten(value)
    if found == structure:
        return leaves
    expected = structure.unflatten([0] * structure.num_leaves)
    is_quantity = lambda v: isinstance(v, brainunit.Quantity)
    given, outer = jax.tree.flatten(value, is_leaf=is_quantity)
    wanted, outer_wanted = jax.tree.flatten(expected, is_leaf=is_quantity)
    if outer != outer_wanted:
        raise CompilationError(
            f"{name} is written with another structure.",
            got=found,
            expected=structure,
            do="write a value of the structure that the state was initialised with",
        )
    fitted: list[jax.Array] = []
    for g, w in zip(given, wanted, strict=True):
        unit, unit_wanted = brainunit.get_unit(g), brainunit.get_unit(w)
        if not unit.has_same_dim(unit_wanted):
            raise UsageError(
                f"{name} has a wrong unit.",
                got=_unit_text(unit),
                expected=_unit_text(unit_wanted),
                do="convert the value; or initialise, or compile, with the unit that is meant",
            )
        fitted.append(brainunit.Quantity(g).to_decimal(unit_wanted))
    return fitted


def _unit_text(unit: brainunit.Unit) -> str:
    return "no unit" if unit.is_unitless else str(unit)


def states_of(model: brainstate.nn.Module) -> dict[Path, brainstate.State]:
    """Every state of a module, by path."""
    return cast(dict[Path, brainstate.State], model.states())


def named_states(model: brainstate.nn.Module) -> dict[str, brainstate.State]:
    """Every state of a module by name, `layers[0].weight` for `('layers', 0, 'weight')`; each name
    once, and long keys that describe classes as the classes' names.
    """
    named: dict[str, brainstate.State] = {}
    for path, state in states_of(model).items():
        name = "".join(map(_part_text, path)).removeprefix(".")
        candidates = name, *(f"{name}#{k}" for k in range(2, len(named) + 2))
        named[next(n for n in candidates if n not in named)] = state
    return named


def _part_text(part: object) -> str:
    classes = re.findall(r"<class '(?:\w+\.)*(\w+)'>", str(part))
    if classes:
        return f"[{' '.join(classes)}]"
    return f"[{part}]" if isinstance(part, int) else f".{part}"


def _key_text(key: Any) -> str:
    if isinstance(key, jax.tree_util.DictKey):
        return f".{key.key}" if isinstance(key.key, str) else f"[{key.key!r}]"
    return "" if isinstance(key, jax.tree_util.FlattenedIndexKey) else str(key)
