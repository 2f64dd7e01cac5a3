"""What values mean: the loss of samples is known from the batch analysis, weights and marks by what
they are, and sizes of one are right.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import braintrace
from braintrace.cell import _loss as losses
from braintrace.learner import _objective as objective

from ._front_ends import FRONT_ENDS, PARAMS, B, X, Y, cell, squared_error

pytestmark = pytest.mark.usefixtures("single_precision_throughout")

SQUARE = 4  # as many neurons as samples


def square(params, h, x):
    h = jnp.tanh(0.5 * h + x @ params)
    return h, h


@pytest.fixture(scope="module")
def made():
    draw = lambda k, *shape: jax.random.normal(jax.random.key(k), shape, jnp.float32)
    params, h, xs = draw(0, 3, SQUARE), jnp.zeros((SQUARE, SQUARE)), draw(1, 5, SQUARE, 3)
    learner = braintrace.compile(square, "d_rtrl", xs[0], params=params, carry=h)
    assert learner.graph.batch_size == SQUARE
    return learner, params, learner.init(params, h), xs


#: One value for each neuron, of shape (4,), as a loss for each of 4 samples has it.
OF_NEURONS = {
    "a mean": lambda out: (out**2).mean(0),
    "of the transpose": lambda out: (out.T**2).mean(1),
    "one sample's": lambda out: out[0],
    "mapped": jax.vmap(lambda v: (v**2).sum(), in_axes=1),
    "a norm": lambda out: jnp.linalg.norm(out, axis=0),
    "of a jitted function": jax.jit(lambda out: jax.nn.relu(out).sum(0)),
    "with a constant": lambda out: jnp.arange(SQUARE) + jnp.exp(out).sum(0),
}
#: One value for each sample; the last mixes the samples in a way of its own.
OF_SAMPLES = {
    "a mean": lambda out: (out**2).mean(1),
    "of the transpose": lambda out: (out.T**2).mean(0),
    "one neuron's": lambda out: out[:, 0],
    "mapped": jax.vmap(lambda v: (v**2).sum()),
    "contrastive": lambda out: -jnp.diagonal(jax.nn.log_softmax(out @ out.T)),
}


@pytest.mark.parametrize("name", OF_NEURONS)
def test_a_loss_of_neurons_is_none_of_samples(made, name, monkeypatch):
    learner, params, state, xs = made
    call = lambda: learner.etrace_grad(params, state, xs, loss_fn=OF_NEURONS[name])
    with pytest.raises(braintrace.UsageError, match="not one of samples") as error:
        call()
    assert f"along axis 1 of an output of shape {(SQUARE, SQUARE)}" in str(error.value)
    if name == "a mean":  # control: sizes do not tell
        monkeypatch.setattr(objective, "check_axis", lambda *_: None)
        assert call()[2].losses.shape == (5, SQUARE)


@pytest.mark.parametrize("name", OF_SAMPLES)
def test_a_loss_of_samples_is_taken(made, name):
    learner, params, state, xs = made
    mask = np.random.default_rng(0).integers(0, 2, (5, SQUARE))
    given = {"loss_fn": OF_SAMPLES[name], "mask": mask}
    gradient, *_ = learner.etrace_grad(params, state, xs, window=1, **given)
    expected, _ = braintrace.checks.bptt_gradient(square, params, state.carry, xs, **given)
    assert np.allclose(gradient, expected, atol=1e-5) and np.abs(expected).max() > 1e-3


def test_a_batch_on_another_axis():
    """The samples lie on axis 1 of the carry and of the output; a loss still has one value each."""
    cell = lambda p, h, x: ((h := jnp.tanh(0.5 * h + p.T @ x)), h)
    params, h, xs = jnp.ones((3, SQUARE)), jnp.zeros((SQUARE, SQUARE)), jnp.ones((5, 3, SQUARE))
    given = {"params": params, "carry": h, "batch_axes": 1}
    learner = braintrace.compile(cell, "d_rtrl", xs[0], **given)
    state = learner.init(params, h)
    learner.etrace_grad(params, state, xs, loss_fn=lambda out: out.mean(0))
    with pytest.raises(braintrace.UsageError, match="along axis 0 of an output"):
        learner.etrace_grad(params, state, xs, loss_fn=lambda out: out.mean(1))


def test_the_axis_of_a_loss_costs_nothing_where_sizes_tell(monkeypatch):
    def staged(*_):
        raise AssertionError

    monkeypatch.setattr(losses, "stage", staged)
    front_end = FRONT_ENDS[0]
    front_end.call("etrace_grad", loss_fn=lambda out, y: squared_error(out, y) * 2)


def test_weights_below_zero_are_for_sums():
    """As the advantages of a policy gradient."""
    front_end, advantages = FRONT_ENDS[0], np.array([[1.0, -0.5]] * len(X), np.float32)
    given = {"mask": advantages, "reduction": "sum", "window": 1}
    gradient, *_ = front_end.call("etrace_grad", **given)
    by_hand = lambda out, y, a: squared_error(out, y) * a
    expected, *_ = front_end.learner.etrace_grad(
        PARAMS, front_end.state, X, Y, advantages, loss_fn=by_hand, reduction="sum"
    )
    assert all(np.allclose(gradient[k], expected[k], atol=1e-5) for k in PARAMS)
    assert np.abs(gradient["o"]).max() > 1e-3


def test_under_jit_shapes_and_dtypes_are_checked():
    front_end = FRONT_ENDS[0]
    run = jax.jit(lambda mask: front_end.call("etrace_grad", mask=mask)[0])
    for mask in (jnp.ones(3), jnp.ones((len(X), B), complex)):
        with pytest.raises(braintrace.UsageError):
            run(mask)


# Sizes
# --------------------------------------------------------------------------------------------------


def sized(B, I, N, O):
    draw = lambda k, *shape: jax.random.normal(jax.random.key(k), shape, jnp.float32)
    params = {"w": draw(0, I, N), "u": draw(1, N, N), "o": draw(2, N, O)}
    return params, jnp.zeros((B, N)), lambda T: draw(3, T, B, I)


@pytest.mark.parametrize("window", [1, 3, None])
@pytest.mark.parametrize("sizes", [(1, 3, 4, 2), (2, 1, 4, 2), (2, 3, 1, 2), (1, 1, 1, 1)])
def test_sizes_of_one(sizes, window):
    """One sample, one input, one neuron: the exact rule gives the gradient of BPTT."""
    params, h, xs = sized(*sizes)
    learner = braintrace.compile(cell, "ostl_recurrent", xs(1)[0], params=params, carry=h)
    for steps in (1, 4):
        given = {"loss_fn": lambda out: (out**2).sum(-1)}
        state, sequence = learner.init(params, h), xs(steps)
        gradient, _, info = learner.etrace_grad(params, state, sequence, window=window, **given)
        expected, _ = braintrace.checks.bptt_gradient(cell, params, h, sequence, **given)
        assert info.losses.shape == (steps, sizes[0])
        assert all(np.allclose(gradient[k], expected[k], atol=1e-4) for k in params)
        assert all(np.abs(expected[k]).max() > 1e-4 for k in params if (k, steps) != ("u", 1))


@pytest.mark.parametrize("sizes", [(0, 3, 4, 2), (2, 0, 4, 2), (2, 3, 0, 2), (2, 3, 4, 0)])
def test_sizes_of_zero(sizes):
    params, h, xs = sized(*sizes)
    with pytest.raises(braintrace.UsageError, match=r"has no elements\.\n  got:      shape"):
        braintrace.compile(cell, "d_rtrl", xs(1)[0], params=params, carry=h)
