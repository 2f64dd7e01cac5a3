"""Edits of a cell's program: filters, feedback, targets, estimates."""

from ._editor import Edit as Edit
from ._editor import Editor as Editor
from ._feedback import Feedback as Feedback
from ._firing_rate import RATE_SCALE as RATE_SCALE
from ._firing_rate import FiringRate as FiringRate
from ._matrices import random_value as random_value
from ._output_filter import OutputFilter as OutputFilter
from ._postsynaptic import Postsynaptic as Postsynaptic
from ._scalar_leak import ScalarLeak as ScalarLeak
from ._target_projection import TARGET as TARGET
from ._target_projection import TargetProjection as TargetProjection
