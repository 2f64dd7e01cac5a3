"""Tests of the engine through the functional door."""
