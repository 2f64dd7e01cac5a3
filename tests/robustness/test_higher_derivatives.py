"""Derivatives of what a learner returns are right, or they are refused; they are never silently
zero.
"""

import brainstate
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import braintrace
from braintrace import UsageError
from braintrace.core.engine import _link, _online
from braintrace.learner import _objective

T, B, I, N = 5, 2, 3, 4
ALGORITHMS = {"d_rtrl": {}, "pp_prop": {"decay_or_rank": 0.5}, "ostl_recurrent": {}, "eprop": {}}
WINDOWS = 1, 3, None


def cell(params, h, x):
    h = 0.9 * h + jnp.tanh(x @ params["W"] + params["s"] * h)
    return h, jnp.tanh(h @ params["out"])


def loss(out, scale=1.0):
    return jnp.mean(jnp.tanh(scale * out) ** 2, -1)


class Problem:
    """A learner with data."""

    def __init__(self, algorithm):
        keys = jax.random.split(jax.random.key(0), 6)
        normal = lambda k, *shape: jax.random.normal(keys[k], shape)
        self.params = {"W": normal(0, I, N), "s": normal(1, N), "out": normal(2, N, 2)}
        self.h, self.xs = normal(3, B, N), normal(4, T, B, I)
        options = ALGORITHMS[algorithm]
        self.learner = braintrace.compile(
            cell, algorithm, self.xs[0], params=self.params, carry=self.h, **options
        )
        self.state = self.learner.init(self.params, self.h)
        self.tangent = jax.tree.map(jnp.ones_like, self.params)

    def sequence(self, window=None, loss_fn=loss, **given):
        values = {"params": self.params, "h": self.h, "xs": self.xs, "mask": None} | given
        return self.learner.etrace_grad(
            values["params"],
            self.learner.init(values["params"], values["h"]),
            values["xs"],
            loss_fn=loss_fn,
            mask=values["mask"],
            window=window,
        )

    def of_step(self, params, x=None, scale=1.0):
        out = self.learner.update(params, self.state, self.xs[0] if x is None else x)[1]
        return loss(out, scale).mean()

    def of_window(self, params):
        return loss(self.learner.update_window(params, self.state, self.xs)[1]).mean()

    def of_scan(self, params):
        def step(state, x):
            state, out = self.learner.update(params, state, x)
            return state, loss(out).mean()

        return jax.lax.scan(step, self.state, self.xs)[1].sum()


@pytest.fixture(scope="module")
def problems(double_precision):
    return {name: Problem(name) for name in ALGORITHMS}


def size(tree):
    return sum(jnp.sum(v**2) for v in jax.tree.leaves(tree))


RESULTS = {
    "losses": lambda got: got[2].losses.mean(),
    "gradients": lambda got: size(got[0]),
    "carry": lambda got: size(got[1].carry),
}
REFUSED = {"params": "params", "h": "the state", "xs": "the sequences", "mask": "the mask"}


def refused(function, *texts):
    with pytest.raises(UsageError) as caught:
        function()
    for text in ("got:", "expected:", "do:", *texts):
        assert text in str(caught.value)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_a_sequence_returns_is_not_differentiated(problems, algorithm, window):
    this = problems[algorithm]
    at = {"params": this.params, "h": this.h, "xs": this.xs, "mask": jnp.ones((T, B))}
    for result in RESULTS.values():
        for name, text in REFUSED.items():

            def value(v, name=name, result=result):
                return result(this.sequence(window, **{name: v}))

            refused(lambda value=value, name=name: jax.grad(value)(at[name]), text)
    forward = lambda p: this.sequence(window, params=p)[2].losses
    refused(lambda: jax.jvp(forward, (this.params,), (this.tangent,)), "params")
    refused(lambda: jax.jit(jax.jacfwd(forward))(this.params), "params")
    scanned = lambda p: jax.lax.scan(lambda c, _: (c, forward(p)), 0, None, 2)[1].sum()
    refused(lambda: jax.grad(scanned)(this.params), "params")


