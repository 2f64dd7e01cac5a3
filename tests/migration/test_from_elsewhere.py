"""From snnTorch, SpikingJelly and BPTT by hand: their forms in plain JAX beside those of here."""

import re
from types import SimpleNamespace

import brainstate
import jax
import jax.numpy as jnp
import optax
import pytest

import braintrace
from peer_programs.reference import bptt
from zoo._interpret import run_once

from .minimal import distance, spike, stopped, surrogate
from .page import DOCS, Rows

row = Rows("From snnTorch or SpikingJelly")
BLOCKS = re.findall(r"```python\n(.*?)```", (DOCS / "migration.md").read_text(), re.DOTALL)


def names_of(code: str) -> SimpleNamespace:
    names: dict = {}
    exec(compile(code, "migration.md", "exec"), names)
    return SimpleNamespace(**names)


@pytest.fixture(scope="module")
def page():
    """The network of the page, shortened, and its learner."""
    page = names_of(BLOCKS[0].split("learner =")[0])
    page.xs, page.labels = page.xs[:6, :2], page.labels[:6, :2]
    page.carry = jax.tree.map(lambda v: v[:2], page.carry)
    page.learner = compiled(page, "otpe", leak=0.9)
    return page


def compiled(page, algorithm, **options):
    return braintrace.compile(
        page.network, algorithm, page.xs[0], params=page.params, carry=page.carry, **options
    )


def gradient(page, learner, xs, labels, **options):
    """In windows of 3: the end of one is the start of the next."""
    state = learner.init(page.params, page.carry)
    return learner.etrace_grad(
        page.params, state, xs, labels, loss_fn=page.loss, reduction="sum", window=3, **options
    )[0]


def backward(page, xs, labels, carry=None, detach=None):
    """`for t in range(T)`, and `loss.backward()`; with detach=k the carry is cut every k steps."""

    def total(params):
        now, loss = page.carry if carry is None else carry, 0.0
        for t, (x, label) in enumerate(zip(xs, labels, strict=True)):
            if detach and t % detach == 0:
                now = stopped(now)
            now, out = page.network(params, now, x)
            loss = loss + jnp.sum(page.loss(out, label))
        return loss

    return run_once(jax.grad(total), page.params)


def same(found, expected):
    assert all(distance(found[name], expected[name]) < 1e-10 for name in expected), found


def test_every_row_has_a_test():
    row.check()


@pytest.mark.parametrize("first", row.page)
def test_row(first, page):
    row.tests[first](page)


@row("`reset_net(net)`, `init_leaky()` before a sequence")
def resets(page):
    """A second sequence begins at the third step of the first sample."""
    reset = jnp.zeros(page.xs.shape[:2], bool).at[2, 0].set(True)
    found = gradient(page, page.learner, page.xs, page.labels, reset=reset)
    one = lambda sample, steps: backward(
        page,
        page.xs[steps, sample : sample + 1],
        page.labels[steps, sample : sample + 1],
        jax.tree.map(lambda v: v[sample : sample + 1], page.carry),
    )
    pieces = one(0, slice(0, 2)), one(0, slice(2, None)), one(1, slice(None))
    same(found, jax.tree.map(lambda *v: sum(v), *pieces))


@row("`for t in range(T): spk, mem = net(x[t], mem)` and `loss.backward()`")
def one_call(page):
    expected = backward(page, page.xs, page.labels)
    same(gradient(page, page.learner, page.xs, page.labels), expected)
    long, longer = (page.learner.memory_plan(steps) for steps in (1000, 10_000))
    assert longer.total == long.total and longer.bptt > 9 * long.bptt
    rtrl = compiled(page, "d_rtrl")
    assert "cross-layer" in str(rtrl.report)
    found = gradient(page, rtrl, page.xs, page.labels)
    assert distance(found["fc2"], expected["fc2"]) < 1e-10
    assert jnp.linalg.norm(found["fc1"]) < 0.9 * jnp.linalg.norm(expected["fc1"])


