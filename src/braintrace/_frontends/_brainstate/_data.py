"""Marks that say how many steps the arrays of a call hold."""

import dataclasses
import functools
from typing import Any

import jax


@functools.partial(jax.tree_util.register_dataclass, data_fields=["data"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class SingleStepData:
    """The input of one step: the same as the bare array (or tree of arrays)."""

    data: Any


@functools.partial(jax.tree_util.register_dataclass, data_fields=["data"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class MultiStepData:
    """Inputs of several steps, time on axis 0 of every array: `learner(MultiStepData(xs))` returns stacked outputs."""

    data: Any
