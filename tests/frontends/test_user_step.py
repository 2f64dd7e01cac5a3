"""A step of the user's own around the model's, at the front ends of functions, NNX and Equinox."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import braintrace
from braintrace import UsageError

T, B, IN, N, OUT = 7, 2, 3, 4, 2
XS, YS = (
    jnp.asarray(np.random.default_rng(k).normal(size=(T, B, size)))
    for k, size in enumerate((IN, OUT))
)
MASK = jnp.ones((T, B)).at[5:, 1].set(0)


class NNXNet(nnx.Module):
    """A GRU; the readout and the gain are used by the user's step alone."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.cell = nnx.GRUCell(IN, N, rngs=rngs, param_dtype=jnp.float64)
        self.readout = nnx.Linear(N, OUT, rngs=rngs, param_dtype=jnp.float64)
        self.gain = nnx.Param(jnp.full(IN, 1.5))

    def __call__(self, carry, x):
        return self.cell(carry, x)


class EquinoxNet(eqx.Module):
    cell: eqx.nn.GRUCell
    readout: eqx.nn.Linear
    gain: jax.Array

    def __init__(self):
        keys = jax.random.split(jax.random.key(0))
        self.cell = eqx.nn.GRUCell(IN, N, key=keys[0], dtype=jnp.float64)
        self.readout = eqx.nn.Linear(N, OUT, key=keys[1], dtype=jnp.float64)
        self.gain = jnp.full(IN, 1.5)

    def __call__(self, x, carry):
        return jax.vmap(self.cell)(x, carry)


def cell(params, h, x):
    h = 0.8 * h + jnp.tanh(x @ params["w"] + h @ params["r"])
    return h, h


def function_net():
    rng = np.random.default_rng(5)
    return {
        k: jnp.asarray(0.5 * rng.normal(size=s))
        for k, s in {"w": (IN, N), "r": (N, N), "o": (N, OUT)}.items()
    }


def step_of(read):
    """The loss of a step: the readout outside of the model's step, and a penalty on a weight."""

    def step(model, call, x, y):
        out, weights = read(model, call(jnp.sin(x)))
        return jnp.sum((out - y) ** 2, axis=-1) + 0.1 * jnp.sum(weights**2)

    return step


STEPS = {
    "nnx": step_of(lambda m, h: (m.readout(h), m.cell.dense_i.kernel[...])),
    "equinox": step_of(lambda m, h: (jax.vmap(m.readout)(h), m.cell.weight_ih)),
    "function": step_of(lambda p, h: (h @ p["o"], p["w"])),
}


class Served:
    """One way of calling for three front ends: a learner, its gradient, and BPTT by hand."""

    def __init__(self, name, algorithm):
        self.name, h = name, jnp.zeros((B, N))
        self.model = {"nnx": NNXNet, "equinox": EquinoxNet, "function": function_net}[name]()
        given = {"params": self.model} if name == "function" else {}
        model = cell if name == "function" else self.model
        self.learner = braintrace.compile(model, algorithm, XS[0], carry=h, **given)
        self.start = () if name == "nnx" else (self.model, self.learner.init(self.model, h))

    def gradient(self, *sequences, **options):
        """(gradients, info)"""
        found = self.learner.etrace_grad(*self.start, *sequences, **options)
        return found[0], found[-1]

    def bptt(self, step, weights):
        """Ordinary reverse mode through a loop over the user's step."""
        if self.name == "nnx":
            graphdef, params = nnx.split(self.model)
        else:
            params, graphdef = eqx.partition(self.model, eqx.is_inexact_array)
        merge = nnx.merge if self.name == "nnx" else lambda static, live: eqx.combine(live, static)
        call = {
            "nnx": lambda m, h, x: m(h, x),
            "equinox": lambda m, h, x: (m(x, h),) * 2,
            "function": cell,
        }[self.name]

        def loss(params):
            model, h, total = merge(graphdef, params), jnp.zeros((B, N)), 0.0
            for x, y, weight in zip(XS, YS, weights, strict=True):
                moved = []

                def take(x, h=h, moved=moved):
                    new, out = call(model, h, x)
                    moved.append(new)
                    return out

                total += jnp.sum(weight * step(model, take, x, y))
                (h,) = moved
            return total

        return jax.grad(loss)(params)


def distance(a, b):
    a, b = (jnp.concatenate([jnp.ravel(v) for v in jax.tree.leaves(tree)]) for tree in (a, b))
    return float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b))


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
def test_equals_bptt_in_windows_of_1_and_3(name, mask):
    step, weights = STEPS[name], jnp.ones((T, B)) if mask is None else mask
    exact, local = Served(name, "ostl_recurrent"), Served(name, "d_rtrl")
    right = exact.bptt(step, weights)
    for window in (1, 3):
        options = {
            "step_fn": step,
            "mask": mask,
            "reduction": "sum",
            "window": window,
            "return_state": False,
        }
        gradients, info = exact.gradient(XS, YS, **options)
        assert jax.tree.structure(gradients) == jax.tree.structure(right)
        assert distance(gradients, right) < 1e-10
        assert info.losses.shape == (T, B)
        assert (
            distance(local.gradient(XS, YS, **options)[0], right) > 1e-3
        )  # control: D-RTRL leaves the recurrence out


@pytest.mark.parametrize("name", STEPS)
def test_check_gradients_takes_it_too(name):
    for algorithm, equal in (("ostl_recurrent", True), ("d_rtrl", False)):
        served = Served(name, algorithm)
        reset = jnp.zeros((T, B), bool).at[3, 1].set(True)
        report = served.learner.check_gradients(
            *served.start, XS, YS, step_fn=STEPS[name], window=3, mask=MASK, reset=reset
        )
        assert report.ok
        assert all(row.relative_error < 1e-8 for row in report.rows) == equal


