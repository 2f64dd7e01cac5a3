"""What is said about the batch: sizes, axes, none; and what cannot be meant."""

import jax.numpy as jnp
import numpy as np
import pytest

import braintrace
from braintrace import UsageError
from braintrace.cell import BatchSpec, said_batch
from zoo import loss

B, I, N, T = 4, 3, 4, 5  # as many neurons as samples
CARRY, X = {"h": jnp.zeros((B, N)), "n": jnp.zeros(())}, jnp.zeros((B, I))


def cell(p, h, x):
    h = jnp.tanh(0.5 * h + x @ p["w"] + h @ p["u"])
    return h, h


def params():
    random = np.random.default_rng(0)
    return {
        "w": jnp.asarray(random.normal(size=(I, N))),
        "u": jnp.asarray(random.normal(size=(N, N))),
    }


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, None),
        ({"batch_size": None}, None),
        ({"batch": None}, BatchSpec()),
        ({"batch_size": B}, BatchSpec(B)),
        ({"batch_axes": ({"h": 0, "n": None}, 0)}, BatchSpec(B, (0, None, 0))),
        ({"batch_axes": ({"h": -1, "n": None}, 0)}, BatchSpec(N, (1, None, 0))),
        (
            {"batch_axes": ({"h": 0, "n": None}, None), "batch_size": B},
            BatchSpec(B, (0, None, None)),
        ),
    ],
)
def test_what_is_said(given, wanted):
    assert said_batch(given, CARRY, X) == wanted


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch": B}, "Invalid batch.\n  got:      4\n  expected: None"),
        ({"batch": None, "batch_size": B}, "There is a batch or there is none."),
        ({"batch_size": 0}, "Invalid batch_size.\n  got:      0"),
        ({"batch_size": True}, "Invalid batch_size.\n  got:      True"),
        ({"batch_size": 7}, "No array of the carry has the size of the batch as axis 0."),
        ({"batch_axes": 0}, r"Invalid batch axis of carry['n'].\n  got:      0"),
        (
            {"batch_axes": ({"h": 2, "n": None}, 0)},
            "Invalid batch axis of carry['h'].\n  got:      2",
        ),
        ({"batch_axes": ({"h": 0}, 0)}, "batch_axes does not fit the carry."),
        (
            {"batch_axes": ({"h": 0, "n": None}, 1)},
            "The batch has several sizes.\n  got:      4 by",
        ),
        ({"batch_axes": ({"h": 0, "n": None}, 0), "batch_size": 5}, "The batch has several sizes."),
        ({"batch_axes": (None, None)}, "The batch has no size."),
        ({"batch_axes": (0, 0, 0)}, "Invalid batch_axes."),
    ],
)
def test_what_cannot_be_meant(given, message):
    with pytest.raises(UsageError) as error:
        said_batch(given, CARRY, X)
    assert str(error.value).startswith(message.replace(r"\n", "\n")), error.value


def gradient(learner, p, h, xs):
    return learner.etrace_grad(
        p, learner.init(p, h), xs, jnp.zeros_like(xs[..., :1]), loss_fn=loss, window=3
    )[0]


def test_no_batch_where_the_sizes_look_like_one():
    """One sample of N neurons beside N samples: only the user can tell."""
    p, xs = params(), jnp.asarray(np.random.default_rng(1).normal(size=(T, I)))
    make = lambda **said: braintrace.compile(
        cell, "ostl_recurrent", xs[0], params=p, carry=jnp.zeros(N), **said
    )
    assert make(batch=None).graph.batch_size is None
    with pytest.raises(braintrace.CompilationError, match="Samples meet in the step"):
        make(batch_size=N)  # every neuron a sample: they meet in the recurrent product
    one = gradient(make(batch=None), p, jnp.zeros(N), xs)
    batched = braintrace.compile(
        cell, "ostl_recurrent", xs[:1], params=p, carry=jnp.zeros((1, N)), batch_size=1
    )
    wanted = gradient(batched, p, jnp.zeros((1, N)), xs[:, None])
    for key, value in wanted.items():
        np.testing.assert_allclose(one[key], value, rtol=1e-10)


def test_vmap_says_it_all():
    eqx = pytest.importorskip("equinox")
    nnx = pytest.importorskip("flax.nnx")
    import jax

    models = (eqx.nn.GRUCell(I, N, key=jax.random.key(0)), nnx.GRUCell(I, N, rngs=nnx.Rngs(0)))
    for model in models:
        learner = braintrace.compile(model, "d_rtrl", X, carry=CARRY["h"], vmap=True)
        assert learner.graph.batch_size == B
        with pytest.raises(UsageError, match="With vmap=True the batch is axis 0"):
            braintrace.compile(model, "d_rtrl", X, carry=CARRY["h"], vmap=True, batch_size=B)


def test_of_nnx_modules():
    nnx = pytest.importorskip("flax.nnx")

    class Stateful(nnx.Module):
        def __init__(self):
            self.w = nnx.Param(jnp.ones((I, N)))
            self.h = nnx.Variable(jnp.zeros((B, N)))
            self.n = nnx.Variable(jnp.zeros(()))

        def __call__(self, x):
            self.h[...] = 0.5 * self.h[...] + x @ self.w[...]
            self.n[...] = self.n[...] + 1.0
            return self.h[...]

    for said in ({"batch_size": B}, {"batch_axes": 0}, {"batch_axes": (0, 0)}):
        assert braintrace.compile(Stateful(), "d_rtrl", X, **said).graph.batch_size == B
    assert braintrace.compile(Stateful(), "d_rtrl", X, batch=None).graph.batch_size is None
    with pytest.raises(UsageError, match="several sizes"):
        braintrace.compile(Stateful(), "d_rtrl", X, batch_axes=(0, 1))
