"""Local traces and a sketch of what they leave out."""

from .._algorithms import Algorithm
from .with_local_traces import MEETING, SEPARATE

ALGORITHMS = {
    "sk_rtrl": Algorithm("sk_rtrl", {"rank": 1}),
    "sk_rtrl_full": Algorithm("sk_rtrl", {"rank": 1000, "certificate": False}, another=True),
}

#: Parameters that meet all samples at once have no influence of each of them.
AT_ONCE = "solved whitened_input one_expert"

REFUSED = {name: {SEPARATE: f"{MEETING} {AT_ONCE}"} for name in ALGORITHMS}
