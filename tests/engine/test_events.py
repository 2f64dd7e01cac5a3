"""The gradient of a sparse weight follows the events: what is not zero in its data is what a window
sums over.
"""

import dataclasses

import brainevent
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import braintrace
from braintrace import rules
from braintrace.core.kernels import _pairs, paired
from braintrace.core.sites import _sparse

N, B, T = 12, 2, 7
RANDOM = np.random.default_rng(3)
MASK = RANDOM.random((N, N)) < 0.4
CSR = brainevent.CSR.fromdense(jnp.asarray(MASK, float))
PARAMS = jnp.asarray(RANDOM.normal(size=CSR.nse))
XS = jnp.asarray(RANDOM.normal(size=(T, B, N)) + 0.7)
YS = jnp.asarray(RANDOM.normal(size=(T, B, N)))
RESET = jnp.zeros((T, B), bool).at[jnp.array([2, 3, 5]), jnp.array([0, 1, 1])].set(True)
LOSS = lambda out, y: ((out - y) ** 2).sum()


@dataclasses.dataclass(frozen=True)
class Scaled(rules.Algorithm):
    """A leaky sum that meets the signal with a gain."""

    name = "Scaled"

    def parts(self):
        return rules.Rule("scaled", rules.Presynaptic((0.7,), gain=0.6))


RULES = {"pp_prop": {"decay_or_rank": (0.8, 0.6)}, "ottt": {"leak": 0.7}, Scaled: {}, "d_rtrl": {}}


@jax.custom_jvp
def spike(v):
    return (v > 0).astype(v.dtype)


@spike.defjvp
def _slope(primals, tangents):
    return spike(*primals), tangents[0] / (1 + jnp.abs(primals[0])) ** 2


def stored(w, z):
    return brainevent.BinaryArray(z) @ CSR.with_data(w)


def dense(w, z):
    return z @ jnp.zeros((N, N)).at[np.nonzero(MASK)].set(w)


def cell(product):
    def step(w, v, x):
        z = spike(v - 1)
        v = 0.7 * v - jax.lax.stop_gradient(z) + x + product(w, z)
        return v, jnp.tanh(v)

    return step


def gradient(rule, product, **options):
    learner = braintrace.compile(
        cell(product),
        rule,
        XS[0],
        params=PARAMS,
        carry=jnp.zeros((B, N)),
        batch_size=B,
        **RULES[rule],
    )
    state = learner.init(PARAMS, jnp.zeros((B, N)))
    return learner.etrace_grad(PARAMS, state, XS, YS, loss_fn=LOSS, **options)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("reset", [None, RESET], ids=["", "reset"])
def test_a_stored_weight_has_the_gradient_of_the_dense_one(rule, reset):
    wanted, end, *_ = gradient(rule, dense, window=1, reset=reset)
    for window in (1, 3, None):
        got, state, *_ = gradient(rule, stored, window=window, reset=reset)
        np.testing.assert_allclose(got, wanted, atol=1e-10)
        np.testing.assert_allclose(state.carry, end.carry, atol=1e-10)


@pytest.mark.parametrize("rule", ["pp_prop", "ottt"])
def test_a_reset_that_is_not_heeded_shows(rule, monkeypatch):
    """Control of the test above."""
    from braintrace.core.traces import _events

    monkeypatch.setattr(_events, "cleared", lambda axis, values, marks: values)
    got, wanted = (gradient(rule, p, window=3, reset=RESET)[0] for p in (stored, dense))
    assert np.abs(got - wanted).max() > 1e-3


@pytest.mark.parametrize("rule", ["pp_prop", "ottt", "d_rtrl"])
def test_windows_sum_over_events(rule, monkeypatch):
    """What meets the cotangents of a window is spikes, but for the sum of what was before."""
    seen = []

    def recorded(out, into, x, c):
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), x)
        return paired(out, into, x, c)

    monkeypatch.setattr(_sparse, "paired", recorded)
    gradient(rule, stored, window=T)
    jax.effects_barrier()
    first = 0 if rule == "d_rtrl" else B  # rows of the step that has the sum
    spikes = [set(np.unique(x.reshape(-1, N)[first:])) <= {0, 1} for x in seen]
    assert seen and all(spikes)
    assert any((x == 0).mean() > 0.3 for x in seen)


