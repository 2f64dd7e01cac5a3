"""The modulator is an argument of each step: at every front end, under jit, by sample and by
neuron; and it is refused where it does not fit.
"""

import functools

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
from zoo import loss

from ._rules import SUM, apart, drawn, same
from .cells import EXAMPLES, LEAK, B, I, N, O, T, data

M = jnp.asarray(drawn(T, B, seed=5))


def compiled(name, algorithm="three_factor", **options):
    params, carry, xs, _ = data(name)
    cell = EXAMPLES[name].cell
    return braintrace.compile(cell, algorithm, xs[0], params=params, carry=carry, **options)


def gradient(learner, name, modulator, **options):
    params, carry, xs, ys = data(name)
    state = learner.init(params, carry)
    given = {"modulator": modulator, **SUM, **options}
    return learner.etrace_grad(params, state, xs, ys, **given)[0]


def test_a_number_for_each_sample_is_that_of_each_of_its_neurons():
    learner = compiled("populations", kappa_filter_decay=0.5)
    every = [jnp.broadcast_to(M[..., None], (T, B, N))] * 2
    same(gradient(learner, "populations", every), gradient(learner, "populations", M))
    one = gradient(learner, "populations", [M, jnp.zeros((T, B))])
    other = gradient(learner, "populations", [jnp.zeros((T, B)), every[1]])
    both = jax.tree.map(jnp.add, one, other)
    right = gradient(learner, "populations", M)
    hidden = set(right) - {"o"}
    same({k: both[k] for k in hidden}, {k: right[k] for k in hidden})
    off = apart(one, right)  # each group has its own
    assert {k: round(off[k], 9) for k in hidden} == {"Wv": 0, "Uv": 0, "Wa": 1, "Ua": 1, "tau": 1}


def test_it_is_an_argument_of_a_program():
    """One program for all values, and each gives its own gradient."""
    learner, (params, carry, xs, ys) = compiled("recurrent_lif"), data("recurrent_lif")
    traced = []

    @jax.jit
    def of_step(params, state, x, y, modulator):
        traced.append(x)

        def objective(params):
            new, out = learner.update(params, state, x, modulator=modulator)
            return loss(out, y).sum(), new

        return jax.grad(objective, has_aux=True)(params)

    def total(modulators):
        state, sums = learner.init(params, carry), jax.tree.map(jnp.zeros_like, params)
        for x, y, m in zip(xs, ys, modulators, strict=True):
            found, state = of_step(params, state, x, y, m)
            sums = jax.tree.map(jnp.add, sums, found)
        return sums

    first, twice = total(M), total(2 * M)
    assert len(traced) == 1
    same(first, gradient(learner, "recurrent_lif", M))
    hidden = set(first) - {"o"}
    same({k: 2 * first[k] for k in hidden}, {k: twice[k] for k in hidden})
    same({"o": first["o"]}, {"o": twice["o"]})


def test_a_model_without_a_batch_takes_a_number_for_each_step():
    params, carry, xs, ys = data("recurrent_lif")
    alone = jax.tree.map(lambda v: v[0], carry)
    cell = EXAMPLES["recurrent_lif"].cell
    first = {"params": params, "carry": jax.tree.map(lambda v: v[:1], carry)}
    whole = braintrace.compile(cell, "three_factor", xs[0, :1], **first)

    def of_one(params, carry, x):
        carry, out = cell(params, jax.tree.map(lambda v: v[None], carry), x[None])
        return jax.tree.map(lambda v: v[0], (carry, out))

    given = {"params": params, "carry": alone, "batch": None}
    learner = braintrace.compile(of_one, "three_factor", xs[0, 0], **given)
    run = lambda learner, carry, xs, ys, m: learner.etrace_grad(
        params, learner.init(params, carry), xs, ys, modulator=m, **SUM
    )[0]
    right = run(whole, first["carry"], xs[:, :1], ys[:, :1], M[:, :1])
    same(run(learner, alone, xs[:, 0], ys[:, 0], M[:, 0]), right)
    state, _ = learner.update(params, learner.init(params, alone), xs[0, 0], modulator=0.5)
    assert int(state.steps) == 1


