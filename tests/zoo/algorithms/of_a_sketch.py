"""Local traces and a sketch of what they leave out."""

from .._algorithms import Algorithm
from .with_local_traces import MEETING, SEPARATE, SOLVED

ALGORITHMS = {
    "sk_rtrl": Algorithm("sk_rtrl", {"rank": 1}),
    "sk_rtrl_full": Algorithm("sk_rtrl", {"rank": 1000, "certificate": False}),
}

REFUSED = {name: {SEPARATE: f"{MEETING} {SOLVED}"} for name in ALGORITHMS}