def test_a_reset_goes_back_to_the_compiled_carry_wherever_the_check_starts():
    served = Served("nnx", "ostl_recurrent")
    served.learner.etrace_evolve(XS)
    reset = jnp.zeros((T, B), bool).at[3, 1].set(True)
    assert served.learner.check_gradients(XS, YS, step_fn=STEPS["nnx"], reset=reset).ok


@pytest.mark.parametrize("name", STEPS)
def test_a_loss_of_the_output_is_a_step(name):
    served = Served(name, "d_rtrl")
    loss = lambda out, y: jnp.mean((out[:, :OUT] - y) ** 2)
    step = lambda model, call, x, y: (loss(call(x), y), x.sum())
    got, info = served.gradient(XS, YS, step_fn=step, has_aux=True, return_state=False, window=3)
    right, plain = served.gradient(XS, YS, loss_fn=loss, return_state=False, window=3)
    assert distance(got, right) < 1e-12
    np.testing.assert_allclose(info.losses, plain.losses, rtol=1e-12)
    np.testing.assert_allclose(info.aux, XS.sum((1, 2)), rtol=1e-12)


@pytest.mark.parametrize("mode", ["A", "O"])
def test_fit_learns_with_it(mode):
    served = Served("nnx", "d_rtrl")
    optimizer = nnx.Optimizer(served.model, optax.sgd(0.02), wrt=nnx.Param)
    losses = [
        jnp.mean(
            served.learner.etrace_fit(
                XS, YS, step_fn=STEPS["nnx"], optimizer=optimizer, mode=mode
            ).losses
        )
        for _ in range(5)
    ]
    assert losses[-1] < losses[0]
    served = Served("equinox", "d_rtrl")
    model, state, tuner = *served.start, optax.sgd(0.02)
    tuned, losses = tuner.init(served.learner.trained(model)), []
    for _ in range(5):
        model, tuned, state, info = served.learner.etrace_fit(
            model, tuned, state, XS, YS, step_fn=STEPS["equinox"], optimizer=tuner, mode=mode
        )
        losses.append(jnp.mean(info.losses))
    assert losses[-1] < losses[0]


def test_one_step_of_nnx():
    served, other = Served("nnx", "d_rtrl"), Served("nnx", "d_rtrl")
    loss, gradients = served.learner.value_and_grad(XS[0], YS[0], step_fn=STEPS["nnx"])
    right, info = other.gradient(XS[:1], YS[:1], step_fn=STEPS["nnx"])
    assert distance(gradients, right) < 1e-12
    assert loss == pytest.approx(float(jnp.mean(info.losses)))


class Centred(nnx.Module):
    """Statistics that the model's step writes, and a counter that it does not."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.cell = nnx.GRUCell(IN, N, rngs=rngs, param_dtype=jnp.float64)
        self.mean = nnx.BatchStat(jnp.zeros(IN))
        self.count = nnx.Variable(jnp.zeros(()))

    def __call__(self, carry, x):
        self.mean[...] = 0.9 * self.mean[...] + 0.1 * x.mean(axis=0)
        return self.cell(carry, x - self.mean[...])


def test_the_model_is_as_the_call_leaves_it():
    model = Centred()
    learner = braintrace.compile(model, "d_rtrl", XS[0], carry=jnp.zeros((B, N)))
    seen = lambda model, call, x: (call(x).sum(), model.mean[...])
    _, info = learner.etrace_grad(XS, step_fn=seen, has_aux=True)
    np.testing.assert_allclose(info.aux[-1], model.mean[...], rtol=1e-12)
    assert not np.allclose(info.aux[0], info.aux[-1])

    def writes(model, call, x):
        model.count[...] = model.count[...] + 1
        return call(x).sum()

    def writes_later(model, call, x):
        out = call(x)
        model.count[...] = model.count[...] + 1
        return out.sum()

    for step in (writes, writes_later):
        with pytest.raises(UsageError, match=r"writes Variables of the model outside of call"):
            learner.etrace_grad(XS, step_fn=step)


def called_in_a_scan(model, call, x, y):
    return jax.lax.scan(lambda c, x: (c, call(x).sum()), 0.0, x[None])[1].sum()


WRONG = {
    "calls the model once.\n  got:      0 calls": lambda model, call, x, y: jnp.sum(x),
    "calls the model once.\n  got:      2 calls": lambda model, call, x, y: jnp.sum(
        call(x) + call(x)
    ),
    "inside a transformation of its own": called_in_a_scan,
    "does not take what it is given": lambda x, y: jnp.sum(x),
    "input x has a wrong shape": lambda model, call, x, y: call(y).sum(),
}


@pytest.mark.parametrize("message", WRONG)
@pytest.mark.parametrize("name", STEPS)
def test_wrong_steps(name, message):
    with pytest.raises(UsageError) as raised:
        Served(name, "d_rtrl").gradient(XS, YS, step_fn=WRONG[message])
    assert message in str(raised.value)


@pytest.mark.parametrize("name", STEPS)
def test_the_loss_is_said_in_one_way(name):
    for given in ({}, {"loss_fn": lambda out, y: out.sum(), "step_fn": STEPS[name]}):
        with pytest.raises(UsageError, match="in one way"):
            Served(name, "d_rtrl").gradient(XS, YS, **given)


def test_multi_step_and_a_step_do_not_go_together():
    served = Served("function", "d_rtrl")
    with pytest.raises(UsageError, match="does not go with step_fn"):
        served.learner.check_gradients(
            *served.start, XS, YS, step_fn=STEPS["function"], multi_step=True
        )
