"""One update, a window, a sequence: pure functions on flat lists."""

from ._extra import driver_signals as driver_signals
from ._extra import target_signal as target_signal
from ._memory import MemoryPlan as MemoryPlan
from ._memory import ParameterMemory as ParameterMemory
from ._online import update as update
from ._online import window as window
from ._rule import Rule as Rule
from ._sequence import advance as advance
from ._sequence import evolve as evolve
from ._sequence import sequence_gradient as sequence_gradient
from ._window import Body as Body
from ._window import Stepped as Stepped
from ._window import cell_body as cell_body
