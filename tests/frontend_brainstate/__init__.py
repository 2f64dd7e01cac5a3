"""Tests of the learners of brainstate modules."""
