"""The analysed model in terms of its states: which states are coupled, and which parameters act on
them.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp

from ..cell import Cell
from ..core._errors import UsageError
from ..core.analysis import CellGraph
from ..core.jaxpr import Unfolding
from ..reports import CompilationRecord, DiagnosticKind, Path, records
from ..reports._named import NamedGroup, NamedRelation, groups_of, relations_of
from ._precision import brainstate


@dataclasses.dataclass(frozen=True, eq=False)
class HiddenGroup(NamedGroup):
    """States that are coupled neuron by neuron; eligibility traces follow all of them together.

    Attributes:
        index: number of the group.
        hidden_paths: paths of its states, as in `model.states()`.
        hidden_states: the states.
        hidden_invars, hidden_outvars: their old and their new values, as variables of the analysed
            step, each with `shape` and `dtype`; of a complex state its real and its imaginary part.
        num_state: how many state variables a neuron has in it.
        varshape: shape of one of them, batch included.

    >>> import brainstate, braintrace, jax.numpy as jnp
    >>> model = brainstate.nn.Sequential(brainstate.nn.GRUCell(2, 3), brainstate.nn.Linear(3, 1))
    >>> [group] = braintrace.compile(model, "d_rtrl", jnp.zeros(2)).graph.hidden_groups
    >>> group.hidden_paths, group.num_state, group.varshape
    ((('layers', 0, 'h'),), 1, (3,))
    """

    hidden_states: tuple[brainstate.State, ...]
    hidden_invars: tuple[Any, ...]
    hidden_outvars: tuple[Any, ...]

    def concat_hidden(self, splitted_hid_vals: Sequence[jax.Array]) -> jax.Array:
        """The values of the states as one array, with `num_state` entries on its last axis."""
        if len(splitted_hid_vals) != len(self.hidden_states):
            raise UsageError(
                "The states of a group have one value each.",
                got=f"{len(splitted_hid_vals)} value(s)",
                expected=f"{len(self.hidden_states)}, of {list(self.hidden_paths)}",
            )
        pairs = zip(splitted_hid_vals, self.hidden_states, strict=True)
        whole = lambda v, state: v if _is_group(state) else jnp.expand_dims(v, -1)
        return jnp.concatenate([whole(v, state) for v, state in pairs], axis=-1)

    def split_hidden(self, concat_hid_vals: jax.Array) -> list[jax.Array]:
        """The values of the states, from an array of `concat_hidden`."""
        if jnp.shape(concat_hid_vals)[-1:] != (self.num_state,):
            raise UsageError(
                "The array does not hold the states of the group.",
                got=f"shape {jnp.shape(concat_hid_vals)}",
                expected=f"{self.num_state} on the last axis",
                do="pass what concat_hidden returned",
            )
        counts = [getattr(state, "num_state", 1) for state in self.hidden_states]
        ends = [sum(counts[:k]) for k in range(1, len(counts))]
        pairs = zip(jnp.split(concat_hid_vals, ends, axis=-1), self.hidden_states, strict=True)
        return [v if _is_group(state) else v[..., 0] for v, state in pairs]

    @property
    def num_state(self) -> int:
        return sum(getattr(s, "num_state", 1) for s in self.hidden_states)

    @property
    def varshape(self) -> tuple[int, ...]:
        state = self.hidden_states[0]
        return tuple(getattr(state, "varshape", None) or state.value.shape)

    def dict(self) -> dict[str, Any]:
        """The fields by name."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}


def _is_group(state: brainstate.State) -> bool:
    """Whether a state holds several variables, on its last axis."""
    return isinstance(state, brainstate.HiddenGroupState)


