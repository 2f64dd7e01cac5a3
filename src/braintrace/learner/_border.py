"""Where a state comes in: it is what the learner makes, or is refused with what differs."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from ..cell import Cell, Tree
from ..core import __version__
from ..core._compat import is_traced
from ..core._errors import UsageError
from ..core.engine import Rule
from ..core.traces import draws_in
from ._serialization import offer_to_flax
from ._state import Fingerprint, State

_MOST_SHOWN = 4
_OTHER_LEARNER = (
    "pass a state of this learner, from init or a call of its own; or compile the learner that the "
    "state is of"
)
_OTHER_VERSION = (
    "braintrace.State(s.carry, s.traces, s.steps) drops the fingerprint of s; then structure, "
    "shapes and dtypes alone are checked"
)


class Border:
    """What the states of a learner are like. Structure, shapes and dtypes are those of tracers
    too: under `jax.jit` a check is done while tracing and costs nothing at run time.

    Attributes:
        fingerprint: as in `State`.
        draws: whether the traces hold a key.
    """

    def __init__(self, cell: Cell, rule: Rule):
        traces = jax.eval_shape(lambda: rule.init(cell.graph))
        self._layout = Tree.of((cell.carry.shapes, traces, jax.ShapeDtypeStruct((), np.int32)))
        self._unformed = Tree.of((cell.carry.shapes, None, self._layout.leaves[-1]))
        self.draws = bool(draws_in(traces))
        self._names = dict(_names(cell, rule, traces))
        told = {"version": __version__, "algorithm": rule.name}
        told |= {f"option {name}": value for name, value in rule.options}
        params = zip(cell.params.names, cell.params.leaves, strict=True)
        told |= {f"parameter {name}": _text(leaf) for name, leaf in params}
        self.fingerprint = Fingerprint(json.dumps(told | self._texts(self._layout)))

    def check(self, state: object) -> None:
        """Refuse what is no state of this learner.

        Raises:
            UsageError: saying what differs.
        """
        offer_to_flax()
        if not isinstance(state, State):
            raise UsageError(
                "This is no state.",
                got=type(state).__name__,
                expected="a braintrace.State",
                do="pass the state that learner.init(params, carry) or the last call returned",
            )
        if state.fingerprint not in (None, self.fingerprint):
            _compare(_told(self.fingerprint), _told(state.fingerprint))
        layout = self._layout if state.traces is not None else self._unformed
        tree = state.carry, state.traces, state.steps
        leaves, structure = jax.tree.flatten(tree)
        if any(map(_is_gone, leaves)):
            raise UsageError(
                "The state was given away.",
                got="arrays that a call with donate=True, or a jax.jit with donate_argnums, moved "
                "on where they lie",
                expected="the state that this call returned",
                do="go on with that state, or keep a copy of this one before: "
                "jax.tree.map(jnp.copy, state); a learner that holds its state begins again with "
                "reset_state()",
            )
        if structure == layout.structure and all(map(_like, leaves, layout.leaves)):
            return
        # slowly: what JAX would convert itself, a Python number or a wide NumPy array, is right
        found = Tree.of(jax.tree.map(_shaped, tree))
        _compare(self._texts(layout), self._texts(found))
        if structure != layout.structure:
            _compare({"structure": str(layout.structure)}, {"structure": str(structure)})

    def _texts(self, tree: Tree) -> dict[str, str]:
        """What each leaf of (carry, traces, steps) is, by its name."""
        leaves = zip(tree.names, tree.leaves, strict=True)
        return {self._names.get(name, _place(name)): _text(leaf) for name, leaf in leaves}


def _names(cell: Cell, rule: Rule, traces: Any) -> Iterator[tuple[str, str]]:
    """Names for users of the leaves of (carry, traces, steps) that are a parameter's traces, by
    JAX's own.
    """
    structure = jax.tree.structure(traces)
    numbers = structure.unflatten(range(structure.num_leaves))
    carried = numbers["carrier"] if cell.graph.extra else numbers
    owners = {
        k: row.path
        for row in cell.graph.parameters
        for n in row.sites
        for k in jax.tree.leaves(rule.carrier.of_site(carried, n))
    }
    for k, (path, _) in enumerate(jax.tree_util.tree_leaves_with_path(traces)):
        name = jax.tree_util.keystr(path)
        if k in owners:
            yield f"[1]{name}", f"traces of {owners[k]} at {name}"


def _place(name: str) -> str:
    """Where a leaf of (carry, traces, steps) is, from JAX's name of it."""
    part, rest = ("carry", "traces", "steps")[int(name[1])], name[3:]
    return f"{part} {rest.removeprefix('carry')}".strip()


def _is_gone(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and not is_traced(leaf) and leaf.is_deleted()


def _like(leaf: Any, expected: jax.ShapeDtypeStruct) -> bool:
    shape, dtype = getattr(leaf, "shape", None), getattr(leaf, "dtype", None)
    return shape == expected.shape and dtype == expected.dtype


def _shaped(leaf: Any) -> jax.ShapeDtypeStruct:
    """The array that JAX makes of a leaf."""
    try:
        return jax.eval_shape(lambda v: v, leaf)
    except TypeError:
        raise UsageError(
            "The state holds something that is no array.",
            got=type(leaf).__name__,
            expected="arrays",
            do="pass the state that learner.init(params, carry) or the last call returned",
        ) from None


def _text(leaf: jax.ShapeDtypeStruct) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"


def _told(fingerprint: object) -> dict[str, str]:
    """What a fingerprint tells; also of one that was damaged."""
    try:
        told = json.loads(str(fingerprint))
    except ValueError:
        told = None
    return told if isinstance(told, dict) else {"fingerprint": repr(fingerprint)}


def _compare(expected: Mapping[str, str], got: Mapping[str, str]) -> None:
    """Refuse what differs."""
    names = [k for k in {**expected, **got} if expected.get(k) != got.get(k)]
    if not names:
        return
    if "algorithm" in names:  # which has options of its own
        names = ["algorithm"]
    more = f"; and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    show = lambda of: "; ".join(f"{k}: {of.get(k, 'none')}" for k in names[:_MOST_SHOWN]) + more
    raise UsageError(
        "The state is not one of this learner.",
        got=show(got),
        expected=show(expected),
        do=_OTHER_VERSION if names == ["version"] else _OTHER_LEARNER,
    )