def test_no_array_has_steps_and_stored_elements():
    """A window of a sparse weight takes no memory for each stored element and step."""
    steps = 5
    learner = braintrace.compile(
        cell(stored), "d_rtrl", XS[0], params=PARAMS, carry=jnp.zeros((B, N))
    )
    state = learner.init(PARAMS, jnp.zeros((B, N)))
    run = jax.jit(lambda *a: learner.etrace_grad(*a, loss_fn=LOSS, window=steps))
    text = run.lower(PARAMS, state, XS[:steps], YS[:steps]).compile().as_text()
    assert f"[{CSR.nse}" in text and f"[{steps},{CSR.nse}" not in text


def pairs(ordered, outside, dtype, elements=300):
    into, out = RANDOM.integers(0, N, elements), RANDOM.integers(0, N + 2, elements)
    into = np.sort(into) if ordered else into
    if outside:
        into[-2:], out[3] = N, -1
    else:
        out = np.minimum(out, N - 1)
    x = jnp.asarray(RANDOM.normal(size=(T, N)) * (RANDOM.random((T, N)) < 0.4), dtype)
    c = jnp.asarray(RANDOM.normal(size=(T, N)), dtype)
    return jnp.asarray(out, np.int32), jnp.asarray(into, np.int32), x, c


def by_hand(out, into, x, c):
    out, into, x, c = map(np.asarray, (out, into, x, c))
    inside = (out >= 0) & (out < N) & (into < N)
    o, i = np.where(inside, out, 0), np.where(inside, into, 0)
    return np.where(inside, (x[:, i] * c[:, o]).sum(0), 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, jnp.bfloat16])
@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("ordered", [False, True])
def test_sums_of_pairs(ordered, outside, dtype):
    given = pairs(ordered, outside, dtype)
    atol = {2: 0.1, 4: 1e-5, 8: 1e-12}[np.dtype(dtype).itemsize]
    wanted = by_hand(*given)
    for found in (paired(*given), jax.jit(paired)(*given), _pairs.in_jax(*given)):
        np.testing.assert_allclose(found.astype(float), wanted, atol=atol)
    assert np.abs(by_hand(given[1], given[0], *given[2:]) - wanted).max() > 1  # control


def test_large_sums_of_pairs_are_shared_out():
    given = pairs(True, False, np.float32, 700_000)
    np.testing.assert_allclose(paired(*given), by_hand(*given), atol=1e-4)


def test_what_does_not_count_is_not_read():
    out, into, x, c = pairs(True, False, np.float64)
    silent = x.at[2].set(0)
    spoilt = c.at[2].set(np.nan)
    np.testing.assert_allclose(
        paired(out, into, silent, spoilt), by_hand(out, into, silent, c), atol=1e-12
    )
    assert np.isnan(paired(out, into, x, spoilt)).any()  # control


def test_sums_of_pairs_under_transformations():
    out, into, x, c = pairs(True, True, np.float64)
    for f in (paired, _pairs.in_jax):
        total = lambda x, c, f=f: (f(out, into, x, c) ** 2).sum()
        of_x, of_c = jax.grad(total, (0, 1))(x, c)
        got = jax.vmap(f, (None, None, 0, None))(out, into, jnp.stack([x, 2 * x]), c)
        np.testing.assert_allclose(got[1], 2 * by_hand(out, into, x, c), atol=1e-12)
    step = 1e-6
    moved = (total(x, c.at[1, 2].add(step)) - total(x, c.at[1, 2].add(-step))) / (2 * step)
    np.testing.assert_allclose(of_c[1, 2], moved, rtol=1e-5)
    moved = (total(x.at[3, 4].add(step), c) - total(x.at[3, 4].add(-step), c)) / (2 * step)
    np.testing.assert_allclose(of_x[3, 4], moved, rtol=1e-5)
