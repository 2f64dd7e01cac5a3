"""Online learning of recurrent and spiking networks with eligibility traces, on JAX.

Names that need a framework are imported when they are used: `import braintrace` imports JAX alone.
"""

import importlib as _importlib
from types import ModuleType as _ModuleType
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from . import checks as checks
from . import rules as rules
from . import tasks as tasks
from ._compile import compile as compile
from .compat import ETPPrimitive as ETPPrimitive
from .compat import ETraceConfig as ETraceConfig
from .compat import MultiStepData as MultiStepData
from .compat import SingleStepData as SingleStepData
from .compat import register_primitive as register_primitive
from .core import __version__ as _version
from .core._errors import BrainTraceError as BrainTraceError
from .core._errors import CompilationError as CompilationError
from .core._errors import NotSupportedError as NotSupportedError
from .core._errors import UsageError as UsageError
from .core.engine import MemoryPlan as MemoryPlan
from .core.engine import ParameterMemory as ParameterMemory
from .core.jaxpr import ControlFlowPolicy as ControlFlowPolicy
from .core.jaxpr import stop_trace as stop_trace
from .core.signals import SyntheticGradient as SyntheticGradient
from .core.sites import SiteRule as SiteRule
from .core.sites import register_site_rule as register_site_rule
from .core.traces import ErrorBound as ErrorBound
from .learner import Fidelity as Fidelity
from .learner import FunctionLearner as FunctionLearner
from .learner import Info as Info
from .learner import State as State
from .learner import train_synthetic_gradient as train_synthetic_gradient
from .operators import conv as conv
from .operators import einsum as einsum
from .operators import element_wise as element_wise
from .operators import embedding as embedding
from .operators import grouped_matmul as grouped_matmul
from .operators import lora_matmul as lora_matmul
from .operators import matmul as matmul
from .operators import sparse_matmul as sparse_matmul
from .reports import CompilationRecord as CompilationRecord
from .reports import CompilationReport as CompilationReport
from .reports import DiagnosticKind as DiagnosticKind
from .reports import DiagnosticLevel as DiagnosticLevel
from .rules import FixedRandomFeedback as FixedRandomFeedback

if _TYPE_CHECKING:
    from . import nn as nn
    from .compat._filters import KappaFilter as KappaFilter
    from .compat._filters import PresynapticTrace as PresynapticTrace
    from .compat._grad_expon import GradExpon as GradExpon
    from .compat._graph import ETraceGraph as ETraceGraph
    from .compat._graph import HiddenGroup as HiddenGroup
    from .compat._graph import HiddenParamOpRelation as HiddenParamOpRelation
    from .compat._graph import ModuleInfo as ModuleInfo
    from .compat._legacy import ConvOp as ConvOp
    from .compat._legacy import ElemWiseOp as ElemWiseOp
    from .compat._legacy import ElemWiseParam as ElemWiseParam
    from .compat._legacy import ETraceOp as ETraceOp
    from .compat._legacy import ETraceParam as ETraceParam
    from .compat._legacy import FakeElemWiseParam as FakeElemWiseParam
    from .compat._legacy import FakeETraceParam as FakeETraceParam
    from .compat._legacy import LoraOp as LoraOp
    from .compat._legacy import MatMulOp as MatMulOp
    from .compat._legacy import NonTempParam as NonTempParam
    from .compat._legacy import SpMatMulOp as SpMatMulOp
    from .frontends.brainstate._algorithm import ETraceAlgorithm as ETraceAlgorithm
    from .frontends.brainstate._algorithms import D_RTRL as D_RTRL
    from .frontends.brainstate._algorithms import DECOLLE as DECOLLE
    from .frontends.brainstate._algorithms import DNI as DNI
    from .frontends.brainstate._algorithms import ES_D_RTRL as ES_D_RTRL
    from .frontends.brainstate._algorithms import ETLP as ETLP
    from .frontends.brainstate._algorithms import KF_RTRL as KF_RTRL
    from .frontends.brainstate._algorithms import MDGL as MDGL
    from .frontends.brainstate._algorithms import OK_RTRL as OK_RTRL
    from .frontends.brainstate._algorithms import OSTTP as OSTTP
    from .frontends.brainstate._algorithms import OTPE as OTPE
    from .frontends.brainstate._algorithms import OTTT as OTTT
    from .frontends.brainstate._algorithms import RFLO as RFLO
    from .frontends.brainstate._algorithms import RTRL as RTRL
    from .frontends.brainstate._algorithms import S_TLLR as S_TLLR
    from .frontends.brainstate._algorithms import SK_RTRL as SK_RTRL
    from .frontends.brainstate._algorithms import SLTT as SLTT
    from .frontends.brainstate._algorithms import UORO as UORO
    from .frontends.brainstate._algorithms import EProp as EProp
    from .frontends.brainstate._algorithms import Instantaneous as Instantaneous
    from .frontends.brainstate._algorithms import IODimVjpAlgorithm as IODimVjpAlgorithm
    from .frontends.brainstate._algorithms import ModProp as ModProp
    from .frontends.brainstate._algorithms import OSTLFeedforward as OSTLFeedforward
    from .frontends.brainstate._algorithms import OSTLRecurrent as OSTLRecurrent
    from .frontends.brainstate._algorithms import ParamDimVjpAlgorithm as ParamDimVjpAlgorithm
    from .frontends.brainstate._algorithms import RandomRTRL as RandomRTRL
    from .frontends.brainstate._algorithms import SnAp as SnAp
    from .frontends.brainstate._algorithms import ThreeFactor as ThreeFactor
    from .frontends.brainstate._algorithms import pp_prop as pp_prop
    from .frontends.brainstate._inspect import compile_etrace_graph as compile_etrace_graph
    from .frontends.brainstate._inspect import extract_module_info as extract_module_info
    from .frontends.brainstate._inspect import (
        find_hidden_groups_from_module as find_hidden_groups_from_module,
    )
    from .frontends.brainstate._inspect import (
        find_hidden_param_op_relations_from_module as find_hidden_param_op_relations_from_module,
    )
    from .frontends.brainstate._made import ETraceVjpAlgorithm as ETraceVjpAlgorithm
    from .frontends.brainstate._sequences import SequenceDriverMixin as SequenceDriverMixin
    from .frontends.brainstate._states import EligibilityTrace as EligibilityTrace
    from .frontends.brainstate._vmap import ETraceVmap as ETraceVmap
    from .frontends.equinox import EquinoxLearner as EquinoxLearner
    from .frontends.nnx import NNXLearner as NNXLearner

