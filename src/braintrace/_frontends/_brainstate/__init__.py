"""The brainstate door: algorithms that wrap a `brainstate.nn.Module`."""

from . import _precision as _precision  # isort: skip  (first: it guards the precision)
from ._algorithm import EligibilityTrace as EligibilityTrace
from ._algorithm import ETraceAlgorithm as ETraceAlgorithm
from ._algorithm import ETraceVjpAlgorithm as ETraceVjpAlgorithm
from ._data import MultiStepData as MultiStepData
from ._data import SingleStepData as SingleStepData
from ._initial import compile_module as compile_module
