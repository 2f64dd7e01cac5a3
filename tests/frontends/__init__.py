"""Tests of the learners of NNX modules, Equinox modules and plain functions."""

import brainstate

brainstate.environ.set(precision=64)
