"""From an NNX module to a pure cell `(params, carry, x) -> (carry, out)`, by `split` and
`merge`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import PyTree

from ...cell import (
    BatchSpec,
    Outside,
    Take,
    UserStep,
    Values,
    common_size,
    said_batch,
    split,
    spread_axes,
)
from ...core._errors import CompilationError, UsageError

stop = jax.lax.stop_gradient

# statistics and random streams: no hidden state, and never reset
_LASTING = nnx.BatchStat, nnx.RngState


@dataclasses.dataclass(frozen=True)
class Slots:
    """Places of the arrays of an `nnx.State`: its tree, and for each array its name and the
    Variable that holds it.
    """

    structure: Any
    names: tuple[str, ...]
    owners: tuple[tuple[PyTree, ...], ...]  # the Variables' paths
    avals: tuple[jax.ShapeDtypeStruct, ...]

    @classmethod
    def of(cls, state: nnx.State) -> "Slots":
        found, structure = jax.tree_util.tree_flatten_with_path(state)
        paths = [path for path, _ in nnx.to_flat_state(state)]
        starts = lambda keys, p: [getattr(k, "key", None) for k in keys[: len(p)]] == list(p)
        owners = [next(p for p in paths if starts(keys, p)) for keys, _ in found]
        inside = [
            jax.tree_util.keystr(keys[len(p) + 1 :])
            for (keys, _), p in zip(found, owners, strict=True)
        ]
        names = [".".join(map(str, p)) + rest for p, rest in zip(owners, inside, strict=True)]
        avals = tuple(jax.ShapeDtypeStruct(v.shape, v.dtype) for _, v in found)
        return cls(structure, tuple(names), tuple(owners), avals)


@dataclasses.dataclass(frozen=True, eq=False)
class SplitModule:
    """A module as a cell. Its params are the trained arrays, then the constants; its carry is the
    user's, then `written`.

    `rest` are all arrays that are not trained, in the order of their state; `written` and
    `constants` are numbers of them.
    """

    graphdef: nnx.GraphDef
    wrt: Any
    params: Slots
    rest: Slots
    written: tuple[int, ...]
    constants: tuple[int, ...]
    lasting: frozenset[int]  # of `rest`
    carry_structure: Any | None  # None: the module keeps its state itself
    carry_names: tuple[str, ...]
    vmap: bool

    # The model's arrays
    # --------------------------------------------------------------------------------------------

    def read(self, model: nnx.Module) -> tuple[list[jax.Array], list[jax.Array]]:
        """(trained arrays, the others) of the live model, which must be as it was compiled."""
        graphdef, params, rest = nnx.split(model, self.wrt, ...)
        if graphdef != self.graphdef:
            raise UsageError(
                "The model is not the one that was compiled: a static attribute, or a part of it, "
                "has changed.",
                got="another graph definition",
                expected="the compiled one; train() and eval() change it, for instance",
                do="for evaluation call the model itself, or etrace_evolve of a learner compiled "
                "in that mode; else compile again",
            )
        return jax.tree.leaves(params), jax.tree.leaves(rest)

    def params_of(self, trained: Sequence[jax.Array], rest: Sequence[jax.Array]) -> Values:
        names = [self.rest.names[k] for k in self.constants]
        return Values((*self.params.names, *names), [*trained, *(rest[k] for k in self.constants)])

    def carry_of(self, carry: PyTree, rest: Sequence[jax.Array]) -> Values:
        names = [self.rest.names[k] for k in self.written]
        own = [] if self.carry_structure is None else _leaves_like(carry, self.carry_structure)
        return Values((*self.carry_names, *names), [*own, *(rest[k] for k in self.written)])

    def user_carry(self, values: Values) -> PyTree:
        if self.carry_structure is None:
            return None
        return self.carry_structure.unflatten(values.leaves[: len(self.carry_names)])

    def write(
        self, model: nnx.Module, values: Values, *, lasting: bool = True, hidden: bool = True
    ) -> None:
        """Give the model's own Variables the values of a carry: statistics and random streams, and
        hidden state.
        """
        chosen = dict(zip(self.written, values.leaves[len(self.carry_names) :], strict=True))
        chosen = {k: v for k, v in chosen.items() if (lasting if k in self.lasting else hidden)}
        if chosen:
            _, _, rest = nnx.split(model, self.wrt, ...)
            leaves = [chosen.get(k, v) for k, v in enumerate(jax.tree.leaves(rest))]
            paths = {self.rest.owners[k] for k in chosen}
            flat = nnx.to_flat_state(self.rest.structure.unflatten(leaves))
            nnx.update(model, nnx.from_flat_state([(p, v) for p, v in flat if tuple(p) in paths]))

    def gradients(self, leaves: Sequence[jax.Array]) -> nnx.State:
        """Gradients of the trained arrays as the state that they are of, without Variables that
        have none.
        """
        owners = {o for o, g in zip(self.params.owners, leaves, strict=True) if g is not None}
        zeros = [
            jnp.zeros(v.shape, v.dtype) if g is None else g
            for g, v in zip(leaves, self.params.avals, strict=True)
        ]
        flat = nnx.to_flat_state(self.params.structure.unflatten(zeros))
        return nnx.from_flat_state([(p, v) for p, v in flat if tuple(p) in owners])

    @property
    def paths(self) -> tuple[tuple[tuple[PyTree, ...], ...], tuple[tuple[PyTree, ...], ...]]:
        """The paths of the trained Variables, and of what is carried; those of NNX's flat states
        where it is a Variable.
        """
        carried = [(name,) for name in self.carry_names]
        carried += [tuple(self.rest.owners[k]) for k in self.written]
        return tuple(map(tuple, self.params.owners)), tuple(carried)

    # The cell
    # ----------------------------------------------------------------------------------------------

    def cell(self, params: Values, carry: Values, x: tuple[PyTree, ...]) -> tuple[Values, PyTree]:
        """The step as a pure function."""
        before = self._others(params, carry)

        def once(carry: PyTree, x: tuple[PyTree, ...]) -> PyTree:
            return self._run(params.leaves[: len(self.params.names)], before, carry, x)

        step = jax.vmap(once) if self.vmap else once
        new, out, after = step(self.user_carry(carry), x)
        leaves = [] if self.carry_structure is None else jax.tree.leaves(new)
        return Values(carry.names, [*leaves, *(self._held(k, after[k]) for k in self.written)]), out

    def _others(self, params: Values, carry: Values) -> list[jax.Array]:
        """The arrays that are not trained. No gradient passes through constants, statistics and
        random streams.
        """
        constants = params.leaves[len(self.params.names) :]
        written = carry.leaves[len(self.carry_names) :]
        rest: dict[int, jax.Array] = {
            k: stop(v) for k, v in zip(self.constants, constants, strict=True)
        }
        rest |= {k: self._held(k, v) for k, v in zip(self.written, written, strict=True)}
        return [rest[k] for k in range(len(self.rest.names))]

    def user_step(self, step_fn: Callable[..., PyTree], has_aux: bool) -> UserStep:
        """`step_fn(model, call, *slices)` as a step of this cell; the model is as `call` leaves
        it.
        """

        def step(
            params: Values, carry: Values, take: Take, slices: PyTree, outside: Outside
        ) -> PyTree:
            trained = self.params.structure.unflatten(params.leaves[: len(self.params.names)])
            model: Any = nnx.merge(
                self.graphdef, trained, self.rest.structure.unflatten(self._others(params, carry))
            )
            last = jax.tree.leaves(nnx.state(model))

            def untouched() -> None:
                now = jax.tree.leaves(nnx.state(model))
                if any(a is not b for a, b in zip(last, now, strict=True)):
                    raise UsageError(
                        "step_fn writes Variables of the model outside of call(x).",
                        expected="what call(x) writes",
                        do="let the model's own step write them, or hold them outside of the model",
                    )

            def call(*inputs: PyTree) -> PyTree:
                untouched()
                new, out = take(inputs)
                self.write(model, new)
                last[:] = jax.tree.leaves(nnx.state(model))
                return out

            loss, aux = split(step_fn(model, call, *slices), has_aux)
            untouched()
            return loss, aux, outside.moving

        return step

    def _held(self, k: int, value: jax.Array) -> jax.Array:
        return stop(value) if k in self.lasting else value

    def _run(
        self,
        trained: Sequence[jax.Array],
        rest: Sequence[jax.Array],
        carry: PyTree,
        x: tuple[PyTree, ...],
    ) -> tuple[PyTree, PyTree, list[jax.Array]]:
        """(new carry, out, the other arrays afterwards) of one call of the module."""
        state = self.params.structure.unflatten(trained), self.rest.structure.unflatten(rest)
        model: Any = nnx.merge(self.graphdef, *state)
        new, out = (
            (None, model(*x)) if self.carry_structure is None else self._pair(model(carry, *x))
        )
        graphdef, params, after = nnx.split(model, self.wrt, ...)
        if graphdef != self.graphdef or jax.tree.structure(after) != self.rest.structure:
            raise CompilationError(
                "The step changes what the model is made of.",
                got=_changes(self.rest, after),
                expected="a step that only gives Variables new values of the same structure",
                do="make Variables in __init__; leave out sow and perturb; set modes before "
                "compiling",
            )
        written = [
            n
            for n, a, b in zip(self.params.names, jax.tree.leaves(params), trained, strict=True)
            if a is not b
        ]
        if written:
            raise CompilationError(
                "The step writes a parameter.",
                got=written,
                expected="parameters that only an optimizer writes",
                do="hold what the step writes in a Variable that wrt does not select",
            )
        return new, out, jax.tree.leaves(after)

    def _pair(self, got: PyTree) -> tuple[PyTree, PyTree]:
        if not isinstance(got, (tuple, list)) or len(got) != 2:
            raise CompilationError(
                "The module does not return a pair.",
                got=type(got).__name__,
                expected="(carry, out)",
                do="return (carry, out) from model(carry, x); leave carry out of compile for a "
                "module called as model(x)",
            )
        if jax.tree.structure(got[0]) != self.carry_structure:
            raise CompilationError(
                "The module returns a carry of another structure.",
                got=jax.tree.structure(got[0]),
                expected=self.carry_structure,
                do="return the new carry first, as a tree like the one that came in",
            )
        return got[0], got[1]

    # The batch
    # ----------------------------------------------------------------------------------------------

    def hidden(self, carry: Values) -> list[bool]:
        """For each leaf of the carry, whether a reset sets it to its first value."""
        return [True] * len(self.carry_names) + [k not in self.lasting for k in self.written]

    def batch(
        self, said: Mapping[str, Any], carry: PyTree, start: Values, x: PyTree
    ) -> BatchSpec | None:
        """What is said about the batch, for the carry `start` of the cell; else the size of axis 0
        that its hidden states share.
        """
        x = x[0] if len(x) == 1 else x
        if self.vmap:
            return said_batch(said, start, x, vmap=True)
        if (axes := said.get("batch_axes")) is not None:
            is_pair = isinstance(axes, (tuple, list)) and len(axes) == 2
            pair = tuple(axes) if is_pair else (axes,) * 2
            own = spread_axes("carry", pair[0], carry)
            one = 0 if isinstance(pair[0], (tuple, list, dict)) else pair[0]
            states = zip(self.hidden(start), start.leaves, strict=True)
            rest = [one if h and jnp.ndim(v) else None for h, v in list(states)[len(own) :]]
            said = {**said, "batch_axes": (Values(start.names, [*own, *rest]), pair[1])}
        size = common_size([v for v, h in zip(start.leaves, self.hidden(start), strict=True) if h])
        return said_batch(said, start, x) or (None if size is None else BatchSpec(size, said=False))


def functionalise(
    model: nnx.Module, wrt: Any, carry: PyTree, x: tuple[PyTree, ...], vmap: bool
) -> SplitModule:
    """Trace the module once to see which of its arrays a step writes. `carry` is None for
    `model(x)`.
    """
    graphdef, params, rest = nnx.split(model, wrt, ...)
    slots = Slots.of(params), Slots.of(rest)
    if not slots[0].names:
        raise UsageError(
            "The model has no parameters to learn.",
            got=f"wrt={wrt}, which selects nothing",
            expected="an NNX filter",
            do="pass wrt=nnx.Param, or the filter that the optimizer is given",
        )
    kinds = {tuple(p): isinstance(v, _LASTING) for p, v in nnx.to_flat_state(rest)}
    lasting = frozenset(k for k, owner in enumerate(slots[1].owners) if kinds[owner])
    structure = None if carry is None else jax.tree.structure(carry)
    paths = [] if carry is None else jax.tree_util.tree_flatten_with_path(carry)[0]
    names = tuple("carry" + jax.tree_util.keystr(p) for p, _ in paths)
    everything = tuple(range(len(slots[1].names)))
    whole = SplitModule(graphdef, wrt, *slots, everything, (), lasting, structure, names, vmap)
    written: list[int] = []

    def look(
        trained: list[jax.Array], before: list[jax.Array], carry: PyTree, x: tuple[PyTree, ...]
    ) -> None:
        after = whole._run(trained, before, carry, x)[2]
        written[:] = [k for k, (a, b) in enumerate(zip(after, before, strict=True)) if a is not b]

    example = carry, x
    if vmap:
        example = jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape[1:], v.dtype), example)
    jax.eval_shape(look, jax.tree.leaves(params), jax.tree.leaves(rest), *example)
    if vmap and written:
        raise CompilationError(
            "With vmap=True the step writes Variables that the samples would share.",
            got=[slots[1].names[k] for k in written],
            expected="a module that keeps its state in the carry",
            do="return the state as carry, model(carry, x) -> (carry, out); or leave vmap out and "
            "write the module for a batch, with the batch as axis 0 of its Variables: the layers "
            "of NNX take leading batch axes",
        )
    if carry is None and not set(written) - lasting:
        raise CompilationError(
            "The model has no hidden state.",
            got="a step model(x) that writes no Variable (statistics do not count)",
            expected="a carry, or state in Variables that the step writes",
            do="for model(carry, x) -> (carry, out) pass carry=...; a feed-forward model needs no "
            "traces: use nnx.grad",
        )
    constants = tuple(k for k in everything if k not in written)
    return dataclasses.replace(whole, written=tuple(written), constants=constants)


def _leaves_like(carry: PyTree, structure: Any) -> list[jax.Array]:
    leaves, found = jax.tree.flatten(carry)
    if found != structure:
        raise UsageError(
            "The carry does not have the compiled structure.",
            got=found,
            expected=structure,
            do="give learner.carry a value like the carry that was compiled",
        )
    return leaves


def _changes(before: Slots, after: nnx.State) -> str:
    made = sorted(set(Slots.of(after).names) ^ set(before.names))
    return (
        f"other Variables: {made}"
        if made
        else "another static attribute, or another structure of a Variable's value"
    )
