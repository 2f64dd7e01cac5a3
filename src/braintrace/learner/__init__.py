"""The functional learner of a cell, and what it is made of."""

from ._budget import Budget
from ._fidelity import Fidelity
from ._fit import Mode, chunks_of, one_after_another, taking_gradients
from ._functional import FunctionLearner
from ._kept import Kept, UserFunction
from ._objective import Objective, Options
from ._one_step import as_sequence, in_front, value_of
from ._pickling import packed, shallow_copy
from ._state import Info, Key, State, counted, no_steps, owned
from ._synthetic import train_synthetic_gradient