@row("truncated BPTT, `mem.detach()` every k steps")
def truncated(page):
    whole = backward(page, page.xs, page.labels)
    assert distance(backward(page, page.xs, page.labels, detach=2)["fc1"], whole["fc1"]) > 0.05
    same(gradient(page, page.learner, page.xs, page.labels), whole)  # in windows, like the cut one


def memoryless(surrogate_spike):
    def network(params, v, x):
        v = 0.9 * (v - stopped(surrogate_spike(v - 1.0))) + x @ params["fc1"]
        return v, surrogate_spike(v - 1.0) @ params["fc2"]

    return network


@row("online learning (OTTT) in SpikingJelly's `step_mode='s'` loop")
def online(page):
    """An update at every step, with the trace of the inputs written out."""
    network, v, rate = memoryless(spike), page.carry[0], 0.1
    params, trace = page.params, jnp.zeros_like(page.xs[0])
    total = lambda out, label: jnp.sum(page.loss(out, label))
    for x, label in zip(page.xs, page.labels, strict=True):
        v, out = network(params, v, x)
        trace = 0.9 * trace + x
        error = jax.grad(total)(out, label)
        signal = error @ params["fc2"].T * surrogate(v - 1.0)
        gradients = {"fc1": trace.T @ signal, "fc2": spike(v - 1.0).T @ error}
        params = jax.tree.map(lambda w, g: w - rate * g, params, gradients)
    learner = braintrace.compile(
        network, "ottt", page.xs[0], params=page.params, carry=page.carry[0], leak=0.9
    )
    optimizer = optax.sgd(rate)
    found, *_ = learner.etrace_fit(
        page.params,
        optimizer.init(page.params),
        learner.init(page.params, page.carry[0]),
        page.xs,
        page.labels,
        loss_fn=page.loss,
        optimizer=optimizer,
        mode="O",
        reduction="sum",
    )
    same(found, params)
    assert distance(found["fc1"], page.params["fc1"]) > 1e-3


