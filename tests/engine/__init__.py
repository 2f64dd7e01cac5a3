"""Tests of the engine through the functional front end."""
