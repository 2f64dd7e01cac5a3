"""Tests of the learners of brainstate modules."""

import brainstate

brainstate.environ.set(precision=64)
