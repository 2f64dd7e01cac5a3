"""A rule: the parts that an algorithm chooses."""

import dataclasses

from ._carrier import Carrier


@dataclasses.dataclass(frozen=True)
class Rule:
    """What an algorithm is made of. Hashable: it is a static argument of compiled functions."""

    name: str
    carrier: Carrier
