"""From an NNX module to a pure cell `(params, carry, x) -> (carry, out)`, by `split` and
`merge`.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import PyTree

from ...cell import (
    IN_ORDER,
    BatchSpec,
    MisfitError,
    Outside,
    Take,
    UserStep,
    Values,
    common_size,
    is_swapped,
    said_batch,
    shown,
    split,
    spread_axes,
    users_step,
)
from ...core._errors import CompilationError, UsageError

stop = jax.lax.stop_gradient

_CALLED = "write it for model(carry, x) -> (carry, out), with carry= given to compile, or model(x)"
# statistics and random streams: no hidden state, and never reset
_LASTING = nnx.BatchStat, nnx.RngState

PathParts = tuple[PyTree, ...]


@dataclasses.dataclass(frozen=True)
class Slots:
    """Places of the arrays of an `nnx.State`: its tree, and for each array its name and the
    Variable that holds it.
    """

    structure: Any
    names: tuple[str, ...]
    owners: tuple[PathParts, ...]  # the Variables' paths
    avals: tuple[jax.ShapeDtypeStruct, ...]

    @classmethod
    def of(cls, state: nnx.State) -> "Slots":
        flat = [
            (path, ".".join(map(str, path)) + jax.tree_util.keystr(keys[1:]), leaf)
            for path, variable in nnx.to_flat_state(state)
            for keys, leaf in jax.tree_util.tree_flatten_with_path(variable)[0]
        ]
        owners, names, leaves = zip(*flat, strict=True) if flat else ((), (), ())
        avals = tuple(jax.ShapeDtypeStruct(v.shape, v.dtype) for v in leaves)
        return cls(jax.tree.structure(state), names, owners, avals)

    def taken(self, leaves: Iterator[jax.Array]) -> nnx.State:
        """The state of the next arrays of `leaves`."""
        return self.structure.unflatten([next(leaves) for _ in self.names])


@dataclasses.dataclass(frozen=True, eq=False)
class SplitModule:
    """A module as a cell. Its params are the trained arrays, then the constants; its carry is the
    user's, then the Variables that the step writes: hidden state, then what is lasting.

    `filters` select the Variables of `trained`, `hidden`, `lasting` and `constants`.
    """

    graphdef: nnx.GraphDef
    filters: tuple[Any, ...]
    vmap: bool
    carry_structure: Any  # that of None: the module keeps its state itself
    carry_names: tuple[str, ...]
    trained: Slots
    hidden: Slots
    lasting: Slots
    constants: Slots

    @classmethod
    def of(
        cls, model: nnx.Module, filters: tuple[Any, ...], carry: PyTree, vmap: bool
    ) -> "SplitModule":
        graphdef, *states = nnx.split(model, *filters)
        paths, structure = jax.tree_util.tree_flatten_with_path(carry)
        names = tuple("carry" + jax.tree_util.keystr(p) for p, _ in paths)
        return cls(graphdef, filters, vmap, structure, names, *map(Slots.of, states))

    @property
    def parts(self) -> tuple[Slots, ...]:
        return self.trained, self.hidden, self.lasting, self.constants

    # The model's arrays
    # --------------------------------------------------------------------------------------------

    def read(self, model: nnx.Module, carry: PyTree) -> tuple[Values, Values]:
        """The params and the carry of the cell, from the live model, which must be as it was
        compiled.
        """
        graphdef, *states = nnx.split(model, *self.filters)
        if graphdef != self.graphdef:
            raise UsageError(
                "The model is not the one that was compiled: a static attribute, or a part of it, "
                "has changed.",
                got="another graph definition",
                expected="the compiled one; train() and eval() change it, for instance",
                do="for evaluation call the model itself, or etrace_evolve of a learner compiled "
                "in that mode; else compile again",
            )
        own, found = jax.tree.flatten(carry)
        if found != self.carry_structure:
            raise UsageError(
                "The carry does not have the compiled structure.",
                got=found,
                expected=self.carry_structure,
                do="give learner.carry a value like the carry that was compiled",
            )
        trained, hidden, lasting, constants = map(jax.tree.leaves, states)
        param_names = *self.trained.names, *self.constants.names
        names = *self.carry_names, *self.hidden.names, *self.lasting.names
        return Values(param_names, trained + constants), Values(names, own + hidden + lasting)

    def user_carry(self, values: Values) -> PyTree:
        return self.carry_structure.unflatten(values.leaves[: len(self.carry_names)])

    def write(
        self, model: nnx.Module, values: Values, *, lasting: bool = True, hidden: bool = True
    ) -> None:
        """Give the model's own Variables the values of a carry: statistics and random streams, and
        hidden state.
        """
        leaves = iter(values.leaves[len(self.carry_names) :])
        for part, chosen in ((self.hidden, hidden), (self.lasting, lasting)):
            state = part.taken(leaves)
            if chosen and part.names:
                nnx.update(model, state)

    def put_params(self, model: nnx.Module, values: Values) -> None:
        """Give the model's own Variables the values of the params."""
        leaves = iter(values.leaves)
        for part in (self.trained, self.constants):
            nnx.update(model, part.taken(leaves))

    def gradients(self, leaves: Sequence[jax.Array]) -> nnx.State:
        """Gradients of the trained arrays as the state that they are of, without Variables that
        have none.
        """
        owners = {o for o, g in zip(self.trained.owners, leaves, strict=True) if g is not None}
        zeros = [
            jnp.zeros(v.shape, v.dtype) if g is None else g
            for g, v in zip(leaves, self.trained.avals, strict=True)
        ]
        state = self.trained.structure.unflatten(zeros)
        return nnx.filter_state(state, lambda path, _: path in owners)

    @property
    def paths(self) -> tuple[tuple[PathParts, ...], tuple[PathParts, ...]]:
        """The paths of the trained Variables, and of what is carried; those of NNX's flat states
        where it is a Variable.
        """
        own = [(name,) for name in self.carry_names]
        return self.trained.owners, (*own, *self.hidden.owners, *self.lasting.owners)

    # The cell
    # ----------------------------------------------------------------------------------------------

    def cell(self, params: Values, carry: Values, x: tuple[PyTree, ...]) -> tuple[Values, PyTree]:
        """The step as a pure function."""

        def once(own: PyTree, x: tuple[PyTree, ...]) -> PyTree:
            new, out, after = self._run(self._merged(params, carry), own, x)
            return new, out, [*after[1], *map(stop, after[2])]

        step = jax.vmap(once) if self.vmap else once
        new, out, written = step(self.user_carry(carry), x)
        return Values(carry.names, [*jax.tree.leaves(new), *written]), out

    def _merged(self, params: Values, carry: Values) -> Any:
        """The module with these arrays. No gradient passes through constants, statistics and random
        streams.
        """
        count, own = len(self.trained.names), len(self.carry_names)
        written = iter(carry.leaves[own:])
        return nnx.merge(
            self.graphdef,
            self.trained.taken(iter(params.leaves[:count])),
            self.hidden.taken(written),
            self.lasting.taken(map(stop, written)),
            self.constants.taken(map(stop, params.leaves[count:])),
        )

    def _arrays(self, model: nnx.Module) -> list[list[jax.Array]]:
        """Those of each part of a module that the step has."""
        graphdef, *states = nnx.split(model, *self.filters)
        structures = [part.structure for part in self.parts]
        if graphdef != self.graphdef or list(map(jax.tree.structure, states)) != structures:
            names = {n for part in self.parts for n in part.names}
            made = sorted({n for state in states for n in Slots.of(state).names} ^ names)
            raise CompilationError(
                "The step changes what the model is made of.",
                got=f"other Variables: {made}"
                if made
                else "another static attribute, or another structure of a Variable's value",
                expected="a step that only gives Variables new values of the same structure",
                do="make Variables in __init__; leave out sow and perturb; set modes before "
                "compiling",
            )
        return list(map(jax.tree.leaves, states))

    def user_step(self, step_fn: Callable[..., PyTree], has_aux: bool) -> UserStep:
        """`step_fn(model, call, *slices)` as a step of this cell; the model is as `call` leaves
        it.
        """

        def step(
            params: Values, carry: Values, take: Take, slices: PyTree, outside: Outside
        ) -> PyTree:
            model = self._merged(params, carry)
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

    def _run(
        self, model: Any, carry: PyTree, x: tuple[PyTree, ...]
    ) -> tuple[PyTree, PyTree, list[list[jax.Array]]]:
        """(new carry, out, the arrays afterwards) of one call of the module."""
        trained = self._arrays(model)[0]
        given = (*x,) if carry is None else (carry, *x)
        with users_step({"the arguments": given}, _CALLED):
            got = model(*given)
        new, out = (None, got) if carry is None else self._pair(carry, got)
        after = self._arrays(model)
        pairs = zip(self.trained.names, after[0], trained, strict=True)
        if written := [n for n, a, b in pairs if a is not b]:
            raise CompilationError(
                "The step writes a parameter.",
                got=written,
                expected="parameters that only an optimizer writes",
                do="hold what the step writes in a Variable that wrt does not select",
            )
        return new, out, after

    def _pair(self, carry: PyTree, got: PyTree) -> tuple[PyTree, PyTree]:
        if not isinstance(got, (tuple, list)) or len(got) != 2:
            raise CompilationError(
                "The module does not return a pair.",
                got=f"{len(got)} values" if isinstance(got, (tuple, list)) else shown(got),
                expected="(carry, out)",
                do="return (carry, out) from model(carry, x); leave carry out of compile for a "
                "module called as model(x)",
            )
        if jax.tree.structure(got[0]) != self.carry_structure or is_swapped(carry, got):
            raise MisfitError(
                "The module returns a carry of another structure.",
                got=shown(got[0]),
                expected=shown(carry),
                do=IN_ORDER
                if is_swapped(carry, got)
                else "return the new carry first, as a tree like the one that came in",
            )
        return got[0], got[1]

    # The batch
    # ----------------------------------------------------------------------------------------------

    @property
    def resets(self) -> list[bool]:
        """For each leaf of the carry, whether a reset sets it to its first value."""
        hidden = len(self.carry_names) + len(self.hidden.names)
        return [True] * hidden + [False] * len(self.lasting.names)

    def batch(
        self, said: Mapping[str, Any], carry: PyTree, start: Values, x: PyTree
    ) -> BatchSpec | None:
        """What is said about the batch, for the carry `start` of the cell; else the size of axis 0
        that its hidden states share.
        """
        x = x[0] if len(x) == 1 else x
        hidden = start.leaves[: len(self.carry_names) + len(self.hidden.names)]
        if (axes := said.get("batch_axes")) is not None and not self.vmap:
            is_pair = isinstance(axes, (tuple, list)) and len(axes) == 2
            pair = tuple(axes) if is_pair else (axes,) * 2
            own = spread_axes("carry", pair[0], carry)
            one = 0 if isinstance(pair[0], (tuple, list, dict)) else pair[0]
            rest = [one if jnp.ndim(v) else None for v in hidden[len(own) :]]
            lasting = [None] * len(self.lasting.names)
            said = {**said, "batch_axes": (Values(start.names, [*own, *rest, *lasting]), pair[1])}
        size = common_size(hidden)
        return said_batch(said, start, x) or (None if size is None else BatchSpec(size, said=False))


