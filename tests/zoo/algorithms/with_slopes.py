"""The algorithms that keep the slope of a layer's activity in its drive."""

from .._algorithms import Algorithm
from . import with_local_traces as local

ALGORITHMS = {"s_tllr": Algorithm("s_tllr", {"lambda_pre": 0.8, "alpha_post": -0.5})}

# as F-OTPE, but layers may feed each other in a circle, and a perceptron may stand between them
_SLOPES = {k: v for k, v in local.REFUSED["f_otpe"].items() if k != local.ONE_WAY}
_SLOPES[local.SHAPE] = _SLOPES[local.SHAPE].replace("perceptron_between ", "")

REFUSED = {"s_tllr": _SLOPES}

MODEST = {"s_tllr": local.ATTENTION}
