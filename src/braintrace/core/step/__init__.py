"""The step of a cell, evaluated so that automatic differentiation gives the quantities that online
rules are made of.
"""

from ._evaluate import Perturbations as Perturbations
from ._evaluate import Step as Step
from ._evaluate import Values as Values
from ._evaluate import free_step as free_step
from ._evaluate import hidden_part as hidden_part
from ._evaluate import plain_step as plain_step
from ._evaluate import prelude as prelude
from ._evaluate import step as step
from ._evaluate import with_hidden as with_hidden
from ._saving import calls_back as calls_back
from ._saving import saving_step as saving_step
