"""The algorithms that follow the influence on all the hidden state."""

from .._algorithms import Algorithm
from .with_local_traces import MEETING, SEPARATE

ALGORITHMS = {
    "rtrl": Algorithm("rtrl", {}),
    "snap": Algorithm("snap", {"n": 1}),
    "snap_2": Algorithm("snap", {"n": 2}, another=True),
    "random_rtrl": Algorithm("random_rtrl", {"k": 1}),
}

REFUSED = {name: {SEPARATE: MEETING} for name in ALGORITHMS}
