"""Marks that say how many steps the arrays of a call hold."""

import dataclasses
import functools

import jax
from jaxtyping import PyTree


@functools.partial(jax.tree_util.register_dataclass, data_fields=["data"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class SingleStepData:
    """The input of one step: the same as the bare array (or tree of arrays).

    >>> import braintrace, jax.numpy as jnp
    >>> braintrace.SingleStepData(jnp.ones((2, 3))).data.shape
    (2, 3)
    """

    data: PyTree


@functools.partial(jax.tree_util.register_dataclass, data_fields=["data"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class MultiStepData:
    """Inputs of several steps, time on axis 0 of every array: `learner(MultiStepData(xs))` returns
    stacked outputs.

    >>> import braintrace, jax.numpy as jnp
    >>> braintrace.MultiStepData(jnp.ones((10, 2, 3))).data.shape  # 10 steps
    (10, 2, 3)
    """

    data: PyTree
