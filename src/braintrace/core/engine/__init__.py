"""One update, a window, a sequence: pure functions on flat lists."""

from ._memory import MemoryPlan as MemoryPlan
from ._memory import ParameterMemory as ParameterMemory
from ._once import Refusal as Refusal
from ._once import undifferentiated as undifferentiated
from ._online import update as update
from ._online import window as window
from ._records import Body as Body
from ._records import EngineState as EngineState
from ._records import Problem as Problem
from ._records import Stepped as Stepped
from ._records import Steps as Steps
from ._rule import Rule as Rule
from ._rule import extra_of as extra_of
from ._sequence import advance as advance
from ._sequence import evolve as evolve
from ._sequence import exact_gradient as exact_gradient
from ._sequence import sequence_gradient as sequence_gradient
from ._signals import driver_signals as driver_signals
from ._signals import step_signals as step_signals
from ._signals import taken as taken
