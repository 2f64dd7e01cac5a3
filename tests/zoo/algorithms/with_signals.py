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
    "reward_eprop": Algorithm(
        "three_factor", {"kappa_filter_decay": 0.7}, "modulator", another=True
    ),
    "etlp": Algorithm("etlp", {"feedback_key": 0}, "y_target"),
    "decolle": Algorithm("decolle", {"readout_key": 0, "local_loss": "mse"}, "y_target"),
}

AT_ACTIVITIES = {UNKNOWN: NOT_SAID, IN_FRONT: LAST, NO_ONE_ACTIVITY: "gru_reset_before"}
WRONG_SHAPE = {"The target has a wrong shape": "centred_populations"}
ONE_FOR_ALL = {"The modulator has a wrong shape": "centred_populations"}
REFUSED = {
    "etlp": AT_ACTIVITIES | WRONG_SHAPE,
    "decolle": AT_ACTIVITIES | WRONG_SHAPE,
    "three_factor": AT_ACTIVITIES | ONE_FOR_ALL,
    "reward_eprop": AT_ACTIVITIES | ONE_FOR_ALL | {NOT_FILTERED: NOTHING_STAYS},
}