_PLACES = {  # of names that need brainstate
    ".compat._filters": "KappaFilter PresynapticTrace",
    ".compat._grad_expon": "GradExpon",
    ".compat._graph": "ETraceGraph HiddenGroup HiddenParamOpRelation ModuleInfo",
    ".frontends.brainstate._algorithm": "ETraceAlgorithm",
    ".frontends.brainstate._algorithms": (
        "DECOLLE DNI D_RTRL EProp ES_D_RTRL ETLP IODimVjpAlgorithm Instantaneous KF_RTRL MDGL "
        "ModProp OK_RTRL OSTLFeedforward OSTLRecurrent OSTTP OTPE OTTT ParamDimVjpAlgorithm "
        "RFLO RTRL RandomRTRL SK_RTRL SLTT S_TLLR SnAp ThreeFactor UORO pp_prop"
    ),
    ".frontends.brainstate._inspect": (
        "compile_etrace_graph extract_module_info find_hidden_groups_from_module "
        "find_hidden_param_op_relations_from_module"
    ),
    ".frontends.brainstate._made": "ETraceVjpAlgorithm",
    ".frontends.brainstate._sequences": "SequenceDriverMixin",
    ".frontends.brainstate._states": "EligibilityTrace",
    ".frontends.brainstate._vmap": "ETraceVmap",
}
_BRAINSTATE = {name: place for place, names in _PLACES.items() for name in names.split()}
_OPTIONAL = {  # name: (front end, its framework, the extra that brings it)
    "EquinoxLearner": ("equinox", "equinox", "equinox"),
    "NNXLearner": ("nnx", "flax", "nnx"),
}

__version__ = _version
__version_info__ = tuple(map(int, _version.split(".")))


def __getattr__(name: str) -> _Any:
    """Names that are imported when they are used, and names of 0.1, which warn.

    Not in `__all__`: learners of frameworks that need not be installed, and names of 0.1.
    """
    if name in _BRAINSTATE:
        value = getattr(_importlib.import_module(_BRAINSTATE[name], __name__), name)
    elif name == "nn":
        value = _importlib.import_module(".nn", __name__)
    elif name in _OPTIONAL:
        value = _optional(name)
    elif name == "__all__":  # asked for by `from braintrace import *`, and never kept
        here = [n for n, v in globals().items() if n[0] != "_" and not isinstance(v, _ModuleType)]
        return list(dict.fromkeys([*here, "checks", "nn", "rules", "tasks", *_BRAINSTATE]))
    else:
        from .compat._instead import INSTEAD, legacy

        if name not in INSTEAD:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return legacy(name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), "nn", *_BRAINSTATE, *_OPTIONAL})


def _optional(name: str) -> _Any:
    front_end, framework, extra = _OPTIONAL[name]
    try:
        return getattr(_importlib.import_module(f".frontends.{front_end}", __name__), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != framework:
            raise
        text = (
            f"braintrace.{name} needs {framework}, which is not installed: pip install "
            f"'braintrace[{extra}]'"
        )
        raise ModuleNotFoundError(text, name=framework) from error
