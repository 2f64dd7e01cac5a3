"""How trace memory grows with samples, inputs, outputs and steps, measured on one dense layer of
leaky neurons.

The exponents are those of the published comparison: D-RTRL B I O, the factorised rule B (I + O),
e-prop B I O, OTPE B I O and its approximate form B (I + O), OTTT B I, OSTTP B I O, S-TLLR
B (I + O), MDGL B I O, ModProp B (I + O). None grows with the length of a sequence.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import braintrace
from braintrace.checks import LayeredCell
from zoo import loss

from .cells import lif

#: Options of each rule.
RULES = {
    "d_rtrl": {},
    "pp_prop": {"decay_or_rank": 0.9},
    "eprop": {"kappa_filter_decay": 0.8},
    "ostl_feedforward": {},
    "ottt": {"leak": 0.8},
    "otpe": {"leak": 0.8},
    "f_otpe": {"leak": 0.8, "mode": "approx"},
    "osttp": {"feedback_key": 0},
    "rflo": {"random_feedback_key": 0},
    "sk_rtrl": {"rank": 2},
    "s_tllr": {},
    "mdgl": {},
    "modprop": {"leak": 0.8},
}

#: Exponents of (B, I, O, I and O together) for a wide layer.
BIO, BI, SUM = (1, 1, 1, 2), (1, 1, 0, 1), (1, None, None, 1)
EXPONENTS = {
    "d_rtrl": BIO,
    "sk_rtrl": BIO,
    "eprop": BIO,
    "otpe": BIO,
    "osttp": BIO,
    "rflo": BIO,
    "mdgl": BIO,
    "pp_prop": SUM,
    "f_otpe": SUM,
    "modprop": SUM,
    "s_tllr": SUM,
    "ottt": BI,
    "ostl_feedforward": BI,  # of neurons with one constant leak
}


@functools.cache
def learner(rule, samples, inputs, outputs):
    cell = LayeredCell((lif(recurrent=False, bias=False),), lambda p, z: z @ p["o"])
    number = lambda *shape: jnp.zeros(shape, jnp.float32)
    params = {"W": number(inputs, outputs), "o": number(outputs, 1)}
    name = "otpe" if rule == "f_otpe" else rule
    carry = (number(samples, outputs),)
    return (
        braintrace.compile(
            cell, name, number(samples, inputs), params=params, carry=carry, **RULES[rule]
        ),
        params,
        carry,
    )


def size(tree):
    return sum(v.size * v.dtype.itemsize for v in jax.tree.leaves(tree))


@functools.cache
def trace_bytes(rule, samples=4, inputs=64, outputs=64):
    this, _, _ = learner(rule, samples, inputs, outputs)
    return size(jax.eval_shape(lambda: this.rule.init(this.graph)))


def exponent(rule, **axes):
    """The slope of log bytes over log size when the axes grow from their sizes by factors of 2."""
    factors = np.array([1, 2, 4])
    sizes = [trace_bytes(rule, **{k: int(v * f) for k, v in axes.items()}) for f in factors]
    return np.polyfit(np.log(factors), np.log(sizes), 1)[0]


@pytest.mark.parametrize("rule", RULES)
def test_exponents(rule):
    got = (
        exponent(rule, samples=4),
        exponent(rule, inputs=64),
        exponent(rule, outputs=64),
        exponent(rule, inputs=64, outputs=64),
    )
    for found, expected in zip(got, EXPONENTS[rule], strict=True):
        assert expected is None or found == pytest.approx(expected, abs=0.12), got
    if (
        EXPONENTS[rule] is SUM
    ):  # a sum: each side alone is between 0 and 1, and together they make the whole
        assert 0.1 < got[1] < 0.9 and 0.1 < got[2] < 0.9, got


def test_the_orders_differ():
    """Control: at these sizes the orders are far apart."""
    assert trace_bytes("d_rtrl") > 10 * trace_bytes("pp_prop") > 10 * trace_bytes("ottt") / 2
    assert (
        exponent("d_rtrl", inputs=64, outputs=64) - exponent("pp_prop", inputs=64, outputs=64) > 0.9
    )


@pytest.mark.parametrize("rule", RULES)
def test_no_trace_grows_with_time(rule):
    this, params, carry = learner(rule, 4, 64, 64)
    start = this.init(params, carry)

    def after(steps):
        more = {"y_target": jnp.zeros((steps, 4, 1))} if rule == "osttp" else {}
        xs, ys = jnp.zeros((steps, 4, 64)), jnp.zeros((steps, 4, 1))
        run = lambda p, s: this.etrace_grad(p, s, xs, ys, loss_fn=loss, window=4, **more)[1]
        return jax.eval_shape(run, params, start)

    assert size(after(4).traces) == size(after(64).traces) == size(start.traces) > 0
