"""The functional learner of a brainstate module, which reads and writes the module's states."""

import functools
from collections.abc import Collection, Hashable, Mapping
from types import EllipsisType
from typing import Any

import brainstate
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ...cell import BatchSpec, Values, common_size, said_batch
from ...compat._graph import ETraceGraph
from ...core._compat import is_key
from ...core._domains import arrays
from ...core._errors import CompilationError, UsageError
from ...core.analysis import CellGraph, Exactness
from ...core.engine import Rule
from ...learner import FunctionLearner, shallow_copy
from ...learner._finite import check_results, of_state
from ._cell import ModuleCell, functionalise
from ._environment import Settings
from ._states import Axes, Layout, fit, states_of


class ModuleLearner(FunctionLearner):
    """The learner of a module's cell. Its params and its carry are those of `module`.

    `mapped`: ids of the states with one value per sample, where the module is written for one and
    mapped with `vmap`. `samples`: the size of the batch, None for no batch; by default it is found
    from the states and the inputs. `axes`: for each state by name the axes of its leaves.
    """

    _called = "learner"

    def __init__(
        self,
        model: brainstate.nn.Module,
        rule: Rule,
        x: tuple[PyTree, ...],
        *,
        mapped: Collection[int] = (),
        vmap: bool = False,
        axis_name: Hashable = None,
        samples: int | EllipsisType | None = ...,
        axes: Mapping[str, Axes] | None = None,
        **analysis: Any,
    ):
        x = arrays("example input", x)
        self.model = model
        self._options = {
            "vmap": vmap,
            "axis_name": axis_name,
            "samples": samples,
            "axes": axes,
            **analysis,
        }
        self.settings = Settings(self._traced)
        self.module: ModuleCell = functionalise(model, x, mapped, vmap, axis_name)
        carry = jax.tree.map(jnp.asarray, self.module.carry.read())
        states = self.module.carry.leaf_states()
        if vmap:
            axes_of_carry = Values(carry.names, self.module.axes(self.module.carry))
            batch = said_batch({"batch_axes": (axes_of_carry, 0)}, carry, x)
        elif isinstance(samples, EllipsisType):
            # axis 0 that hidden states and inputs share, where the states have further axes
            pairs = zip(states, carry.leaves, strict=True)
            hidden = [v for s, v in pairs if isinstance(s, brainstate.HiddenState)]
            shared = [*hidden, *jax.tree.leaves(x)]
            batched = all(v.ndim for v in shared) and any(v.ndim > 1 for v in hidden)
            size = common_size(shared) if batched else None
            batch = BatchSpec(size, said=False)
        else:
            said = None if axes is None else _leaf_axes(self.module.carry, x, axes)
            batch = BatchSpec(samples, said)
        super().__init__(
            self.module.cell,
            rule,
            self.module.read_params(),
            carry,
            x,
            batch=batch,
            resets=[isinstance(s, brainstate.ShortTermState) for s in states],
            rows=len(self.module.params.leaf_names),
            **analysis,
        )
        self._states = states_of(model)
        self.zero: PyTree = None  # the traces when they are known to be zero
        _check_learnable(self.graph)

    @functools.cached_property
    def states_graph(self) -> ETraceGraph:
        """The analysed cell with the model's states and their paths."""
        return ETraceGraph.of(self.cell, self.module, self.model)

    @functools.cached_property
    def _with_gradient(self) -> tuple[bool, ...]:
        """Also frozen parameters: they may be asked for by name."""
        return tuple(v.differentiable for v in self.graph.params[: len(self.graph.parameters)])

    @property
    def _resettable(self) -> tuple[int, ...]:
        """Short-term states; each must have a batch axis to refer to."""
        found = super()._resettable
        for k, n in enumerate(self.cell.leaf_numbers):
            leaf = self.graph.carry[k]
            lasting = not self._resets[n] or is_key(leaf.dtype)
            if not lasting and leaf.shape and k not in found:
                raise UsageError(
                    f"The state {self.cell.carry.names[n]} has no batch axis that reset could "
                    "refer to.",
                    got=f"shape {leaf.shape}",
                    expected=f"axis 0 of size {self.graph.batch_size}",
                    do="reset between calls, with reset_state(model=True)",
                )
        return found

    def check_states(self) -> None:
        """The model must still hold the states that were compiled, in the compiled settings."""
        ids = lambda states: {id(s) for s in states.values()}
        if ids(states_of(self.model)) != ids(self._states):
            raise UsageError(
                "The model's states were made anew after it was compiled.",
                got="other states than the compiled ones",
                expected="the same states with new values",
                do="compile again after init_all_states; to reset call "
                "learner.reset_state(model=True)",
            )
        self.settings.check()

    def _traced(self) -> Any:
        """The program of the step in the environment that holds now."""
        example = [v.unflatten(v.leaves) for v in (self.cell.params, self.cell.carry, self.cell.x)]
        return jax.make_jaxpr(lambda *given: self.module.cell(*given))(*example)

    def made_of(self) -> tuple[PyTree, list[brainstate.State], dict[str, Any], dict[str, Any]]:
        """What it is compiled of again: the shapes of the inputs, the states that are mapped, the
        settings of brainstate's environment, and options.
        """
        mapped = [s for s in self._states.values() if id(s) in self.module.mapped]
        return self.cell.x.shapes, mapped, self.settings.compiled, self._options

    def of_copy(self, model: brainstate.nn.Module) -> "ModuleLearner":
        """The learner of a copy of the model: it reads and writes the copy's states, and shares all
        that was compiled.
        """
        states = states_of(model)
        if states.keys() != self._states.keys():
            raise UsageError(
                "The learner's model is not the one that was compiled.",
                got=f"a model with the states {sorted(map(str, states))}",
                expected=f"a copy of it, with {sorted(map(str, self._states))}",
                do="compile a learner of that model",
            )
        copied = shallow_copy(self)
        vars(copied).pop("states_graph", None)
        copied.model, copied._states = model, states
        copied.module = self.module.of_copy(
            model, {id(s): states[path] for path, s in self._states.items()}
        )
        copied.function = copied.module.cell
        return copied

    # The model's states
    # --------------------------------------------------------------------------------------------

    def read(self) -> tuple[Values, Values]:
        """The present parameters and carry."""
        try:
            return self.module.read_params(), self.module.carry.read()
        except CompilationError as error:
            raise UsageError(str(error)) from None

    def write(self, carry: Values, *, hidden: bool = True, lasting: bool = True) -> None:
        """Give the model's states the values of a carry: short-term (hidden) states, and lasting
        ones, which are statistics and keys.
        """
        layout = self.module.carry
        for state, value in zip(layout.states, layout.values(carry.leaves), strict=True):
            if hidden if isinstance(state, brainstate.ShortTermState) else lasting:
                state.value = value

    def forward(self, x: tuple[PyTree, ...]) -> PyTree:
        """One step of the model, nothing learned."""
        params, carry = self.read()
        xs = [jnp.asarray(v)[None] for v in self._inputs(x)]
        before = self.cell.carry.apart(carry)
        flat, outs = self._programs.evolve(self._flat(params), before, xs)
        check_results(of_state(self.cell, self.rule.carrier, before, flat))
        self.write(self.cell.carry.together(flat))
        return self.cell.out.unflatten([v[0] for v in outs])

    def fitted(self, x: tuple[PyTree, ...]) -> PyTree:
        """The inputs of a call in the compiled units, where the settings are the compiled ones."""
        self.settings.check()
        structure = self.cell.x.structure
        if len(x) != (count := len(structure.children())):
            raise UsageError(
                "Invalid number of inputs.",
                got=f"{len(x)} input(s)",
                expected=f"{count}, as compiled",
                do="call the learner with the inputs that the model takes",
            )
        taken = self._like_example(x)
        if jax.tree.structure(taken) == structure:
            return taken
        try:
            return structure.unflatten(fit(x, structure, "input"))
        except CompilationError as error:
            raise UsageError(
                "The input does not have the compiled structure.",
                got=jax.tree.structure(x),
                expected=structure,
                do="pass an input like the example, or compile again with one like this",
            ) from error

    def _inputs(self, x: PyTree, lead: tuple[int, ...] = ()) -> list[jax.Array]:
        what = "input sequence" if lead else "input"
        return self.cell.x.inputs(self.fitted(x), what, lead=lead)

    def _flat(self, params: PyTree) -> list[jax.Array]:
        return self.cell.params.flatten(params, "model")


