"""Online learning of recurrent and spiking networks with eligibility traces, on JAX."""

import importlib as _importlib
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from . import checks as checks
from . import nn as nn
from . import tasks as tasks
from ._algorithms import D_RTRL as D_RTRL
from ._algorithms import ES_D_RTRL as ES_D_RTRL
from ._algorithms import OSTTP as OSTTP
from ._algorithms import OTPE as OTPE
from ._algorithms import OTTT as OTTT
from ._algorithms import RFLO as RFLO
from ._algorithms import EProp as EProp
from ._algorithms import FixedRandomFeedback as FixedRandomFeedback
from ._algorithms import IODimVjpAlgorithm as IODimVjpAlgorithm
from ._algorithms import KappaFilter as KappaFilter
from ._algorithms import OSTLFeedforward as OSTLFeedforward
from ._algorithms import OSTLRecurrent as OSTLRecurrent
from ._algorithms import ParamDimVjpAlgorithm as ParamDimVjpAlgorithm
from ._algorithms import PresynapticTrace as PresynapticTrace
from ._algorithms import pp_prop as pp_prop
from ._compile import compile as compile
from ._errors import BrainTraceError as BrainTraceError
from ._errors import CompilationError as CompilationError
from ._errors import NotSupportedError as NotSupportedError
from ._errors import UsageError as UsageError
from ._frontends._brainstate import EligibilityTrace as EligibilityTrace
from ._frontends._brainstate import ETraceAlgorithm as ETraceAlgorithm
from ._frontends._brainstate import ETraceGraph as ETraceGraph
from ._frontends._brainstate import ETraceVjpAlgorithm as ETraceVjpAlgorithm
from ._frontends._brainstate import ETraceVmap as ETraceVmap
from ._frontends._brainstate import GradExpon as GradExpon
from ._frontends._brainstate import HiddenGroup as HiddenGroup
from ._frontends._brainstate import HiddenParamOpRelation as HiddenParamOpRelation
from ._frontends._brainstate import ModuleInfo as ModuleInfo
from ._frontends._brainstate import MultiStepData as MultiStepData
from ._frontends._brainstate import SequenceDriverMixin as SequenceDriverMixin
from ._frontends._brainstate import SingleStepData as SingleStepData
from ._frontends._brainstate import compile_etrace_graph as compile_etrace_graph
from ._frontends._brainstate import find_hidden_groups_from_module as find_hidden_groups_from_module
from ._frontends._brainstate import find_hidden_param_op_relations_from_module as find_hidden_param_op_relations_from_module
from ._functional import FunctionLearner as FunctionLearner
from ._functional import Info as Info
from ._functional import State as State
from ._jaxpr import ControlFlowPolicy as ControlFlowPolicy
from ._jaxpr import stop_trace as stop_trace
from ._learner import MemoryPlan as MemoryPlan
from ._learner import ParameterMemory as ParameterMemory
from ._operators import conv as conv
from ._operators import einsum as einsum
from ._operators import element_wise as element_wise
from ._operators import embedding as embedding
from ._operators import grouped_matmul as grouped_matmul
from ._operators import lora_matmul as lora_matmul
from ._operators import matmul as matmul
from ._operators import sparse_matmul as sparse_matmul
from ._parts import ETraceConfig as ETraceConfig
from ._reports import CompilationRecord as CompilationRecord
from ._reports import CompilationReport as CompilationReport
from ._reports import DiagnosticKind as DiagnosticKind
from ._reports import DiagnosticLevel as DiagnosticLevel
from ._sites import SiteRule as SiteRule
from ._sites import register_site_rule as register_site_rule

if _TYPE_CHECKING:
    from ._frontends._equinox import EquinoxLearner as EquinoxLearner
    from ._frontends._nnx import NNXLearner as NNXLearner
    from ._legacy import ConvOp as ConvOp
    from ._legacy import ElemWiseOp as ElemWiseOp
    from ._legacy import ElemWiseParam as ElemWiseParam
    from ._legacy import ETraceOp as ETraceOp
    from ._legacy import ETraceParam as ETraceParam
    from ._legacy import FakeElemWiseParam as FakeElemWiseParam
    from ._legacy import FakeETraceParam as FakeETraceParam
    from ._legacy import LoraOp as LoraOp
    from ._legacy import MatMulOp as MatMulOp
    from ._legacy import NonTempParam as NonTempParam
    from ._legacy import SpMatMulOp as SpMatMulOp

_OPTIONAL = {  # name: (door, its framework, the extra that brings it)
    "EquinoxLearner": ("_equinox", "equinox", "equinox"),
    "NNXLearner": ("_nnx", "flax", "nnx"),
}

__version__ = "0.1.0"


def __getattr__(name: str) -> _Any:
    """Names of doors whose framework is imported only when they are used, and names of 0.1, which warn."""
    from ._legacy import INSTEAD, legacy

    if name in INSTEAD:
        return legacy(name)
    if name not in _OPTIONAL:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    door, framework, extra = _OPTIONAL[name]
    try:
        return getattr(_importlib.import_module(f"{__name__}._frontends.{door}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != framework:
            raise
        text = f"braintrace.{name} needs {framework}, which is not installed: pip install 'braintrace[{extra}]'"
        raise ModuleNotFoundError(text, name=framework) from error
