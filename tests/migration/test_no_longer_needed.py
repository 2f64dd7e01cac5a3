"""What is no longer needed: the old form still runs, and what takes its place gives the same."""

import re
import warnings

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import braintrace
from frontend_brainstate.leaky import IN, Leaky, N, T, gradient, sequences
from frontend_brainstate.models import assert_close, step_by_step

from .page import DOCS, Rows, alike

row = Rows("What is no longer needed")


def learner_of(model, xs, **options):
    return braintrace.compile(model, "d_rtrl", xs[0], **options)


class Marked(Leaky):
    """The layer in the package's operators."""

    def update(self, x):
        drive = braintrace.matmul(x, self.w.value) + braintrace.matmul(self.h.value, self.r.value)
        self.h.value = self.step(self.h.value, drive)
        return braintrace.matmul(self.h.value, self.o.value)


class Layered(Leaky):
    """The input weight in a layer."""

    def __init__(self):
        super().__init__()
        self.layer = braintrace.nn.Linear(IN, N)
        self.layer.weight.value = {"weight": self.w.value, "bias": jnp.zeros(N)}
        del self.w

    def update(self, x):
        self.h.value = self.step(self.h.value, self.layer(x) + self.h.value @ self.r.value)
        return self.h.value @ self.o.value


def test_every_row_has_a_test():
    row.check()


@pytest.mark.parametrize("first", row.page)
def test_row(first):
    row.tests[first]()


@row("`braintrace.matmul(x, w)`, `braintrace.nn.Linear` to mark a weight for online learning")
def marked():
    xs, ys = sequences()
    old, new = (gradient(learner_of(alike(kind), xs), xs, ys) for kind in (Marked, Leaky))
    assert_close(old, new)
    layered = gradient(learner_of(alike(Layered), xs), xs, ys)
    assert_close(layered["layer", "weight"]["weight"], new["w",])
    assert all(jnp.any(v != 0) for v in new.values())


@row("`x @ w` to keep a weight out")
def kept_out():
    xs, ys = sequences()
    plain, kept, frozen, stopped = (
        gradient(learner_of(alike(kind), xs, **options), xs, ys)
        for kind, options in (
            (Leaky, {}),
            (Leaky, {"exclude": "w"}),
            (Leaky, {"trainable": ["r", "o"]}),
            (Stopped, {}),
        )
    )
    assert set(frozen) == set(plain) - {("w",)}
    assert_close(frozen["o",], plain["o",])
    assert_close(kept, stopped)
    assert not np.allclose(kept["w",], plain["w",], rtol=1e-2)  # control
    assert jnp.any(kept["w",] != 0)  # its ordinary gradient


class Stopped(Leaky):
    def update(self, x):
        drive = braintrace.stop_trace(x @ self.w.value) + self.h.value @ self.r.value
        self.h.value = self.step(self.h.value, drive)
        return self.h.value @ self.o.value


@row('a warning that a weight "has no connected hidden states"')
def no_warning():
    xs, ys = sequences()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learner = learner_of(Leaky(), xs)
    found = gradient(learner, xs, ys)["o",]
    loss = lambda x, y: jnp.sum((learner(x) - y) ** 2)
    learner.reset_state(model=True)
    [readout] = [r for r in learner.check_gradients(xs, ys, step_fn=loss).rows if "o" in r.path]
    assert jnp.any(found != 0) and readout.cosine > 1 - 1e-12


@row("`register_primitive` with four rules for an operation of your own")
def site_rules():
    """The page about site rules has such an operation, its rule and the test of it."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "site_rules.md").read_text(), re.DOTALL)
    names: dict = {}
    for block in blocks[:2]:
        exec(compile(block, "site_rules.md", "exec"), names)
    w, x = jnp.asarray([1.0, -2.0, 0.5]), jax.random.normal(jax.random.key(0), (2, 4))
    braintrace.checks.check_site_rule(names["ring"], w, x)

    def step(operation):
        return lambda p, h, x: ((h := 0.5 * h + operation(p, x)), jnp.tanh(h))

    xs, h = jax.random.normal(jax.random.key(1), (3, 2, 4)), jnp.zeros((2, 4))
    learners = [
        braintrace.compile(step(names[name]), "d_rtrl", xs[0], params=w, carry=h)
        for name in ("ring", "plain")  # what JAX describes needs no rule
    ]
    assert_close(
        *(f.etrace_grad(w, f.init(w, h), xs, loss_fn=lambda o: o.sum(-1))[0] for f in learners)
    )


@row("`result.module` for the learner inside `vmap=True`, to be left alone")
def module_of_vmap():
    xs, ys = brainstate.random.randn(T, 3, IN), brainstate.random.randn(T, 3, 2)
    mapped = learner_of(alike(Leaky), xs, batch_size=3, vmap=True)
    whole = learner_of(alike(Leaky), xs, batch_size=3)
    expected = gradient(whole, xs, ys)
    assert_close(gradient(mapped.module, xs, ys, window=3), expected)
    assert_close(gradient(mapped, xs, ys, window=3), expected)


@row("`reset_all_states(model)` and `learner.reset_state()`")
def resets():
    class Resetting(Leaky):
        def reset_state(self, batch_size=None):
            self.h.value = jnp.zeros_like(self.h.value)

    xs, ys = sequences()
    learner = learner_of(Resetting(), xs)
    first = step_by_step(learner, xs, ys)
    again = step_by_step(learner, xs, ys)
    assert not np.allclose(again["w",], first["w",], rtol=1e-2)  # control: nothing was reset
    brainstate.nn.reset_all_states(learner.model)
    learner.reset_state()
    assert_close(step_by_step(learner, xs, ys), first)
    learner.reset_state(model=True)
    assert_close(step_by_step(learner, xs, ys), first)


@row("parameters and operators of 0.1 (`ETraceParam`, `MatMulOp`, ...)")
def names_of_release_0_1():
    with pytest.warns(DeprecationWarning, match="name of release 0.1 of the PyPI package: write"):
        param, product = braintrace.ETraceParam, braintrace.MatMulOp

    class Old(Leaky):
        def __init__(self):
            super().__init__()
            self.w = param({"weight": self.w.value}, product())

        def update(self, x):
            drive = self.w.execute(x) + self.h.value @ self.r.value
            self.h.value = self.step(self.h.value, drive)
            return self.h.value @ self.o.value

    xs, ys = sequences()
    old, new = (gradient(learner_of(alike(kind), xs), xs, ys) for kind in (Old, Leaky))
    assert_close(old["w",]["weight"], new["w",])
    assert_close(old["r",], new["r",])
