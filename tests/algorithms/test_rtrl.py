"""RTRL beyond the matrix: what is carried without being a neuron's, and what samples share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn import sigmoid

import braintrace
from braintrace import checks
from braintrace.core import analysis
from zoo._interpret import once

from ._rules import SUM, apart, same, stepwise, windowed

I, N, T, B, DELAY = 2, 3, 8, 2, 18


def drawn(*shape, seed=0):
    return jnp.asarray(0.6 * np.random.default_rng([seed, *shape]).normal(size=shape))


PARAMS = {"a": drawn(N), "W": drawn(I, N), "U": drawn(N, N, seed=2), "o": drawn(N, 2)}
XS, YS = drawn(T, B, I), drawn(T, B, 2)


def delay_line(p, c, x):
    """A shift register that is too long to be cut in slots; its end comes around in the data."""
    h = sigmoid(p["a"]) * c["h"] + jnp.tanh(x @ p["W"] + c["past"][:, -2] @ p["U"])
    return {"h": h, "past": jnp.concatenate([c["past"][:, 1:], h[:, None]], 1)}, h @ p["o"]


def shared_state(p, c, x):
    """A state that all samples read, and that parameters move."""
    m = jnp.tanh(c["m"] @ p["U"] + p["a"])
    h = 0.5 * c["h"] + jnp.tanh(x @ p["W"] + m)
    return {"h": h, "m": m}, h @ p["o"]


def shared_input(p, h, x):
    """A weight that meets one input of all samples."""
    own, told = x
    drive = own @ p["W"] + h @ p["U"] + jnp.tanh(told @ p["W"])
    h = sigmoid(p["a"]) * h + jnp.tanh(drive)
    return h, h @ p["o"]


CELLS = {  # the cell, its carry, its inputs, and what is said of the batch
    "delay_line": (delay_line, {"h": drawn(B, N), "past": drawn(B, DELAY, N)}, XS, {}),
    "shared_state": (
        shared_state,
        {"h": drawn(B, N), "m": drawn(N)},
        XS,
        {"batch_axes": ({"h": 0, "m": None}, 0)},
    ),
    "shared_input": (shared_input, drawn(B, N), (XS, drawn(T, I)), {"batch_axes": (0, (0, None))}),
}


def learner(name, algorithm="rtrl"):
    cell, carry, xs, said = CELLS[name]
    first = jax.tree.map(lambda v: v[0], xs)
    return braintrace.compile(cell, algorithm, first, params=PARAMS, carry=carry, **said)


def truth(name):
    cell, carry, xs, _ = CELLS[name]
    return checks.bptt_gradient(cell, PARAMS, carry, xs, YS, **SUM)[0]


@pytest.mark.parametrize("name", CELLS)
def test_equals_bptt_and_says_so(name):
    this, given = learner(name), (PARAMS, *CELLS[name][1:3], YS)
    assert this.report.counts["exact"] == len(PARAMS)

    @once
    def every_way(*given):
        return [windowed(this, given, k) for k in (1, 3, None)] + [stepwise(this, given)]

    right = truth(name)
    for got in every_way(*given):
        same(got, right)


def test_control_the_delay_line_matters(monkeypatch):
    monkeypatch.setattr(analysis._layers, "_with_all_carried", lambda graph: graph)
    this, (_, carry, xs, _) = learner("delay_line"), CELLS["delay_line"]
    assert this.report.counts["exact"] == 1
    off = apart(windowed(this, (PARAMS, carry, xs, YS), 1), truth("delay_line"))
    assert min(off[k] for k in "aWU") > 1e-3, off


def test_control_a_state_that_samples_share_counts_once(monkeypatch):
    from braintrace.core.traces import _sensitivity, _within_layer

    monkeypatch.setattr(_within_layer, "layer_signal", _sensitivity.flat_layer)
    this, (_, carry, xs, _) = learner("shared_state"), CELLS["shared_state"]
    off = apart(windowed(this, (PARAMS, carry, xs, YS), 1), truth("shared_state"))
    assert off["U"] > 1e-3, off


def centred(p, h, x):
    y = x @ p["W"] + h @ p["U"]
    h = sigmoid(p["a"]) * h + jnp.tanh(y - y.mean(0))
    return h, h @ p["o"]


def test_samples_that_meet_are_one_sample_without_a_batch():
    given = PARAMS, drawn(B, N), XS, YS
    with pytest.raises(braintrace.CompilationError, match="batch=None"):
        braintrace.compile(centred, "rtrl", XS[0], params=PARAMS, carry=given[1])
    this = braintrace.compile(centred, "rtrl", XS[0], params=PARAMS, carry=given[1], batch=None)
    assert this.report.counts["exact"] == len(PARAMS)
    summed = SUM | {"loss_fn": lambda out, y: SUM["loss_fn"](out, y).sum()}
    right = checks.bptt_gradient(centred, *given, **summed)[0]
    for window in (1, 3):
        state = this.init(PARAMS, given[1])
        same(this.etrace_grad(PARAMS, state, XS, YS, window=window, **summed)[0], right)


@jax.custom_vjp
def clipped(v):
    return v


clipped.defvjp(lambda v: (v, None), lambda _, c: (jnp.clip(c, -0.1, 0.1),))


def test_a_derivative_that_is_not_linear_is_not_exact():
    def cell(p, h, x):
        h = sigmoid(p["a"]) * h + jnp.tanh(x @ p["W"] + clipped(h @ p["U"]))
        return h, h @ p["o"]

    this = braintrace.compile(cell, "rtrl", XS[0], params=PARAMS, carry=drawn(B, N))
    kinds = {row.path[2:-2]: str(row.exactness) for row in this.graph.parameters}
    assert kinds == {"a": "approximate", "W": "approximate", "U": "instantaneous", "o": "exact"}