def _check_learnable(graph: CellGraph) -> None:
    if not graph.groups and not graph.hidden:
        raise CompilationError(
            "The model has no hidden state.",
            got="a step that writes no differentiable state",
            expected="a recurrent or spiking model, with HiddenStates",
            do="differentiate a feed-forward model with brainstate.transform.grad: it needs no "
            "traces",
        )
    reaches_none = Exactness.EXACT, Exactness.UNUSED
    if not any(row.sites or row.exactness not in reaches_none for row in graph.parameters):
        raise CompilationError(
            "No parameter reaches a hidden state.",
            got=f"parameters {[row.path for row in graph.parameters]}",
            expected="a ParamState that the hidden state depends on",
            do="hold trainable weights in brainstate.ParamState; for a readout alone use "
            "brainstate.transform.grad",
        )


def _leaf_axes(carry: Layout, x: tuple[PyTree, ...], axes: Mapping[str, Axes]) -> tuple[Any, ...]:
    """The axes of the leaves of the carry, then of the inputs, where the states' are known.

    A state outside of the model is as the step leaves it, but for random keys.
    """
    found: list[int | EllipsisType | None] = []
    for name, state, tree in zip(carry.names, carry.states, carry.structures, strict=True):
        alone = None if isinstance(state, brainstate.random.RandomState) else ...
        found += axes.get(name, (alone,) * tree.num_leaves)
    return (*found, *(... for _ in jax.tree.leaves(x)))