@dataclasses.dataclass(frozen=True, eq=False)
class HiddenParamOpRelation(NamedRelation):
    """A site: an operation in which parameters meet data on their way to a state.

    There is one for each operation, so a weight and its bias have one each, and one for each use of
    a shared weight.

    Attributes:
        primitive: the JAX primitive, an ordinary one (`dot_general`, `conv_general_dilated`, `add`,
            ...).
        operation: its name.
        source: the user's line.
        trainable_paths: for each parameter, by the name that it has in its state, the path of its
            `ParamState`.
        trainable_param_states: the same with the states themselves.
        hidden_groups: the groups that it feeds.
        parameters: names of the parameters, as in the report.
        site: the same in the analysis.
        connected_hidden_paths: paths of the states that it acts on.
        x_var, y_var: the data that the parameters meet (None for parameters alone), and the result:
            variables of the analysed step, each with `shape` and `dtype`.
        eqn_params: the primitive's own parameters.

    >>> import brainstate, braintrace, jax.numpy as jnp
    >>> model = brainstate.nn.Sequential(brainstate.nn.GRUCell(2, 3), brainstate.nn.Linear(3, 1))
    >>> relations = braintrace.compile(
    ...     model, "d_rtrl", jnp.zeros(2)
    ... ).graph.hidden_param_op_relations
    >>> sorted({(relation.operation, *relation.path) for relation in relations})
    [('add', 'layers', 0, 'Wh', 'weight'), ('add', 'layers', 0, 'Wrz', 'weight'),
     ('dot_general', 'layers', 0, 'Wh', 'weight'), ('dot_general', 'layers', 0, 'Wrz', 'weight')]
    """

    trainable_param_states: dict[str, brainstate.State]
    hidden_groups: tuple[HiddenGroup, ...]

    @property
    def path(self) -> Path:
        """Path of the first parameter's state."""
        return next(iter(self.trainable_paths.values()))

    @property
    def x_var(self) -> Any:
        return next(iter(self.site.data), None)

    @property
    def y_var(self) -> Any:
        return self.site.y

    @property
    def eqn_params(self) -> Mapping[str, Any]:
        return self.site.equation.params

    def dict(self) -> dict[str, Any]:
        """The fields by name."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ETraceGraph(CellGraph):
    """What the compiler knows about a brainstate model: `learner.graph`, or
    `compile_etrace_graph(model, x)`.

    The attributes of the analysis (`groups`, `sites`, `parameters`, ...) and the same in terms of
    the model's states.

    Attributes:
        module_info: the model's states by path, and their paths by id.
        unfoldings: what became of loops and branches of the step.
        hidden_perturb: None. Gradients come from two evaluations of the step; nothing is added to
            the states.

    >>> import brainstate, braintrace, jax.numpy as jnp
    >>> model = brainstate.nn.Sequential(brainstate.nn.GRUCell(2, 3), brainstate.nn.Linear(3, 1))
    >>> graph = braintrace.compile(model, "d_rtrl", jnp.zeros(2)).graph
    >>> str(graph.exactness("layers[1].weight.weight"))
    'exact'
    >>> [
    ...     record.level.value
    ...     for record in graph.explain(
    ...         kind=braintrace.DiagnosticKind.RELATION_EXCLUDED_NON_TEMPORAL
    ...     )
    ... ]
    ['info', 'info']
    """

    cell: Cell
    functional: Any  # the model as a cell, with layouts of its states
    module_info: "ModuleInfo"
    unfoldings: tuple[Unfolding, ...] = ()
    hidden_perturb: None = None

    @classmethod
    def of(cls, cell: Cell, functional: Any, model: brainstate.nn.Module) -> "ETraceGraph":
        """The graph of a compiled cell of a model."""
        own = cast(dict[Path, brainstate.State], model.states())
        paths = {id(s): path for path, s in own.items()}
        for layout in (functional.params, functional.constants, functional.carry):
            for state, name in zip(layout.states, layout.names, strict=True):
                paths.setdefault(id(state), (name,))
        fields = {f.name: getattr(cell.graph, f.name) for f in dataclasses.fields(CellGraph)}
        fields |= {"cell": cell, "functional": functional, "unfoldings": cell.unfoldings}
        return cls(**fields, module_info=ModuleInfo(own, paths))

    @functools.cached_property
    def weight_paths(self) -> tuple[Path, ...]:
        """For each parameter of the report, the path of its `ParamState`."""
        paths = self.module_info.state_id_to_path
        return tuple(paths[id(s)] for s in self.functional.params.leaf_states())

    @functools.cached_property
    def hidden_groups(self) -> tuple[HiddenGroup, ...]:
        """The state groups."""
        states, paths = self.functional.carry.leaf_states(), self.module_info.state_id_to_path

        def make(number: int, leaves: list[int]) -> HiddenGroup:
            mine = tuple(dict.fromkeys(states[k] for k in leaves))
            own = self.groups[number].leaves
            old, new = (tuple(v[k] for k in own) for v in (self.carry, self.new_carry))
            return HiddenGroup(number, tuple(paths[id(s)] for s in mine), mine, old, new)

        return groups_of(self.cell, make)

    @property
    def dynamic_states(self) -> list[Path]:
        """Paths of short-term states that are in no group: delays, counters, whatever no derivative
        reaches.
        """
        states, paths = self.functional.carry.states, self.module_info.state_id_to_path
        mine = [paths[id(s)] for s in states if isinstance(s, brainstate.ShortTermState)]
        return [p for p in mine if p not in self.hid_path_to_group]

    @functools.cached_property
    def hid_path_to_group(self) -> dict[Path, HiddenGroup]:
        """For each hidden state, its group."""
        return {path: g for g in self.hidden_groups for path in g.hidden_paths}

    @functools.cached_property
    def hidden_param_op_relations(self) -> tuple[HiddenParamOpRelation, ...]:
        """The sites: where parameters act on the states' groups."""
        states = self.functional.params.leaf_states()

        def owned(numbers: list[int]) -> tuple[dict[str, Path], dict[str, brainstate.State]]:
            """By the name in the state's value, else by the state's."""
            keys: dict[str, int] = {}
            for k in numbers:
                name = self.parameters[k].path.rpartition(".")[2] or self.parameters[k].path
                keys[name if name not in keys else self.parameters[k].path] = k
            paths = {key: self.weight_paths[k] for key, k in keys.items()}
            return paths, {key: states[k] for key, k in keys.items()}

        return relations_of(self, HiddenParamOpRelation, owned)

    @functools.cached_property
    def diagnostics(self) -> tuple[CompilationRecord, ...]:
        """The compiler's decisions."""
        return records(self)

    def explain(
        self,
        *,
        weight_path: Path | None = None,
        hidden_path: Path | None = None,
        kind: DiagnosticKind | None = None,
    ) -> tuple[CompilationRecord, ...]:
        """The records about a parameter, a state or a kind of decision."""
        return tuple(
            r
            for r in self.diagnostics
            if (weight_path is None or r.weight_path == weight_path)
            and (hidden_path is None or hidden_path in r.hidden_paths)
            and (kind is None or r.kind is kind)
        )

    def dict(self) -> dict[str, Any]:
        """The parts by name."""
        names = ("module_info", "hidden_groups", "hid_path_to_group", "hidden_param_op_relations")
        return {n: getattr(self, n) for n in (*names, "hidden_perturb", "diagnostics")}


