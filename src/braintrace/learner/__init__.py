"""The functional learner of a cell, and what it is made of."""

from ._budget import Budget as Budget
from ._fit import fit_mode as fit_mode
from ._fit import step_options as step_options
from ._functional import FunctionLearner as FunctionLearner
from ._objective import Objective as Objective
from ._objective import Options as Options
from ._state import Info as Info
from ._state import State as State
from ._state import counted as counted
