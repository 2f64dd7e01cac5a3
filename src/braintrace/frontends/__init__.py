"""Doors to the learners: one module for each way of writing a model."""
