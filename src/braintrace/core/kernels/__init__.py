"""Compiled kernels: what XLA cannot do at memory speed, in C, with the same function in JAX beside
it.
"""

from ._pairs import paired as paired
from ._target import registered as registered
from ._traces import MOST_SLOTS as MOST_SLOTS
from ._traces import Operands as Operands
from ._traces import advance_and_contract as advance_and_contract
from ._traces import in_place as in_place
from ._traces import met as met