@pytest.mark.parametrize("window", [1, None])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_hyperparameters_of_a_loss_have_their_derivative(problems, algorithm, window):
    """That of a program whose traces do not depend on them: against differences."""
    this = problems[algorithm]

    def results(scale):
        got = this.sequence(window, lambda out: loss(out, scale))
        return {name: result(got) for name, result in RESULTS.items()}

    found, step = jax.jit(jax.jacrev(results))(1.3), 1e-5
    many = jax.jit(jax.vmap(results))(jnp.array([1.3 + step, 1.3 - step]))
    for name, value in found.items():
        difference = (many[name][0] - many[name][1]) / (2 * step)
        np.testing.assert_allclose(value, difference, rtol=1e-7, atol=1e-9)
    assert abs(found["losses"]) > 1e-3
    assert abs(found["gradients"]) > 1e-3


@pytest.mark.parametrize("window", [1, None])
def test_without_the_refusal_the_derivative_is_wrong(monkeypatch, window):
    monkeypatch.setattr(_objective, "undifferentiated", lambda values, refusal: values)
    this = Problem("d_rtrl")

    def by_hand(params):
        return loss(jax.lax.scan(lambda h, x: cell(params, h, x), this.h, this.xs)[1]).mean()

    found = jax.grad(lambda p: this.sequence(window, params=p)[2].losses.mean())(this.params)
    right = jax.grad(by_hand)(this.params)
    np.testing.assert_allclose(found["out"], right["out"], rtol=1e-10)
    assert np.abs(found["W"]).max() == 0 < np.abs(right["W"]).max()


@pytest.mark.parametrize("algorithm", ["d_rtrl", "pp_prop"])
def test_a_step_is_differentiated_once_and_in_reverse(problems, algorithm):
    this, p = problems[algorithm], problems[algorithm].params
    tangents = (p,), (this.tangent,)
    for function in (this.of_step, this.of_window, this.of_scan):
        assert size(jax.grad(function)(p)) > 0
        refused(lambda f=function: jax.jvp(f, *tangents), "forward mode")
        refused(lambda f=function: jax.jit(lambda: jax.jvp(f, *tangents))(), "forward mode")
        refused(lambda f=function: jax.jacfwd(f)(p), "forward mode")
        refused(lambda f=function: jax.linearize(f, p)[1](this.tangent), "forward mode")
        refused(lambda f=function: jax.hessian(f)(p))
        once = lambda q, f=function: size(jax.grad(f)(q))
        refused(lambda once=once: jax.grad(once)(p), "second derivative")
        refused(lambda once=once: jax.jit(jax.grad(once))(p), "second derivative")
    by_input = lambda x: size(jax.grad(this.of_step)(p, x))
    refused(lambda: jax.grad(by_input)(this.xs[0]), "second derivative")
    by_readout = lambda out: size(jax.grad(this.of_step)(p | {"out": out}))
    refused(lambda: jax.grad(by_readout)(p["out"]), "second derivative")


def test_a_step_without_the_refusals_fails_raw_or_silently(monkeypatch):
    monkeypatch.setattr(_online, "in_reverse", lambda values: values)
    monkeypatch.setattr(_link, "undifferentiated", lambda values, refusal: values)
    this = Problem("d_rtrl")
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(this.of_step, (this.params,), (this.tangent,))

    def of_steps(params):
        state, _ = this.learner.update(params, this.state, this.xs[0])
        return loss(this.learner.update(params, state, this.xs[1])[1]).mean()

    once = lambda p: size(jax.grad(of_steps)(p))
    silent = jax.grad(once)(this.params)
    step = 1e-5
    one, other = (once(jax.tree.map(lambda v, s=s: v + s, this.params)) for s in (step, -step))
    assert abs((one - other) / (2 * step) - sum(v.sum() for v in silent.values())) > 1e-3


