"""Tests of the learners of NNX modules, Equinox modules and plain functions."""
