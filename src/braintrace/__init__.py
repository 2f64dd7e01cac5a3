"""Online learning of recurrent and spiking networks with eligibility traces, on JAX."""

from . import checks as checks
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
from ._frontends._brainstate import ETraceVjpAlgorithm as ETraceVjpAlgorithm
from ._frontends._brainstate import MultiStepData as MultiStepData
from ._frontends._brainstate import SingleStepData as SingleStepData
from ._frontends._function import FunctionLearner as FunctionLearner
from ._learner import MemoryPlan as MemoryPlan
from ._sites import SiteRule as SiteRule
from ._sites import register_site_rule as register_site_rule

__version__ = "0.1.0"
