"""The algorithms whose hidden layers learn from a signal of their own in the place of the loss."""

from .._algorithms import Algorithm
from .with_local_traces import REFUSED as LOCAL
from .with_local_traces import SEPARATE

ALGORITHMS = {
    "three_factor": Algorithm("three_factor", {}, "modulator"),
    "reward_eprop": Algorithm("three_factor", {"kappa_filter_decay": 0.7}, "modulator"),
}

#: As OSTTP, whose traces of layers refuse samples that meet.
AT_ACTIVITIES = {words: cases for words, cases in LOCAL["osttp"].items() if words != SEPARATE}
REFUSED = {"three_factor": AT_ACTIVITIES, "reward_eprop": AT_ACTIVITIES}
