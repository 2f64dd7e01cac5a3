"""From a Python function to one flat program that every later stage reads."""

from ._derivative import RULE as RULE
from ._derivative import Derivative as Derivative
from ._elementwise import ELEMENTWISE as ELEMENTWISE
from ._elementwise import is_elementwise as is_elementwise
from ._linear import PARTS as PARTS
from ._linear import SIGNS as SIGNS
from ._linear import keeps_activity as keeps_activity
from ._linear import scales as scales
from ._policy import ControlFlowPolicy as ControlFlowPolicy
from ._policy import Unfolding as Unfolding
from ._program import Atom as Atom
from ._program import Const as Const
from ._program import Equation as Equation
from ._program import Program as Program
from ._program import Var as Var
from ._program import evaluate as evaluate
from ._program import reader as reader
from ._program import sort_equations as sort_equations
from ._stage import derivative as derivative
from ._stage import extend as extend
from ._stage import inline as inline
from ._stage import stage as stage
from ._stop_trace import is_bent as is_bent
from ._stop_trace import is_stop_trace as is_stop_trace
from ._stop_trace import stop_trace as stop_trace
