"""The front end for brainstate modules: learners that wrap a `brainstate.nn.Module`."""

from ...compat import _precision as _precision  # isort: skip  (first: it guards the precision)
from ...compat._filters import KappaFilter as KappaFilter
from ...compat._filters import PresynapticTrace as PresynapticTrace
from ...compat._grad_expon import GradExpon as GradExpon
from ...compat._graph import ETraceGraph as ETraceGraph
from ...compat._graph import HiddenGroup as HiddenGroup
from ...compat._graph import HiddenParamOpRelation as HiddenParamOpRelation
from ...compat._graph import ModuleInfo as ModuleInfo
from ._algorithm import EligibilityTrace as EligibilityTrace
from ._algorithm import ETraceAlgorithm as ETraceAlgorithm
from ._algorithms import D_RTRL as D_RTRL
from ._algorithms import ES_D_RTRL as ES_D_RTRL
from ._algorithms import OSTTP as OSTTP
from ._algorithms import OTPE as OTPE
from ._algorithms import OTTT as OTTT
from ._algorithms import RFLO as RFLO
from ._algorithms import EProp as EProp
from ._algorithms import IODimVjpAlgorithm as IODimVjpAlgorithm
from ._algorithms import OSTLFeedforward as OSTLFeedforward
from ._algorithms import OSTLRecurrent as OSTLRecurrent
from ._algorithms import ParamDimVjpAlgorithm as ParamDimVjpAlgorithm
from ._algorithms import pp_prop as pp_prop
from ._initial import compile_model as compile_model
from ._inspect import compile_etrace_graph as compile_etrace_graph
from ._inspect import find_hidden_groups_from_module as find_hidden_groups_from_module
from ._inspect import (
    find_hidden_param_op_relations_from_module as find_hidden_param_op_relations_from_module,
)
from ._made import ETraceVjpAlgorithm as ETraceVjpAlgorithm
from ._made import class_of as class_of
from ._sequences import SequenceDriverMixin as SequenceDriverMixin
from ._vmap import ETraceVmap as ETraceVmap
