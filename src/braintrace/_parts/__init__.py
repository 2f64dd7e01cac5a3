"""What algorithms are made of: carriers of eligibility, and the sensitivities that move them."""

from ._carrier import Carrier as Carrier
from ._factored import Factored as Factored
from ._per_parameter import PerParameter as PerParameter
from ._presynaptic import Presynaptic as Presynaptic
from ._rule import Rule as Rule
from ._sensitivity import Sensitivity as Sensitivity
from ._sensitivity import local_chain as local_chain
from ._sensitivity import scan as scan
from ._sensitivity import sensitivity as sensitivity
from ._sensitivity import zero_nudges as zero_nudges