def test_the_mask_weighs_it():
    learner = compiled("recurrent_lif")
    mask = jnp.asarray(np.random.default_rng(0).random((T, B)) * (np.arange(T)[:, None] != 2))
    right = gradient(learner, "recurrent_lif", M, mask=mask)
    same(gradient(learner, "recurrent_lif", M.at[2].set(7.0), mask=mask), right)
    by_hand = gradient(learner, "recurrent_lif", mask * M)
    hidden = set(right) - {"o"}  # the readout's errors are weighed, too
    same({k: by_hand[k] for k in hidden}, {k: right[k] for k in hidden})


def test_a_group_that_no_parameter_acts_on_has_no_activity():
    """A detached refractory current is a group beside its neurons': their activity is one."""
    sg = jax.lax.stop_gradient

    def refractory(p, carry, x):
        V, R = carry
        V = 0.8 * V + x @ p["W"]
        s = jnp.tanh(V + R)
        return (V, 0.5 * R - 0.3 * sg(s)), s @ p["o"]

    params, carry = {"W": PARAMS["W"], "o": PARAMS["o"]}, (ZERO, ZERO)
    given = {"params": params, "carry": carry}
    learner = braintrace.compile(refractory, "three_factor", XS[0], **given)
    assert len(learner.graph.groups) == 2

    def surrogate(W):
        total, (V, R) = 0.0, carry
        for x, m in zip(XS, M, strict=True):
            V = 0.8 * V + x @ W
            s = jnp.tanh(V + R)
            R = 0.5 * R - 0.3 * sg(s)
            total += (m[:, None] * s).sum()
        return total

    state = learner.init(params, carry)
    for modulator in (M, [M]):
        found = learner.etrace_grad(params, state, XS, YS, **{**GIVEN, "modulator": modulator})[0]
        same({"W": found["W"]}, {"W": jax.grad(surrogate)(params["W"])})


# Front ends: h <- leak h + x W + h U, read out by o


def cell(p, h, x):
    h = LEAK * h + jnp.tanh(x @ p["W"] + h @ p["U"])
    return h, h @ p["o"]


SHAPES = {"W": (I, N), "U": (N, N), "o": (N, O)}
PARAMS = {k: jnp.asarray(drawn(*shape)) for k, shape in SHAPES.items()}
XS, YS = jnp.asarray(drawn(T, B, I)), jnp.asarray(drawn(T, B, O, seed=1))
ZERO = jnp.zeros((B, N))


class OfBrainstate(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.W, self.U, self.o = (brainstate.ParamState(PARAMS[k]) for k in "WUo")
        self.h = brainstate.HiddenState(ZERO)

    def update(self, x):
        p = {"W": self.W.value, "U": self.U.value, "o": self.o.value}
        self.h.value, out = cell(p, self.h.value, x)
        return out


class OfNNX(nnx.Module):
    def __init__(self):
        self.W, self.U, self.o = (nnx.Param(PARAMS[k]) for k in "WUo")

    def __call__(self, carry, x):
        return cell({"W": self.W[...], "U": self.U[...], "o": self.o[...]}, carry, x)


class OfEquinox(eqx.Module):
    W: jax.Array
    U: jax.Array
    o: jax.Array

    def __call__(self, x, h):
        return cell({"W": self.W, "U": self.U, "o": self.o}, h, x)


GIVEN = {"loss_fn": lambda out, y: jnp.sum((out - y) ** 2, -1), "modulator": M, "reduction": "sum"}


@functools.cache
def by_function():
    learner = braintrace.compile(cell, "three_factor", XS[0], params=PARAMS, carry=ZERO)
    return learner.etrace_grad(PARAMS, learner.init(PARAMS, ZERO), XS, YS, **GIVEN)[0]


def test_brainstate():
    learner = braintrace.compile(OfBrainstate(), "three_factor", XS[0], batch_size=B)
    found = learner.etrace_grad(XS, YS, **GIVEN)
    same({k: found[k,] for k in PARAMS}, by_function())
    assert learner(XS[0], modulator=M[0]).shape == (B, O)
    with pytest.raises(UsageError, match="pass modulator to the driver"):
        learner.etrace_grad(XS, step_fn=lambda x: learner(x, modulator=M[0]).sum(), modulator=M)
    with pytest.raises(UsageError, match="several steps"):
        learner(braintrace.MultiStepData(XS), modulator=M)
    assert isinstance(learner, braintrace.ThreeFactor)


def test_nnx():
    model = OfNNX()
    learner = braintrace.compile(model, "three_factor", XS[0], carry=ZERO)
    found, _ = learner.etrace_grad(XS, YS, **GIVEN)
    same({k: found[k][...] for k in PARAMS}, by_function())
    assert learner(XS[0], modulator=M[0]).shape == (B, O)
    _, gradients = learner.value_and_grad(XS[0], YS[0], **{**GIVEN, "modulator": M[0]})
    assert float(jnp.abs(gradients["W"][...]).max()) > 0
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)
    info = learner.etrace_fit(XS, YS, optimizer=optimizer, mode="O", **GIVEN)
    assert info.losses.shape == (T, B)


