"""Traces of constant dynamics are filtered inputs: the gradient is that of D-RTRL, at another
cost; where the dynamics are not proven constant the traces are those of D-RTRL.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import braintrace
from braintrace.core.traces import FactorCarrier, _filtered_input

T, B, I, N, O = 9, 3, 4, 6, 2
random = np.random.default_rng(3)
draw = lambda *shape: jnp.asarray(random.normal(size=shape))
PARAMS = {
    "W1": draw(I, N),
    "W2": draw(N, N),
    "o": draw(N, O),
    "u": draw(N, N) / 3,
    "b": draw(N),
    "tau": jnp.asarray(0.5),
    "taus": jnp.linspace(0.3, 0.9, N),
}
XS, YS = draw(T, B, I), draw(T, B, O)
RESET = jnp.asarray(random.random((T, B)) < 0.2)
MASK = jnp.asarray(random.random((T, B)) < 0.8, float)
loss = lambda out, y: ((out - y) ** 2).mean(-1)
rate = lambda v: jnp.tanh(2 * v)
stop = jax.lax.stop_gradient


def stack(
    leak=lambda p: 0.9,
    gain=lambda p: 0.5,
    more=lambda p, v, y: 0.0,
    seen=lambda v, y: v,
    delay=False,
):
    """Two layers of leaky integrators; what may differ from it."""

    def cell(p, carry, x):
        z, new = x, []
        for k, v in enumerate(carry, 1):
            y, old = z @ p[f"W{k}"], v
            v = leak(p) * v - stop(1.0 * (v > 1)) + gain(p) * y + more(p, v, y)
            z = rate(old if delay else seen(v, y))
            new.append(v)
        return tuple(new), z @ p["o"]

    return cell


CARRY = (0.1 * draw(B, N), 0.1 * draw(B, N))


def compiled(cell, algorithm="ostl_feedforward", carry=CARRY):
    return braintrace.compile(cell, algorithm, XS[0], params=PARAMS, carry=carry)


def is_filtered(learner):
    return isinstance(learner.rule.carrier, FactorCarrier)


def difference(a, b):
    """The largest, of the largest element of each leaf."""
    a, b = (jax.tree.leaves(v) for v in (a, b))
    pairs = zip(a, b, strict=True)
    return max(float(jnp.abs(x - y).max() / max(jnp.abs(y).max(), 1e-9)) for x, y in pairs)


def integrator(p, h, x):
    """One layer, no output of its own."""
    h = h - 0.25 * (h - x @ p["W1"])
    return h, h @ p["o"]


def images(p, h, x):
    """A convolution, and a state with the shape of an image."""
    image = x.reshape(B, 1, 2, 2)
    y = jax.lax.conv_general_dilated(image, p["W1"].reshape(N, 1, 2, 2), (1, 1), "SAME")
    h = 0.8 * h + 2 * y
    return h, jnp.tanh(h).sum((2, 3)) @ p["o"]


CELLS = {
    "stack": (stack(), CARRY),
    "integrator": (integrator, CARRY[0]),
    # the path through recurrent weights is left out by both
    "recurrent": (stack(more=lambda p, v, y: rate(v) @ p["u"]), CARRY),
    "images": (images, jnp.zeros((B, N, 2, 2))),
}


@pytest.mark.parametrize("name", CELLS)
def test_the_gradient_is_that_of_d_rtrl(name):
    cell, carry = CELLS[name]
    filtered, plain = (compiled(cell, a, carry) for a in ("ostl_feedforward", "d_rtrl"))
    assert is_filtered(filtered) and not is_filtered(plain)
    for row, other in zip(filtered.graph.parameters, plain.graph.parameters, strict=True):
        assert (row.exactness, row.reason) == (other.exactness, other.reason)
    starts = [
        learner.etrace_evolve(PARAMS, learner.init(PARAMS, carry), XS)[0]  # traces are not zero
        for learner in (filtered, plain)
    ]
    size = lambda state: sum(v.size for v in jax.tree.leaves(state.traces))
    assert size(starts[0]) < size(starts[1])
    for window in (1, 3, None):
        for options in ({}, {"reset": RESET, "mask": MASK}):
            given = {"loss_fn": loss, "window": window, **options}
            (a, *_), (b, *_) = (
                learner.etrace_grad(PARAMS, start, XS, YS, **given)
                for learner, start in zip((filtered, plain), starts, strict=True)
            )
            assert difference(a, b) < 1e-12
    zero = filtered.init(PARAMS, starts[0].carry)  # control: the traces are in it
    assert difference(filtered.etrace_grad(PARAMS, zero, XS, YS, **given)[0], a) > 1e-3


@pytest.mark.parametrize("full", [None, False, True])
def test_so_it_is_step_by_step_and_in_windows_of_outputs(full):
    learners = [compiled(stack(), a) for a in ("ostl_feedforward", "d_rtrl")]
    found = []
    for learner in learners:
        state = learner.etrace_evolve(PARAMS, learner.init(PARAMS, CARRY), XS)[0]

        def value(params, learner=learner, state=state):
            if full is None:
                state, out = learner.update(params, state, XS[0])
                return loss(out, YS[0]).sum()
            out = learner.update_window(params, state, XS, full=full)[1]
            return jax.vmap(loss)(out, YS).sum()

        found.append(jax.grad(value)(PARAMS))
    assert difference(*found) < 1e-12


def test_one_layer_is_that_of_bptt():
    learner = compiled(integrator, carry=CARRY[0])
    state = learner.init(PARAMS, CARRY[0])
    report = learner.check_gradients(PARAMS, state, XS, YS, loss_fn=loss, windows=(1, 3))
    assert report.ok and learner.report.counts["exact"] == 2, report


@pytest.mark.parametrize("at", ["leaks", "gains"])
def test_another_number_is_another_gradient(at, monkeypatch):
    real = _filtered_input.constant_dynamics

    def wrong(graph):
        leaks, gains = real(graph)
        off = lambda values: tuple(1.1 * v for v in values)
        return (off(leaks), gains) if at == "leaks" else (leaks, off(gains))

    monkeypatch.setattr(_filtered_input, "constant_dynamics", wrong)
    with pytest.raises(AssertionError):
        test_so_it_is_step_by_step_and_in_windows_of_outputs(True)


OTHERS = {
    "a leak of each neuron": stack(leak=lambda p: jnp.linspace(0.5, 0.9, N)),
    "a learnable leak": stack(leak=lambda p: jax.nn.sigmoid(p["tau"])),
    "learnable leaks": stack(leak=lambda p: p["taus"]),
    "a learnable gain": stack(gain=lambda p: p["tau"]),
    "a reset that is not detached": stack(more=lambda p, v, y: -rate(v)),
    "a slope": stack(more=lambda p, v, y: jnp.tanh(y)),
    "an output that reads the drive itself": stack(seen=lambda v, y: v + y),
    "an old state that the next layer reads": stack(delay=True),
    "a bias": stack(more=lambda p, v, y: p["b"]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_others_keep_their_traces(name):
    learner, plain = (compiled(OTHERS[name], a) for a in ("ostl_feedforward", "d_rtrl"))
    assert not is_filtered(learner)
    a, b = (
        L.etrace_grad(PARAMS, L.init(PARAMS, CARRY), XS, YS, loss_fn=loss, window=3)[0]
        for L in (learner, plain)
    )
    assert difference(a, b) < 1e-12


@pytest.mark.parametrize("name", ["a leak of each neuron", "an output that reads the drive itself"])
def test_taken_for_constant_they_would_be_wrong(name, monkeypatch):
    """The proof is what keeps them right."""
    constant = lambda graph: ((0.9, 0.9, 0.0), (0.5, 0.5, 0.0))
    plain = compiled(OTHERS[name], "d_rtrl")
    sites = len(plain.graph.sites)
    monkeypatch.setattr(
        _filtered_input, "constant_dynamics", lambda g: tuple(v[:sites] for v in constant(g))
    )
    learner = compiled(OTHERS[name])
    a, b = (
        L.etrace_grad(PARAMS, L.init(PARAMS, CARRY), XS, YS, loss_fn=loss, window=3)[0]
        for L in (learner, plain)
    )
    assert difference(a["W1"], b["W1"]) > 1e-3
