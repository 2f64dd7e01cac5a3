"""Batch and layer normalisation in every way in which samples can be mapped: states with a batch,
`vmap=True`, and the user's own `Vmap` around a learner of one sample.
"""

import pickle

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import braintrace
from braintrace.checks import bptt_gradient
from braintrace.core.analysis import _influence

T, B, IN, N, OUT = 6, 4, 3, 5, 2
RNG = np.random.default_rng(0)
XS = jnp.asarray(RNG.standard_normal((T, B, IN)))
YS = jnp.asarray(RNG.standard_normal((T, B, OUT)))


class Network(brainstate.nn.Module):
    def __init__(self, norm):
        super().__init__()
        brainstate.random.seed(0)
        self.linear, self.norm = brainstate.nn.Linear(IN, N), norm
        self.out = brainstate.nn.Linear(N, OUT)

    def init_state(self, batch_size=None):
        shape = (N,) if batch_size is None else (batch_size, N)
        self.h = brainstate.HiddenState(jnp.zeros(shape))

    def update(self, x):
        self.h.value = 0.8 * self.h.value + jnp.tanh(self.norm(self.linear(x)))
        return self.out(self.h.value)


def batch_norm(axis_name=None):
    return Network(brainstate.nn.BatchNorm0d((N,), axis_name=axis_name, momentum=0.9))


def layer_norm(axis_name=None):
    return Network(brainstate.nn.LayerNorm((N,)))


def loss(out, y):
    return jnp.sum((out - y) ** 2)


def reference(make):
    """BPTT through the model itself, with a batch; what it leaves in the model's statistics."""
    model = make()
    brainstate.nn.init_all_states(model, batch_size=B)
    run = brainstate.transform.for_loop
    weights = model.states(brainstate.ParamState)
    total = lambda: run(lambda x, y: loss(model(x), y), XS, YS).sum()
    return brainstate.transform.grad(total, weights)(), statistics(model)


def statistics(model):
    return {path: s.value for path, s in model.states(brainstate.BatchState).items()}


def in_windows(make, algorithm, window, axis_name=None, **options):
    model = make(axis_name)
    options |= {} if axis_name is None else {"vmap": True, "axis_name": axis_name}
    learner = braintrace.compile(model, algorithm, XS[0], batch_size=B, **options)
    step = lambda x, y: loss(learner(x), y)
    given = {"step_fn": step, "chunk_size": window, "reduction": "sum"}
    return learner.etrace_grad(XS, YS, **given), statistics(model), learner


def in_own_vmap(make, axis_name=None):
    model = make(axis_name)
    learner = braintrace.D_RTRL(model)

    @brainstate.transform.vmap_new_states(state_tag="new", axis_size=B, axis_name=axis_name)
    def init():
        brainstate.nn.init_all_states(model)
        learner.compile_graph(XS[0, 0])

    init()
    mapped = brainstate.nn.Vmap(learner, vmap_states="new", axis_name=axis_name)
    weights = model.states(brainstate.ParamState)

    def step(total, given):
        x, y = given
        gradient = brainstate.transform.grad(lambda: loss(mapped(x), y), weights)()
        return jax.tree.map(jnp.add, total, gradient), None

    zero = jax.tree.map(jnp.zeros_like, weights.to_dict_values())
    return brainstate.transform.scan(step, zero, (XS, YS))[0]


def assert_close(found, right, tolerance=1e-10):
    assert found.keys() == right.keys()
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), found, right
    )


def far(found, right):
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(right), strict=True)
    return max(float(jnp.abs(a - b).max()) for a, b in pairs)


@pytest.mark.parametrize("window", [1, 3, None])
@pytest.mark.parametrize("algorithm", ["d_rtrl", "pp_prop"])
def test_training_of_a_batch_norm(algorithm, window):
    options = {"decay_or_rank": 0.9} if algorithm == "pp_prop" else {}
    with brainstate.environ.context(fit=True):
        right, moved = reference(batch_norm)
        found, now, learner = in_windows(batch_norm, algorithm, window, **options)
        mapped, then, by_name = in_windows(batch_norm, algorithm, window, "samples", **options)
    assert_close(mapped, found)
    for statistics_of in (now, then):
        assert_close(statistics_of, moved)
    assert float(jnp.abs(now["norm", "running_mean"]).max()) > 1e-2  # they move
    for compiled in (learner, by_name):
        exactness = {row.path: str(row.exactness) for row in compiled.graph.parameters}
        assert exactness["linear.weight.weight"] == "approximate"  # samples meet
        assert exactness["out.weight.weight"] == "exact"
    assert_close(found["out", "weight"], right["out", "weight"])
    assert far(found["linear", "weight"], right["linear", "weight"]) > 0.1  # as it says
    if algorithm == "d_rtrl":
        assert_close(found["norm", "weight"], right["norm", "weight"])


@pytest.mark.parametrize("window", [1, 3, None])
def test_evaluation_of_a_batch_norm_is_exact(window):
    def trained(axis_name=None):
        model = batch_norm(axis_name)
        model.norm.running_mean.value += 0.3
        model.norm.running_var.value *= 2.0
        return model

    with brainstate.environ.context(fit=False):
        right, still = reference(trained)
        for axis_name in (None, "samples"):
            found, now, learner = in_windows(trained, "d_rtrl", window, axis_name)
            assert_close(found, right)
            assert_close(now, still)
            assert "approximate" not in str(learner.report)
        assert_close(in_own_vmap(trained, "samples"), right)
        control, _ = reference(batch_norm)
    assert far(control, right) > 0.1


