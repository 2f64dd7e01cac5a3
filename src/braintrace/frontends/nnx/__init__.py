"""The front end for Flax NNX modules."""

from ._compile import compile_model as compile_model
from ._core import EligibilityTrace as EligibilityTrace
from ._learner import NNXLearner as NNXLearner
