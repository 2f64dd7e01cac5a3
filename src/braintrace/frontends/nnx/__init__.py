"""The door for Flax NNX modules."""

from ._learner import EligibilityTrace as EligibilityTrace
from ._learner import NNXLearner as NNXLearner
from ._learner import compile_nnx as compile_nnx
