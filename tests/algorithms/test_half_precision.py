"""Models in bfloat16 and float16: coefficients are formed in the traces' dtype, and the gradients
of steps add up in it, so that every window gives the gradient of float32 up to the model's
rounding.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import braintrace
from braintrace.checks import bptt_gradient
from braintrace.core.traces import kappa_step, leaky_step

B, I, H, T = 2, 3, 4, 150
SLOW, ONE = 0.999, 0.999999  # what is 1 in bfloat16, and nearly that
LIMITS = {jnp.bfloat16: 0.03, jnp.float16: 0.005}


def cell(p, h, x):
    h = 0.875 * h + x @ p["w"] + p["b"]
    return h, jnp.tanh(h) @ p["o"]


def _config(decay):
    options = {"temporal_recursion": "scalar_leak", "decay": decay}
    return {"config": braintrace.ETraceConfig(**options)}


#: The algorithm, and its options for a coefficient.
RULES = {
    "d_rtrl": ("d_rtrl", lambda c: {}),
    "otpe clipped": ("otpe", lambda c: {"leak": 0.5, "trace_clip_abs": 3.0}),
    "scalar leak": ("d_rtrl", _config),
    "pp_prop": ("pp_prop", lambda c: {"decay_or_rank": (c, 0.9)}),
    "pp_prop state": ("pp_prop", lambda c: {"decay_or_rank": (0.9, c)}),
    "eprop": ("eprop", lambda c: {"kappa_filter_decay": c}),
    "eprop adaptive": (
        "eprop",
        lambda c: {"feedback": "adaptive", "feedback_decay": 1 - c, "random_feedback_key": 0},
    ),
    "eprop rate": ("eprop", lambda c: {"firing_rate": (0.1, 5.0)}),
    "ostl_recurrent": ("ostl_recurrent", lambda c: {}),
    "ostl_feedforward": ("ostl_feedforward", lambda c: {}),
    "ostl factored": ("ostl_feedforward", lambda c: {"decay_or_rank": c}),
    "ottt": ("ottt", lambda c: {"leak": c, "bias_trace": True}),
    "otpe": ("otpe", lambda c: {"leak": c}),
    "f_otpe": ("otpe", lambda c: {"leak": c, "mode": "approx"}),
    "osttp": ("osttp", lambda c: {"feedback_key": 0}),
    "osttp exact": ("osttp", lambda c: {"feedback_key": 0, "scope": "exact"}),
    "rflo": ("rflo", lambda c: {"random_feedback_key": 0}),
}
#: Where the coefficient has a say in this time.
TELLING = "scalar leak", "pp_prop", "eprop", "ottt", "otpe", "f_otpe"


def data(dtype):
    """The values of bfloat16, which both have."""
    draw = np.random.default_rng(0).normal
    of = lambda *shape: jnp.asarray(draw(size=shape), jnp.bfloat16).astype(dtype)
    params = {"w": of(I, H) / 2, "b": of(H) / 8, "o": of(H, 2) / 2}
    return params, jnp.zeros((B, H), dtype), of(T, B, I) / 4 + 0.25, of(T, B, 2)


@functools.cache
def learner(rule, dtype, coefficient):
    (params, carry, xs, _), (algorithm, options) = data(dtype), RULES[rule]
    given = {"params": params, "carry": carry, **options(coefficient)}
    return braintrace.compile(cell, algorithm, xs[0], **given)


def gradient(rule, dtype, window, coefficient=SLOW):
    params, carry, xs, ys = data(dtype)
    this, target = learner(rule, dtype, coefficient), {}
    if "osttp" in rule:
        target = {"y_target": ys}
    got, state, _ = this.etrace_grad(
        params,
        this.init(params, carry),
        xs,
        ys,
        loss_fn=lambda out, y: jnp.sum((out - y) ** 2, -1),
        window=window,
        **target,
    )
    assert {v.dtype for v in jax.tree.leaves((got, state.carry))} == {jnp.dtype(dtype)}
    assert all(v.dtype == jnp.float32 for v in jax.tree.leaves(state.traces))
    return {k: np.asarray(v, float) for k, v in got.items()}


def off(got, expected):
    return max(np.linalg.norm(got[k] - expected[k]) / np.linalg.norm(expected[k]) for k in expected)


@pytest.mark.parametrize("rule", RULES)
def test_every_window_gives_the_gradient_of_float32(rule, single_precision):
    expected = gradient(rule, jnp.float32, 1)
    for dtype, limit in LIMITS.items():
        found = {window: off(gradient(rule, dtype, window), expected) for window in (1, 3, None)}
        assert max(found.values()) < limit, (dtype, found)
    if rule in TELLING:  # control: a coefficient that is rounded
        rounded = gradient(rule, jnp.float32, 1, ONE)
        assert off(rounded, expected) > LIMITS[jnp.bfloat16]


@pytest.mark.parametrize("dtype", LIMITS)
def test_the_steps_of_update_and_bptt_add_up_too(dtype, single_precision):
    """A sum of 4,000 equal terms, which stops growing at 256 of them in bfloat16."""
    step = lambda p, h, x: ((h := 0.5 * h + x * p), h)
    p, h, xs = jnp.ones(1, dtype), jnp.zeros((1, 1), dtype), jnp.ones((4000, 1, 1), dtype)
    for algorithm, options in (("d_rtrl", {}), ("pp_prop", {"decay_or_rank": 0.5})):
        this = braintrace.compile(step, algorithm, xs[0], params=p, carry=h, **options)
        total = lambda p, this=this: jnp.mean(this.update_window(p, this.init(p, h), xs)[1])
        by_window = jax.grad(total)(p)
        by_grad = this.etrace_grad(p, this.init(p, h), xs, loss_fn=jnp.sum, window=1)[0]
        np.testing.assert_allclose(float(by_window[0]), float(by_grad[0]), rtol=0.01)
    reference, _ = bptt_gradient(step, p, h, xs, loss_fn=jnp.sum)
    assert reference.dtype == dtype and abs(float(reference[0]) - 2) < 0.02
    plain = jax.grad(lambda p: jnp.sum(jax.lax.scan(lambda h, x: step(p, h, x), h, xs)[1]) / 4000)
    assert dtype != jnp.bfloat16 or abs(float(plain(p)[0]) - 2) > 0.2  # control


def test_many_losses_in_float16_have_weights(single_precision):
    """Their number is infinite in float16, and each weight would be zero."""
    step = lambda p, h, x: ((h := 0.5 * h + x * p), h[:, 0])
    p, h = jnp.ones(1, jnp.float16), jnp.zeros((700, 1), jnp.float16)
    xs = jnp.ones((100, 700, 1), jnp.float16)
    this = braintrace.compile(step, "d_rtrl", xs[0], params=p, carry=h)
    got, _, _ = this.etrace_grad(p, this.init(p, h), xs, loss_fn=lambda out: 64 * out)
    assert abs(float(got[0]) / 64 - 2) < 0.05


@pytest.mark.parametrize("step", [kappa_step, leaky_step])
def test_filters_form_their_coefficients_wide(step):
    value, x = jnp.ones(2, jnp.bfloat16), jnp.zeros(2, jnp.bfloat16)
    np.testing.assert_allclose(step(value, x, SLOW), SLOW, rtol=1e-6)
    assert jnp.asarray(SLOW, jnp.bfloat16) == 1  # control


def test_helpers_hold_float32(single_precision):
    low_pass = braintrace.KappaFilter(jnp.ones(2, jnp.bfloat16), SLOW)
    total = braintrace.GradExpon(jnp.zeros(2, jnp.bfloat16), SLOW)
    for _ in range(3):
        low_pass.update(jnp.zeros(2, jnp.bfloat16))
        total.update(jnp.ones(2, jnp.bfloat16))
    np.testing.assert_allclose(low_pass.value, SLOW**3, rtol=1e-6)
    np.testing.assert_allclose(total.gradients.value, 1 + SLOW + SLOW**2, rtol=1e-6)