@dataclasses.dataclass(frozen=True, eq=False)
class ModuleInfo:
    """The states of a model.

    Attributes:
        retrieved_model_states: states by path.
        state_id_to_path: paths by `id(state)`, also of states that the step uses and that are no
            part of the model.

    >>> import brainstate, braintrace, jax.numpy as jnp
    >>> model = brainstate.nn.Sequential(brainstate.nn.GRUCell(2, 3), brainstate.nn.Linear(3, 1))
    >>> info = braintrace.compile(model, "d_rtrl", jnp.zeros(2)).graph.module_info
    >>> list(info.hidden_path_to_state)
    [('layers', 0, 'h')]
    """

    retrieved_model_states: Mapping[Path, brainstate.State]
    state_id_to_path: Mapping[int, Path]

    @property
    def hidden_path_to_state(self) -> dict[Path, brainstate.State]:
        """The hidden states by path."""
        return self._of(brainstate.HiddenState)

    @property
    def weight_path_to_state(self) -> dict[Path, brainstate.State]:
        """The `ParamState`s by path."""
        return self._of(brainstate.ParamState)

    def _of(self, kind: type[brainstate.State]) -> dict[Path, brainstate.State]:
        return {p: s for p, s in self.retrieved_model_states.items() if isinstance(s, kind)}
