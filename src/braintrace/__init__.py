"""Online learning of recurrent and spiking networks with eligibility traces, on JAX."""

from ._algorithms import D_RTRL as D_RTRL
from ._algorithms import ParamDimVjpAlgorithm as ParamDimVjpAlgorithm
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

__version__ = "0.1.0"