def test_a_hyperparameter_of_the_loss_of_a_step(problems):
    """A second derivative that is right: the online gradient is linear in the loss's cotangents."""
    this = problems["d_rtrl"]
    of = lambda scale: size(jax.grad(this.of_step)(this.params, None, scale))
    step = 1e-5
    difference = (of(1.3 + step) - of(1.3 - step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(of)(1.3), difference, rtol=1e-7)


@pytest.mark.parametrize("algorithm", ["d_rtrl", "pp_prop"])
def test_transformations_that_do_not_differentiate(problems, algorithm):
    this = problems[algorithm]
    plain = this.sequence(2)
    run = lambda params: this.sequence(2, params=params)
    several = jax.tree.map(lambda v: jnp.stack([v, v]), this.params)
    ways = {
        "jit": jax.jit(run)(this.params),
        "vmap": jax.tree.map(lambda v: v[1], jax.vmap(run)(several)),
        "checkpoint": jax.checkpoint(run)(this.params),
        "scan": jax.tree.map(lambda v: v[0], jax.lax.scan(lambda c, p: (c, run(p)), 0, several)[1]),
        "beside a derivative": jax.grad(lambda c: (c**2, run(this.params)), has_aux=True)(1.0)[1],
        "stopped": jax.grad(lambda p: (size(p), run(jax.lax.stop_gradient(p))), has_aux=True)(
            this.params
        )[1],
    }
    for name, got in ways.items():
        for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(got), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, err_msg=name)
    exact = jax.grad(this.of_scan)(this.params)
    mapped = jax.vmap(jax.grad(jax.checkpoint(this.of_scan)))(several)
    for name, value in exact.items():
        np.testing.assert_allclose(mapped[name][1], value, rtol=1e-10)


def test_the_forward_run_has_all_its_derivatives(problems):
    """Without traces nothing is held constant, and a derivative is that of the cell."""
    this = problems["d_rtrl"]

    def by_hand(params):
        return jax.lax.scan(lambda h, x: cell(params, h, x), this.h, this.xs)[1].sum()

    def evolved(params, traces=False):
        return this.learner.etrace_evolve(params, this.state, this.xs, traces=traces)[1].sum()

    found, right = jax.hessian(evolved)(this.params), jax.hessian(by_hand)(this.params)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)
    refused(lambda: jax.hessian(lambda p: evolved(p, traces=True))(this.params))


@pytest.mark.parametrize("mode", ["A", "O"])
def test_the_rate_of_a_fit(problems, mode):
    """One update depends on the rate as it should; a second one reads what the first has made."""
    this, learner = problems["d_rtrl"], problems["d_rtrl"].learner

    def fitted(rate, times):
        optimizer, params = optax.sgd(rate), this.params
        moments, state = optimizer.init(params), this.state
        for _ in range(times):
            params, moments, state, _ = learner.etrace_fit(
                params, moments, state, this.xs, loss_fn=loss, optimizer=optimizer, mode=mode
            )
        return params

    if mode == "A":
        found = jax.jacrev(lambda rate: fitted(rate, 1))(0.1)
        for name, gradient in this.sequence()[0].items():
            np.testing.assert_allclose(found[name], -gradient, rtol=1e-10)
        refused(lambda: jax.jacrev(lambda rate: fitted(rate, 2))(0.1), "params")
    else:
        refused(lambda: jax.jacrev(lambda rate: fitted(rate, 1))(0.1), "params")


def test_no_program_is_traced_again(problems):
    this, traced = problems["d_rtrl"], []

    def counting(out):
        traced.append(1)
        return loss(out)

    this.sequence(2, counting)
    first = len(traced)
    for _ in range(3):
        this.sequence(2, counting)
        jax.vmap(lambda h: this.sequence(2, counting, h=h)[2].losses)(jnp.stack([this.h] * 2))
    assert len(traced) == first


def test_nnx():
    learner = braintrace.compile(
        nnx.GRUCell(I, N, rngs=nnx.Rngs(0)), "d_rtrl", jnp.ones((B, I)), carry=jnp.zeros((B, N))
    )
    xs = jnp.ones((T, B, I))
    of_losses = lambda learner: learner.etrace_grad(xs, loss_fn=loss)[1].losses.mean()
    refused(lambda: nnx.grad(of_losses)(learner), "params")


def test_equinox():
    model, h = eqx.nn.GRUCell(I, N, key=jax.random.key(0)), jnp.zeros((B, N))
    xs = jnp.ones((T, B, I))
    learner = braintrace.compile(model, "d_rtrl", xs[0], carry=h, vmap=True)

    def of_losses(model):
        return learner.etrace_grad(model, learner.init(model, h), xs, loss_fn=loss)[2].losses.mean()

    refused(lambda: eqx.filter_grad(of_losses)(model), "params")


def test_brainstate():
    xs = jnp.ones((T, B, I))
    learner = braintrace.compile(brainstate.nn.GRUCell(I, N), "d_rtrl", xs[0], batch_size=B)

    def of_losses():
        return learner.etrace_grad(xs, loss_fn=loss, return_value=True)[1].mean()

    refused(lambda: brainstate.transform.grad(of_losses, learner.param_states)(), "params")
