"""Edits of a cell's program: filters, feedback, targets, estimates."""

from ._editor import Edit as Edit
from ._postsynaptic import Postsynaptic as Postsynaptic
from ._signals import RATE_SCALE as RATE_SCALE
from ._signals import TARGET as TARGET
from ._signals import Feedback as Feedback
from ._signals import FiringRate as FiringRate
from ._signals import OutputFilter as OutputFilter
from ._signals import TargetProjection as TargetProjection
