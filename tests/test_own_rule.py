"""A rule outside of the library, KeRNL of the examples: its gradient by hand, and the laws."""

import importlib
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import braintrace
from braintrace import checks

pytest.importorskip("optax")

EXAMPLES = Path(__file__).parents[1] / "examples"
I, N, O, T, B = 2, 3, 2, 6, 2
LEAK = 0.7


@pytest.fixture
def kernl(monkeypatch):
    """The script as a module, which registers its algorithm for a test."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield importlib.import_module("kernl")
    for name in ("kernl", "rflo", "_common"):
        sys.modules.pop(name)


def cell(p, h, x):
    h = LEAK * h + (1 - LEAK) * jnp.tanh(x @ p["w"] + h @ p["u"])
    return h, h @ p["o"]


def drawn():
    random = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(random.normal(size=shape))
    params = {"w": draw(I, N), "u": draw(N, N), "o": draw(N, O)}
    return params, draw(B, N), draw(T, B, I), draw(T, B, O)


def by_hand(params, h, xs, ys, decay, beta):
    """Traces that leak by `decay`, and the error through the readout and beta."""
    trace = {"w": np.zeros((B, I, N)), "u": np.zeros((B, N, N))}
    total = {k: np.zeros(v.shape) for k, v in params.items()}
    for x, y in zip(xs, ys, strict=True):
        f = (1 - LEAK) * (1 - jnp.tanh(x @ params["w"] + h @ params["u"]) ** 2)
        for k, data in (("w", x), ("u", h)):
            trace[k] = decay * trace[k] + data[:, :, None] * f[:, None, :]
        h, out = cell(params, h, x)
        error = 2 * (out - y)
        signal = error @ params["o"].T @ beta
        for k in "wu":
            total[k] += (signal[:, None, :] * trace[k]).sum(0)
        total["o"] += h.T @ error
    return total


def test_kernl_is_the_published_rule(kernl):
    random = np.random.default_rng(1)
    decay, beta = random.uniform(0.3, 0.9, N), random.normal(size=(N, N))
    params, h, xs, ys = drawn()
    rule = kernl.KeRNL(decays=[decay], kernels=[beta])
    learner = braintrace.compile(cell, rule, xs[0], params=params, carry=h)
    assert str(learner.graph.exactness("['u']")) == "approximate"
    loss = lambda out, y: ((out - y) ** 2).sum(-1)
    right = by_hand(params, h, xs, ys, decay, beta)
    for window in (1, 3):
        given = {"loss_fn": loss, "reduction": "sum", "window": window}
        found, *_ = learner.etrace_grad(params, learner.init(params, h), xs, ys, **given)
        for name in params:
            np.testing.assert_allclose(found[name], right[name], rtol=1e-10, err_msg=name)
    other = by_hand(params, h, xs, ys, decay, beta.T)
    assert np.linalg.norm(other["u"] - right["u"]) > 0.1 * np.linalg.norm(right["u"])  # control


def test_kernl_keeps_the_laws(kernl):
    beta = np.random.default_rng(2).normal(size=(N, N))
    options = {"decays": [np.full(N, 0.8)], "kernels": [beta]}
    report = checks.check_rule("kernl", ["two layers"], **options)
    assert report.ok and not report.refused


def test_the_kernel_is_that_of_the_network(kernl):
    """Of a network whose units leak and do nothing else, the leak and one."""
    n = kernl.WIDTH
    params = {"input": jnp.ones((1, n)), "recurrent": jnp.zeros((n, n)), "bias": jnp.zeros(n)}
    params["readout"] = jnp.zeros((n, 1))
    decay, beta = jax.jit(kernl.fitted)(params, jnp.zeros((1, n)), jnp.ones((25, 1, 1)))
    np.testing.assert_allclose(decay, kernl.LEAK, rtol=1e-6)
    np.testing.assert_allclose(beta, np.eye(n), atol=1e-6)
