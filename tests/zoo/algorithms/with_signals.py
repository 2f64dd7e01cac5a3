"""The algorithms whose hidden layers learn from a signal of their own in the place of the loss."""

from .._algorithms import Algorithm
from .with_local_traces import (
    IN_FRONT,
    LAST,
    NO_ONE_ACTIVITY,
    NOT_FILTERED,
    NOT_SAID,
    NOTHING_STAYS,
    UNKNOWN,
)

ALGORITHMS = {
    "three_factor": Algorithm("three_factor", {}, "modulator"),
    "reward_eprop": Algorithm("three_factor", {"kappa_filter_decay": 0.7}, "modulator"),
}

AT_ACTIVITIES = {
    UNKNOWN: NOT_SAID,
    IN_FRONT: f"batch_norm_in_use {LAST}",
    NO_ONE_ACTIVITY: "gru_reset_before",
}
REFUSED = {
    "three_factor": AT_ACTIVITIES,
    "reward_eprop": AT_ACTIVITIES | {NOT_FILTERED: NOTHING_STAYS},
}
