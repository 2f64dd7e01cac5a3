"""What algorithms are made of: carriers of eligibility, and the sensitivities that move them."""

from ._carrier import Carrier as Carrier
from ._editor import Edit as Edit
from ._editor import Editor as Editor
from ._factored import Factored as Factored
from ._filters import kappa_step as kappa_step
from ._filters import leaky_step as leaky_step
from ._per_parameter import PerParameter as PerParameter
from ._postsynaptic import Postsynaptic as Postsynaptic
from ._presynaptic import Presynaptic as Presynaptic
from ._rule import Rule as Rule
from ._sensitivity import Pull as Pull
from ._sensitivity import Sensitivity as Sensitivity
from ._sensitivity import every_drive as every_drive
from ._sensitivity import local_chain as local_chain
from ._sensitivity import pulled_back as pulled_back
from ._sensitivity import scan as scan
from ._sensitivity import sensitivity as sensitivity
from ._sensitivity import zero_nudges as zero_nudges
from ._signals import RATE_SCALE as RATE_SCALE
from ._signals import TARGET as TARGET
from ._signals import Feedback as Feedback
from ._signals import FiringRate as FiringRate
from ._signals import OutputFilter as OutputFilter
from ._signals import TargetProjection as TargetProjection
from ._within_layer import WithinLayer as WithinLayer
