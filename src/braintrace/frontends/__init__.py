"""The front ends: from a framework's model to a learner. Each is imported when it is needed."""

from ._choice import FRONT_ENDS as FRONT_ENDS
from ._choice import FrontEnd as FrontEnd
from ._choice import front_end_of as front_end_of
