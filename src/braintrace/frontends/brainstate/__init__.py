"""The brainstate door: algorithms that wrap a `brainstate.nn.Module`."""

from . import _precision as _precision  # isort: skip  (first: it guards the precision)
from ._algorithm import EligibilityTrace as EligibilityTrace
from ._algorithm import ETraceAlgorithm as ETraceAlgorithm
from ._algorithm import ETraceVjpAlgorithm as ETraceVjpAlgorithm
from ._data import MultiStepData as MultiStepData
from ._data import SingleStepData as SingleStepData
from ._gradients import GradExpon as GradExpon
from ._graph import ETraceGraph as ETraceGraph
from ._graph import HiddenGroup as HiddenGroup
from ._graph import HiddenParamOpRelation as HiddenParamOpRelation
from ._graph import ModuleInfo as ModuleInfo
from ._initial import compile_module as compile_module
from ._inspect import compile_etrace_graph as compile_etrace_graph
from ._inspect import find_hidden_groups_from_module as find_hidden_groups_from_module
from ._inspect import (
    find_hidden_param_op_relations_from_module as find_hidden_param_op_relations_from_module,
)
from ._sequences import SequenceDriverMixin as SequenceDriverMixin
from ._vmap import ETraceVmap as ETraceVmap
