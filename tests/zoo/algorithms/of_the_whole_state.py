"""The algorithms that follow the influence on all the hidden state."""

from .._algorithms import Algorithm
from .with_local_traces import MEETING, SEPARATE

ALGORITHMS = {"rtrl": Algorithm("rtrl", {})}

REFUSED = {"rtrl": {SEPARATE: MEETING}}