@row("surrogate gradients")
def surrogates(page):
    """The page's is a `custom_vjp`; a `custom_jvp` and one of braintools give BPTT's gradient."""
    braintools = pytest.importorskip("braintools")

    @jax.custom_jvp
    def other(v):
        return page.spike(v)

    other.defjvp(lambda p, t: (page.spike(*p), t[0] / (1 + 10 * jnp.abs(p[0])) ** 2))
    here, there = (
        SimpleNamespace(**vars(page) | {"network": memoryless(f), "carry": page.carry[0]})
        for f in (other, page.spike)
    )
    found = gradient(here, compiled(here, "d_rtrl"), page.xs, page.labels)
    same(found, backward(there, page.xs, page.labels))
    relu = braintools.surrogate.ReluGrad()

    class Spiking(brainstate.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = brainstate.ParamState(page.params["fc1"])
            self.v = brainstate.HiddenState(page.carry[0])

        def update(self, x):
            self.v.value = 0.9 * self.v.value + x @ self.w.value
            return relu(self.v.value - 1.0)

    model = Spiking()
    learner = braintrace.D_RTRL(model).compile_graph(page.xs[0])
    expected = bptt(model, lambda x: jnp.sum(model(x)), page.xs)["w",]
    step_fn = lambda x: jnp.sum(learner(x))
    found = learner.etrace_grad(page.xs, step_fn=step_fn, reduction="sum", window=3)["w",]
    assert distance(found, expected) < 1e-10 and jnp.linalg.norm(found) > 0.1


# From BPTT by hand
# ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scan():
    """The cell of the page and short data; without the learner."""
    names = names_of(
        BLOCKS[0].split("def network")[0]
        + "keys = [jax.random.key(0)]\n"
        + BLOCKS[1].split("expected =")[0]
    )
    names.xs, names.ys = names.xs[:5, :2], names.xs[:5, :2, :2]
    names.h, names.params = names.h[:2], names.params | {"W": names.xs[0, 0][:, None] * jnp.ones(8)}
    return names


def of_cell(scan, cell, params, carry, algorithm="d_rtrl", loss=None, **options):
    learner = braintrace.compile(cell, algorithm, scan.xs[0], params=params, carry=carry)
    state = learner.init(params, carry)
    loss = loss or (lambda out, y: jnp.mean((out - y) ** 2, -1))
    return learner, learner.etrace_grad(
        params, state, scan.xs, scan.ys, loss_fn=loss, window=3, **options
    )[0]


def test_a_mask_weighs_the_steps(scan):
    mask = jnp.array([0.0, 1.0, 0.5, 0.0, 2.0])

    def by_hand(params):
        _, outs = jax.lax.scan(lambda h, x: scan.cell(params, h, x), scan.h, scan.xs)
        return jnp.sum(mask * jnp.mean((outs - scan.ys) ** 2, (1, 2))) / jnp.sum(mask)

    loss = lambda out, y: jnp.mean((out - y) ** 2)
    _, found = of_cell(scan, scan.cell, scan.params, scan.h, loss=loss, mask=mask)
    same(found, run_once(jax.grad(by_hand), scan.params))


def test_a_loss_of_the_whole_sequence_is_carried(scan):
    """That of the mean of the outputs: the cell carries a mean, and the last step counts."""
    steps, start = len(scan.xs), jnp.zeros_like

    def by_hand(params):
        _, outs = jax.lax.scan(lambda h, x: scan.cell(params, h, x), scan.h, scan.xs)
        return jnp.sum((jnp.mean(outs, 0) - scan.ys[-1]) ** 2)

    def of_the_neurons(params, carry, x):
        h, _ = scan.cell(params, carry["h"], x)
        mean = carry["mean"] + h / steps
        return {"h": h, "mean": mean}, mean @ params["readout"]

    def of_the_outputs(params, carry, x):
        h, out = scan.cell(params, carry["h"], x)
        mean = carry["mean"] + out / steps
        return {"h": h, "mean": mean}, mean

    options = {
        "loss": lambda out, y: jnp.sum((out - y) ** 2),
        "mask": start(scan.xs[:, 0, 0]).at[-1].set(1.0),
    }
    expected = run_once(jax.grad(by_hand), scan.params)
    carry = {"h": scan.h, "mean": start(scan.h)}
    learner, found = of_cell(scan, of_the_neurons, scan.params, carry, **options)
    same(found, expected)
    carry = {"h": scan.h, "mean": start(scan.ys[0])}
    learner, found = of_cell(scan, of_the_outputs, scan.params, carry, **options)
    assert "cross-layer" in str(learner.report) and distance(found["W"], expected["W"]) > 0.1


def test_recurrent_weights_are_approximate_or_kept_for_one_layer(scan):
    def cell(params, h, x):
        h = jnp.tanh(x @ params["W"] + h @ params["U"])
        return h, h @ params["readout"]

    params = scan.params | {"U": 0.3 * jax.random.normal(jax.random.key(1), (8, 8))}

    def by_hand(params):
        _, outs = jax.lax.scan(lambda h, x: cell(params, h, x), scan.h, scan.xs)
        return jnp.mean((outs - scan.ys) ** 2)

    expected = run_once(jax.grad(by_hand), params)
    learner, found = of_cell(scan, cell, params, scan.h)
    assert str(learner.graph.exactness("['U']")) == "approximate"
    assert "recurrent" in str(learner.report) and distance(found["U"], expected["U"]) > 0.01
    learner, found = of_cell(scan, cell, params, scan.h, "ostl_recurrent")
    assert str(learner.graph.exactness("['U']")) == "exact"
    same(found, expected)
    assert learner.memory_plan(10).traces > 4 * params["U"].nbytes  # its cost