def test_equinox():
    model = OfEquinox(**PARAMS)
    call = {"call": lambda model, carry, x: model(x, carry)}
    learner = braintrace.compile(model, "three_factor", XS[0], carry=ZERO, **call)
    found = learner.etrace_grad(model, learner.init(model, ZERO), XS, YS, **GIVEN)[0]
    same({k: getattr(found, k) for k in PARAMS}, by_function())


def test_learning_at_every_step():
    learner = braintrace.compile(cell, "three_factor", XS[0], params=PARAMS, carry=ZERO)
    optimizer, given = optax.sgd(0.0), {**GIVEN, "modulator": [M]}
    start = PARAMS, optimizer.init(PARAMS), learner.init(PARAMS, ZERO)
    *_, info = learner.etrace_fit(*start, XS, YS, optimizer=optimizer, mode="O", **given)
    assert info.losses.shape == (T, B)
    with pytest.raises(UsageError, match="modulator has another length"):
        given["modulator"] = [M[1:]]
        learner.etrace_fit(*start, XS, YS, optimizer=optimizer, mode="O", **given)


MISFITS = [
    (
        "three_factor",
        None,
        "The modulator of the step does not fit the algorithm.\n  got:      none\n  expected: "
        f"modulator of shape ({B}, {N}) or ({B},), or a tuple of one for each of 2 hidden groups",
    ),
    (
        "d_rtrl",
        M,
        "The modulator of the step does not fit the algorithm.\n  got:      an array of shape "
        f"{(T, B)}\n  expected: no modulator: this algorithm is not modulated",
    ),
    ("three_factor", M[1:], "The modulator does not have the steps of the sequence."),
    (
        "three_factor",
        M[:, :1],
        "The modulator has a wrong shape.\n  got:      an array of shape (1,)\n  expected: shape "
        f"({B}, {N}) or ({B},)",
    ),
    (
        "three_factor",
        [M],
        "The number of modulators does not fit the model.\n  got:      1 arrays of shapes "
        f"{(T, B)}\n  expected: 2: one for each hidden group",
    ),
    (
        "three_factor",
        M.at[1, 0].set(jnp.nan),
        "The modulator is not finite.\n  got:      nan at (1, 0)",
    ),
    ("three_factor", [M, M.at[1, 0].set(jnp.inf)], "The modulator[1] is not finite."),
    ("three_factor", "reward", "The modulator is not an array."),
]


@pytest.mark.parametrize(("algorithm", "modulator", "message"), MISFITS)
def test_what_does_not_fit_is_refused(algorithm, modulator, message):
    with pytest.raises(UsageError) as error:
        gradient(compiled("populations", algorithm), "populations", modulator)
    assert str(error.value).startswith(message), str(error.value)


@pytest.mark.parametrize(
    ("algorithm", "key"), [("three_factor", {}), ("osttp", {"feedback_key": 0})]
)
def test_a_window_of_outputs_has_no_signals(algorithm, key):
    params, carry, xs, _ = data("one_lif")
    learner = compiled("one_lif", algorithm, **key)
    with pytest.raises(UsageError, match="no window of outputs"):
        learner.update_window(params, learner.init(params, carry), xs)
