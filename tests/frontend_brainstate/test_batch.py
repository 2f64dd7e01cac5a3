"""The batch of a brainstate model, found by initialising its states for another batch size."""

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate import nn

import braintrace
from braintrace import CompilationError
from braintrace.frontends.brainstate import _initial

SAMPLES, NEURONS = 5, 4
X = jnp.zeros((SAMPLES, 3))


class History(nn.Module):
    """Neurons that see their own activity of `steps` steps ago: states (T, B, N)."""

    def __init__(self, steps: int):
        super().__init__()
        self.steps = steps
        self.w, self.r = nn.Linear(3, NEURONS), nn.Linear(NEURONS, NEURONS)
        self.scale = brainstate.LongTermState(jnp.full((SAMPLES,), 0.8))

    def init_state(self, batch_size=None):
        self.h = brainstate.HiddenState(brainstate.random.rand(batch_size, NEURONS))
        self.past = brainstate.HiddenState(jnp.zeros((self.steps, batch_size, NEURONS)))
        self.pairs = brainstate.HiddenState(jnp.zeros((2 * batch_size, 1)))

    def update(self, x):
        past = self.past.value
        drive = self.w(x) + self.r(past[0])
        self.h.value = self.scale.value.mean() * self.h.value + jnp.tanh(drive)
        self.past.value = jnp.concatenate([past[1:], jnp.tanh(self.h.value)[None]])
        return self.h.value


def random_key():
    return jax.random.key_data(brainstate.random.DEFAULT.value)


class Fixed(nn.Module):
    """A trace of the drive whose size is written into the model; `size` is that of axis 0."""

    def __init__(self, size: int):
        super().__init__()
        self.w = nn.Linear(3, NEURONS)
        self.trace = brainstate.HiddenState(jnp.zeros((size, NEURONS)))

    def init_state(self, batch_size=None):
        self.h = brainstate.HiddenState(jnp.zeros((batch_size, NEURONS)))

    def update(self, x):
        self.trace.value = 0.5 * self.trace.value + jnp.tanh(self.h.value) * x[:, :1]
        self.h.value = 0.8 * self.h.value + jnp.tanh(self.w(x) + self.trace.value)
        return self.h.value


def checked(learner, xs):
    """Whether all is certified exact, and whether it equals BPTT in several windows."""
    report = learner.check_gradients(
        xs, step_fn=lambda x: jnp.sum(learner(x) ** 2), windows=(None, 1, 3), reduction="sum"
    )
    rows = learner.graph.parameters
    return all(row.exactness.value == "exact" for row in rows), report.ok


def test_the_axis_follows_the_batch_size():
    model = History(SAMPLES)
    brainstate.random.seed(3)
    key, names = random_key(), set(vars(model))
    axes = _initial.batch_axes(model, SAMPLES, (X,))
    assert axes is not None
    assert (axes["h"], axes["past"], axes["scale"], axes["pairs"]) == ((0,), (1,), (None,), (...,))
    assert set(vars(model)) == names
    assert np.array_equal(random_key(), key)
    model.init_state(2)
    assert not np.array_equal(random_key(), key)  # control: it draws numbers


def test_nothing_is_known_of_a_model_that_takes_no_batch_size():
    cell = nn.GRUCell(3, NEURONS)
    cell.init_state = lambda batch_size=None: nn.GRUCell.init_state(cell, SAMPLES)
    assert _initial.batch_axes(cell, SAMPLES, (X,)) is None
    assert _initial.batch_axes(nn.GRUCell(3, NEURONS), SAMPLES, (X,)) == {
        "Wh.weight": (None, None),
        "Wrz.weight": (None, None),
        "h": (0,),
    }


@pytest.mark.parametrize("steps", [2, SAMPLES])
def test_a_history_as_long_as_the_batch_is_large(steps, monkeypatch):
    xs = jax.random.normal(jax.random.key(0), (7, SAMPLES, 3))
    brainstate.random.seed(0)
    learner = braintrace.compile(History(steps), "ostl_recurrent", xs[0], batch_size=SAMPLES)
    graph, names = learner.functional.graph, learner.functional.cell.carry.names
    axes = {n: graph.leaf_axis(k) for k, n in enumerate(names)}
    assert (axes["h"].dim, axes["past"].dim) == (0, 1)
    assert checked(learner, xs) == (True, True)
    wrong = {"h": (0,), "past": (0,) if steps == SAMPLES else (None,)}
    monkeypatch.setattr(_initial, "batch_axes", lambda *given: wrong)
    with pytest.raises(CompilationError, match="Samples meet"):  # control
        braintrace.compile(History(steps), "ostl_recurrent", xs[0], batch_size=SAMPLES)


def test_a_size_that_is_written_into_the_model_is_not_taken_for_shared():
    xs = jax.random.normal(jax.random.key(0), (7, SAMPLES, 3))
    axes = _initial.batch_axes(Fixed(SAMPLES), SAMPLES, (xs[0],))
    assert axes is not None and (axes["h"], axes["trace"]) == ((0,), (...,))
    learner = braintrace.compile(Fixed(SAMPLES), "ostl_recurrent", xs[0], batch_size=SAMPLES)
    assert checked(learner, xs) == (True, True)


def test_a_failing_probe_leaves_everything_as_it_was():
    cell = nn.GRUCell(3, NEURONS)

    def init_state(batch_size=None):
        start = float(brainstate.random.rand())  # no number while shapes alone are looked at
        cell.h = brainstate.HiddenState(jnp.full((batch_size, NEURONS), start))

    cell.init_state = init_state
    brainstate.random.seed(3)
    key = random_key()
    assert _initial.batch_axes(cell, SAMPLES, (X,)) is None
    assert np.array_equal(random_key(), key) and not hasattr(cell, "h")
    assert braintrace.compile(cell, "d_rtrl", X, batch_size=SAMPLES).graph.batch_size == SAMPLES
    assert not np.array_equal(random_key(), key)  # control: initialising draws a number
