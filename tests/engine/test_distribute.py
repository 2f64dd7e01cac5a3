"""Scans as loops and maps: the numbers of `lax.scan`, and products out of loops that do not need
them.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import braintrace
from braintrace.core._compat import sub_jaxprs
from braintrace.core.engine import _mapped
from braintrace.core.jaxpr import DistributedScan
from zoo import CASES as ZOO
from zoo import loss

from ._door import data

T, B, N = 7, 2, 3
W = np.random.default_rng(0).normal(size=(2, N, N))


def layers(carry, x):
    v, u = carry
    v = 0.9 * v + x @ W[0]
    u = 0.8 * u + jnp.tanh(v) @ W[1] - 0.1 * jnp.sin(u)
    return (v, u), (v @ W[0], u)


def recurrent(carry, x):
    h = jnp.tanh(carry @ W[0] + x @ W[1])
    return h, h


def delayed(carry, x):
    """A leaf that is a product with the input before, one that is that leaf before, and one that
    feeds on the second.
    """
    last, older, sums = carry
    return (x @ W[0], last, 0.5 * sums + older @ W[1]), (last, older, sums + 1)


def swapped(carry, x):
    a, b = carry
    return (b, a), a + x


def kept(carry, x):
    """A leaf that stays, one that becomes a constant, and a counter."""
    constant, other, count = carry
    return (constant, jnp.ones((B, N)), count + 1), constant * x + other + count


CARRIES = {layers: 2, recurrent: 1, delayed: 3, swapped: 2, kept: 2}


def given(function):
    leaves = [k * jnp.ones((B, N)) for k in range(1, 1 + CARRIES[function])]
    carry = (
        leaves[0]
        if function is recurrent
        else (*leaves, jnp.int32(0))
        if function is kept
        else tuple(leaves)
    )
    return carry, jnp.asarray(np.random.default_rng(1).normal(size=(T, B, N)))


@pytest.mark.parametrize("function", CARRIES)
def test_it_is_the_scan(function):
    carry, xs = given(function)
    found = jax.jit(lambda c, xs: DistributedScan(function, c, xs)(c, xs))(carry, xs)
    expected = jax.lax.scan(function, carry, xs)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def products_in_loops(function, carry, xs):
    program = jax.make_jaxpr(function)(carry, xs).jaxpr
    loops = [
        p.jaxpr for e in program.eqns if e.primitive.name == "scan" for p in sub_jaxprs(e.params)
    ]
    return sum(e.primitive.name == "dot_general" for loop in loops for e in loop.eqns)


@pytest.mark.parametrize(("function", "count"), [(layers, 0), (recurrent, 1), (delayed, 0)])
def test_products_are_in_loops_only_where_they_feed_back(function, count):
    carry, xs = given(function)
    assert (
        products_in_loops(lambda c, xs: DistributedScan(function, c, xs)(c, xs), carry, xs) == count
    )
    assert (
        products_in_loops(lambda c, xs: jax.lax.scan(function, c, xs), carry, xs) > count
    )  # control
    assert DistributedScan(function, carry, xs).feeds_back_at_a_cost == (count > 0)


def gradient(name, rule, options, loss_fn=loss):
    params, carry, xs, ys = data(name)
    learner = braintrace.compile(ZOO[name].cell, rule, xs[0], params=params, carry=carry, **options)
    return learner.etrace_grad(
        params, learner.init(params, carry), xs, ys, loss_fn=loss_fn, window=3
    )


def assert_equal(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["gru_reset_after", "alif", "lstm"])
@pytest.mark.parametrize(
    ("rule", "options"), [("pp_prop", {"decay_or_rank": 0.8}), ("ottt", {"leak": 0.7})]
)
def test_mapped_windows_and_windows_step_by_step_agree(name, rule, options, monkeypatch):
    """Small cells are mapped; wide recurrent ones go step by step."""
    mapped, calls, original = [], [], _mapped.mapped_gradient
    monkeypatch.setattr(_mapped, "mapped_gradient", lambda *at: calls.append(1) or original(*at))
    mapped = gradient(name, rule, options)
    assert calls
    calls.clear()
    monkeypatch.setattr(_mapped, "_WIDEST", 0)
    assert_equal(gradient(name, rule, options), mapped)
    assert not calls


def test_a_loss_with_effects_is_evaluated_once_a_step():
    seen = []

    def noisy(out, y):
        jax.debug.callback(lambda v: seen.append(float(v)), out.sum())
        return loss(out, y)

    found = gradient("alif", "pp_prop", {"decay_or_rank": 0.8}, noisy)
    jax.effects_barrier()
    assert len(seen) == data("alif")[2].shape[0]
    assert_equal(found, gradient("alif", "pp_prop", {"decay_or_rank": 0.8}))
