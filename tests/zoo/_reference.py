"""The plain gradients that an engine is measured against."""

import jax
import jax.numpy as jnp
from jax import lax

from ._case import Case


def loss(out, target):
    """Squared error of each sample: (B, OUT), (B, OUT) -> (B,)."""
    return jnp.sum(jnp.square(out - target), axis=-1)


def run(case_or_cell, params, carry, xs):
    """The last carry and the outputs (T, B, OUT) over a sequence."""
    cell = case_or_cell.cell if isinstance(case_or_cell, Case) else case_or_cell
    return lax.scan(lambda c, x: cell(params, c, x), carry, xs)


def total_loss(case_or_cell, params, carry, xs, ys):
    """The loss summed over steps and samples, and what `run` gives."""
    result = run(case_or_cell, params, carry, xs)
    return jnp.sum(jax.vmap(loss)(result[1], ys)), result


def bptt(case_or_cell, params, carry, xs, ys):
    """Gradient of the summed loss by ordinary reverse mode over the scan.

    Of a case (or its cell) this is BPTT; of `case.oracle` it is the D-RTRL gradient, the value
    that every window size must give.
    """
    return jax.grad(lambda p: total_loss(case_or_cell, p, carry, xs, ys)[0])(params)


def tolerance(case):
    """Relative rounding error to allow for in float64."""
    return 1e-5 if "float32" in case.features else 1e-10
