"""A model analysed without a learner."""

from typing import Any

import brainstate
from jaxtyping import PyTree

from ...compat._graph import ETraceGraph, HiddenGroup, HiddenParamOpRelation, ModuleInfo
from ...core._domains import flag, known
from ...core._errors import UsageError
from ...core.engine import Rule
from ...core.jaxpr import ControlFlowPolicy
from ...core.traces import PerParameter, WithinLayer
from ...reports import Path
from ._learner import ModuleLearner

_OPTIONS = "include_hidden_perturb", "include_recurrent_mixing", "control_flow"


def compile_etrace_graph(
    model: brainstate.nn.Module,
    *model_args: PyTree,
    include_hidden_perturb: bool = True,
    include_recurrent_mixing: bool = False,
    control_flow: ControlFlowPolicy | None = None,
) -> ETraceGraph:
    """Analyse a model whose states are initialised, without making a learner.

    Args:
        model: a brainstate module that does one step.
        *model_args: the inputs of one step.
        include_hidden_perturb: of no effect: no perturbation of the states is needed.
        include_recurrent_mixing: whether the recurrence within a layer counts as kept, as for
            `OSTLRecurrent`; else as for `D_RTRL`.
        control_flow: what becomes of loops and branches in the step.

    Raises:
        CompilationError: for a model that cannot be analysed.

    >>> import brainstate, braintrace, jax.numpy as jnp
    >>> cell = brainstate.nn.GRUCell(3, 4)
    >>> _ = brainstate.nn.init_all_states(cell)
    >>> graph = braintrace.compile_etrace_graph(cell, jnp.zeros(3))
    >>> [group.hidden_paths for group in graph.hidden_groups]
    [(('h',),)]
    """
    within = flag("include_recurrent_mixing", include_recurrent_mixing)
    flag("include_hidden_perturb", include_hidden_perturb)
    if not isinstance(model, brainstate.nn.Module):
        got, expected = type(model).__name__, "a brainstate.nn.Module whose states are initialised"
        raise UsageError("Not a brainstate module.", got=got, expected=expected)
    rule = Rule("OSTL with recurrence", WithinLayer()) if within else Rule("D-RTRL", PerParameter())
    return ModuleLearner(model, rule, model_args, control_flow=control_flow).states_graph


def extract_module_info(model: brainstate.nn.Module, *model_args: PyTree) -> ModuleInfo:
    """The states of a model and their paths; arguments as for `compile_etrace_graph`.

    >>> import brainstate, braintrace, jax.numpy as jnp
    >>> cell = brainstate.nn.GRUCell(3, 4)
    >>> _ = brainstate.nn.init_all_states(cell)
    >>> list(braintrace.extract_module_info(cell, jnp.zeros(3)).hidden_path_to_state)
    [('h',)]
    """
    return compile_etrace_graph(model, *model_args).module_info


def find_hidden_groups_from_module(
    model: brainstate.nn.Module, *model_args: PyTree, **options: Any
) -> tuple[tuple[HiddenGroup, ...], dict[Path, HiddenGroup]]:
    """The state groups of a model, and for each state path its group; arguments as for
    `compile_etrace_graph`.

    >>> import brainstate, braintrace, jax.numpy as jnp
    >>> cell = brainstate.nn.GRUCell(3, 4)
    >>> _ = brainstate.nn.init_all_states(cell)
    >>> groups, of_path = braintrace.find_hidden_groups_from_module(cell, jnp.zeros(3))
    >>> of_path["h",].varshape
    (4,)
    """
    known("find_hidden_groups_from_module", options, _OPTIONS)
    graph = compile_etrace_graph(model, *model_args, **options)
    return graph.hidden_groups, graph.hid_path_to_group


def find_hidden_param_op_relations_from_module(
    model: brainstate.nn.Module, *model_args: PyTree, **options: Any
) -> tuple[HiddenParamOpRelation, ...]:
    """The sites of a model at which parameters get a trace; arguments as for
    `compile_etrace_graph`.

    >>> import brainstate, braintrace, jax.numpy as jnp
    >>> cell = brainstate.nn.GRUCell(3, 4)
    >>> _ = brainstate.nn.init_all_states(cell)
    >>> relations = braintrace.find_hidden_param_op_relations_from_module(cell, jnp.zeros(3))
    >>> sorted({relation.operation for relation in relations})
    ['add', 'dot_general']
    """
    known("find_hidden_param_op_relations_from_module", options, _OPTIONS)
    return compile_etrace_graph(model, *model_args, **options).hidden_param_op_relations
