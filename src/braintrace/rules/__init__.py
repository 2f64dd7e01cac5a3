"""The algorithms: the hyperparameters of each and the parts that they choose. No framework. And the
one reader of what `compile` is given for one.
"""

import difflib

from ..compat import ETraceConfig
from ..core._errors import UsageError
from ._algorithm import Algorithm
from ._d_rtrl import DRTRLRule
from ._eprop import EPropRule
from ._feedback import FixedRandomFeedback
from ._ostl import OSTLFeedforwardRule, OSTLRecurrentRule
from ._osttp import OSTTPRule
from ._otpe import OTPERule
from ._ottt import OTTTRule
from ._pp_prop import PPPropRule
from ._rflo import RFLORule

#: Algorithms by name, in small letters.
ALGORITHMS: dict[str, type[Algorithm]] = {
    "d_rtrl": DRTRLRule,
    "pp_prop": PPPropRule,
    "es_d_rtrl": PPPropRule,
    "esd_rtrl": PPPropRule,
    "eprop": EPropRule,
    "e_prop": EPropRule,
    "ostl_recurrent": OSTLRecurrentRule,
    "ostl_feedforward": OSTLFeedforwardRule,
    "otpe": OTPERule,
    "ottt": OTTTRule,
    "osttp": OSTTPRule,
    "rflo": RFLORule,
}


def algorithm_of(given: object) -> type[Algorithm]:
    """The algorithm that a name in any case, a class made of it, or coordinates stand for."""
    if isinstance(given, ETraceConfig):
        return PPPropRule if given.is_factorized else DRTRLRule
    if isinstance(given, str):
        found = ALGORITHMS.get(given.lower().replace("-", "_"))
    else:
        found = getattr(given, "algorithm", given) if isinstance(given, type) else None
    if isinstance(found, type) and issubclass(found, Algorithm):
        return found
    near = difflib.get_close_matches(given.lower(), ALGORITHMS, 1) if isinstance(given, str) else ()
    raise UsageError(
        "Unknown algorithm.",
        got=repr(given) if isinstance(given, str | type) else f"a {type(given).__name__}",
        expected=f"one of {', '.join(ALGORITHMS)}, or an algorithm's class",
        do=f"pass {near[0]!r}, which is the nearest"
        if near
        else "pass one of these names (case does not matter), or a class such as braintrace.D_RTRL",
    )