def test_layer_norm_is_the_same_in_every_way():
    right, _ = reference(layer_norm)
    found = in_windows(layer_norm, "d_rtrl", 1)[0]
    assert_close(in_windows(layer_norm, "d_rtrl", 3)[0], found)
    assert_close(in_windows(layer_norm, "d_rtrl", 1, "samples")[0], found)
    assert_close(in_own_vmap(layer_norm), found)
    for name in ("norm", "out"):
        assert_close(found[name, "weight"], right[name, "weight"])
    assert far(found["linear", "weight"], right["linear", "weight"]) > 0.1  # neurons meet


def test_an_axis_that_nothing_maps_over_is_refused():
    with brainstate.environ.context(fit=True):
        for given in ({}, {"vmap": True}, {"vmap": True, "axis_name": "other"}):
            model = batch_norm("samples")
            with pytest.raises(braintrace.CompilationError, match=r"(?s)axis that nothing.*vmap="):
                braintrace.compile(model, "d_rtrl", XS[0], batch_size=B, **given)
            assert not model.states(brainstate.BatchState)["norm", "running_mean"].value.any()
        with pytest.raises(braintrace.CompilationError, match="axis that nothing maps over"):
            in_own_vmap(batch_norm, "samples")
        with pytest.raises(braintrace.CompilationError, match="a state that the samples share"):
            braintrace.compile(batch_norm(), "d_rtrl", XS[0], batch_size=B, vmap=True)
    for given in ({"axis_name": "samples"}, {"vmap": True, "axis_name": []}):
        with pytest.raises(braintrace.UsageError, match="Invalid axis_name"):
            braintrace.compile(layer_norm(), "d_rtrl", XS[0], batch_size=B, **given)


def test_a_learner_with_a_named_axis_pickles():
    with brainstate.environ.context(fit=True):
        learner = in_windows(batch_norm, "d_rtrl", None, "samples")[2]
        again = pickle.loads(pickle.dumps(learner))
        np.testing.assert_array_equal(again(XS[0]), learner(XS[0]))


PARAMS = {
    "W": jnp.asarray(RNG.standard_normal((IN, N))),
    "R": jnp.asarray(RNG.standard_normal((N, OUT))),
}
CARRY = jnp.zeros((B, N))


def of_one_sample(params, h, x):
    u = x @ params["W"]
    h = 0.8 * h + jnp.tanh(u - jax.lax.pmean(u, "samples"))
    return h, h @ params["R"]


def of_a_batch(params, h, x):
    u = x @ params["W"]
    h = 0.8 * h + jnp.tanh(u - u.mean(0))
    return h, h @ params["R"]


def online_inside_vmap(window, learners=None):
    """The gradient of learners of one sample, compiled inside of `vmap`, summed over samples."""

    def gradient(xs, ys):
        given = {"params": PARAMS, "carry": CARRY[0], "batch": None}
        learner = braintrace.compile(of_one_sample, "d_rtrl", xs[0], **given)
        if learners is not None:
            learners.append(learner)
        state = learner.init(PARAMS, CARRY[0])
        given = {"loss_fn": loss, "reduction": "sum", "window": window}
        return learner.etrace_grad(PARAMS, state, xs, ys, **given)[0]

    found = jax.vmap(gradient, in_axes=1, axis_name="samples")(XS, YS)
    return jax.tree.map(lambda v: v.sum(0), found)


def online_of_a_batch():
    given = {"params": PARAMS, "carry": CARRY}
    learner = braintrace.compile(of_a_batch, "d_rtrl", XS[0], **given)
    state, given = learner.init(PARAMS, CARRY), {"loss_fn": loss, "reduction": "sum"}
    return learner.etrace_grad(PARAMS, state, XS, YS, **given)[0]


def test_a_collective_of_samples_mixes_them():
    learners = []
    right = online_of_a_batch()
    for window in (1, 3, None):
        assert_close(online_inside_vmap(window, learners), right)
    given = {"loss_fn": loss, "reduction": "sum"}
    bptt = bptt_gradient(of_a_batch, PARAMS, CARRY, XS, YS, **given)[0]
    assert far(right, bptt) > 0.1
    for learner in learners:
        assert str(learner.graph.exactness("['W']")) == "approximate"
        assert str(learner.graph.exactness("['R']")) == "exact"


def test_control_a_collective_that_is_taken_for_elementwise(monkeypatch):
    monkeypatch.setattr(_influence, "is_collective", lambda equation: False)
    first, second = (online_inside_vmap(window) for window in (1, 3))
    assert far(first, second) > 0.1


def test_exact_rules_of_a_layer_refuse_a_collective():
    def compiled(x):
        given = {"params": PARAMS, "carry": CARRY[0], "batch": None}
        braintrace.compile(of_one_sample, "ostl_recurrent", x, **given)
        return x

    with pytest.raises(braintrace.CompilationError, match=r"(?s)Samples meet.*samples"):
        jax.vmap(compiled, axis_name="samples")(XS[0])
    with pytest.raises(braintrace.CompilationError, match="axis that nothing maps over"):
        compiled(XS[0, 0])
