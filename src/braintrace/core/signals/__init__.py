"""Edits of a cell's program: filters, feedback, targets, estimates."""

from ._between import Between as Between
from ._editor import Edit as Edit
from ._editor import Editor as Editor
from ._linear_loss import RATE_SCALE as RATE_SCALE
from ._linear_loss import TARGET as TARGET
from ._linear_loss import WEIGHT as WEIGHT
from ._linear_loss import FiringRate as FiringRate
from ._linear_loss import TargetProjection as TargetProjection
from ._local import LOCAL_TARGET as LOCAL_TARGET
from ._local import LocalLoss as LocalLoss
from ._local import VoltageRegulariser as VoltageRegulariser
from ._matrices import random_value as random_value
from ._modulation import Modulation as Modulation
from ._modulator import MODULATOR as MODULATOR
from ._modulator import Modulator as Modulator
from ._postsynaptic import Postsynaptic as Postsynaptic
from ._random_steps import RandomEvents as RandomEvents
from ._random_steps import RandomSteps as RandomSteps
from ._readouts import Feedback as Feedback
from ._readouts import OutputFilter as OutputFilter
from ._scalar_leak import ScalarLeak as ScalarLeak
from ._slope_trace import SlopeTrace as SlopeTrace