def functionalise(
    model: nnx.Module, wrt: Any, carry: PyTree, x: tuple[PyTree, ...], vmap: bool
) -> SplitModule:
    """Trace the module once to see which of its arrays a step writes. `carry` is None for
    `model(x)`.
    """
    try:
        nnx.filterlib.to_predicate(wrt)
    except (TypeError, ValueError) as error:
        expected = "an NNX filter, such as nnx.Param"
        raise UsageError("Invalid wrt.", got=repr(wrt), expected=expected) from error
    whole = SplitModule.of(model, (wrt, nnx.Nothing(), nnx.Nothing(), ...), carry, vmap)
    if not whole.trained.names:
        raise UsageError(
            "The model has no parameters to learn.",
            got=f"wrt={wrt}, which selects nothing",
            expected="an NNX filter",
            do="pass wrt=nnx.Param, or the filter that the optimizer is given",
        )
    written: dict[str, PathParts] = {}

    def look(params: Values, start: Values, carry: PyTree, x: tuple[PyTree, ...]) -> None:
        live = whole._merged(params, start)
        before = whole._arrays(live)[-1]
        after = whole._run(live, carry, x)[-1][-1]
        rest = zip(whole.constants.names, whole.constants.owners, after, before, strict=True)
        written.update({name: owner for name, owner, a, b in rest if a is not b})

    example = carry, x
    if vmap:
        example = jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape[1:], v.dtype), example)
    jax.eval_shape(look, *whole.read(model, carry), *example)
    if vmap and written:
        raise CompilationError(
            "With vmap=True the step writes Variables that the samples would share.",
            got=list(written),
            expected="a module that keeps its state in the carry",
            do="return the state as carry, model(carry, x) -> (carry, out); or leave vmap out and "
            "write the module for a batch, with the batch as axis 0 of its Variables: the layers "
            "of NNX take leading batch axes",
        )
    kinds = {p: isinstance(v, _LASTING) for p, v in nnx.to_flat_state(nnx.state(model))}
    hidden = {p for p in written.values() if not kinds[p]}
    if carry is None and not hidden:
        raise CompilationError(
            "The model has no hidden state.",
            got="a step model(x) that writes no Variable (statistics do not count)",
            expected="a carry, or state in Variables that the step writes",
            do="for model(carry, x) -> (carry, out) pass carry=...; a feed-forward model needs no "
            "traces: use nnx.grad",
        )
    lasting = {*written.values()} - hidden
    selected = [lambda path, _, paths=paths: path in paths for paths in (hidden, lasting)]
    return SplitModule.of(model, (wrt, *selected, ...), carry, vmap)
