"""Every algorithm as the matrix runs it, and the ways to a gradient."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import braintrace
from braintrace.core.traces import Draws

from ._case import OUT, generator
from ._interpret import interpreted
from ._reference import loss


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """A name for `compile`, options, and what the algorithm needs beside the data."""

    name: str
    options: Mapping[str, Any]
    signal: str = ""  # what it takes beside the data: y_target or modulator
    by_step: bool = True  # whether `update` sums to the sequence's gradient
    linear: bool = True  # whether samples add up
    another: bool = False  # whether it is another setting of a rule that the matrix has already

    def learner(self, case, params, carry, x, cell=None):
        options = {**self.options, **case.compiled}
        return braintrace.compile(
            cell or case.cell, self.name, x, params=params, carry=carry, **options
        )


def signals(key, ys):
    """By their arguments, signals for a sequence of targets (T, B, OUT) or (T, OUT)."""
    lead, random = ys.shape[:-1], generator(key, 3)
    draw = lambda *shape: jnp.asarray(random.standard_normal(shape))
    return {"y_target": draw(*lead, OUT), "modulator": draw(*lead)}


def by_sequence(learner, example, window, state=False):
    """`gradient(params, carry, xs, ys, signals)` of a sequence, traced once; `state`: whether the
    driver is asked for the state at the end, too.
    """

    def gradient(params, carry, xs, ys, signals):
        return learner.etrace_grad(
            params,
            learner.init(params, carry),
            xs,
            ys,
            loss_fn=loss,
            reduction="sum",
            window=window,
            return_state=state,
            **signals,
        )[0]

    return interpreted(gradient, *example)


def drawn_on(state, steps):
    """A state whose random numbers, if it has any, are those after some steps of each sample."""
    is_draws = lambda v: isinstance(v, Draws)
    put = lambda v: v._replace(steps=steps) if is_draws(v) else v
    return dataclasses.replace(state, traces=jax.tree.map(put, state.traces, is_leaf=is_draws))


def by_parts(learner, example, window, state=False):
    """As `by_sequence`, with a reset (T, B), a mask (T, B), and the steps (B,) before the sequence
    behind the data.
    """

    def gradient(params, carry, xs, ys, signals, reset, mask, before):
        return learner.etrace_grad(
            params,
            drawn_on(learner.init(params, carry), before),
            xs,
            ys,
            loss_fn=loss,
            reduction="sum",
            window=window,
            return_state=state,
            reset=reset,
            mask=mask,
            **signals,
        )[0]

    marks = np.zeros(example[3].shape[:2], bool)
    return interpreted(gradient, *example, marks, marks.astype(float), marks[0].astype(np.int32))


def by_step(learner, example):
    """As `by_sequence`: the gradients of `update`, step by step, added up."""

    def gradient(params, carry, xs, ys, signals):
        def one(state_total, at):
            state, total = state_total
            x, y, now = at

            def objective(params):
                new, out = learner.update(params, state, x, **now)
                return jnp.sum(loss(out, y)), new

            found, new = jax.grad(objective, has_aux=True)(params)
            return (new, jax.tree.map(jnp.add, total, found)), None

        start = learner.init(params, carry), jax.tree.map(jnp.zeros_like, params)
        return jax.lax.scan(one, start, (xs, ys, signals))[0][1]

    return interpreted(gradient, *example)
