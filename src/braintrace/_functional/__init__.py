"""The pure learner of a cell `(params, carry, x) -> (carry, out)`, on which doors stand that keep parameters in trees."""

from ._learner import FunctionLearner as FunctionLearner
from ._sequence import Objective as Objective
from ._state import Info as Info
from ._state import State as State
