"""A learner of one sample that the user maps, `vmap_new_states` and `brainstate.nn.Vmap`: against
`compile(batch_size=)`.
"""

import brainstate
import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate import nn

import braintrace
from braintrace.core.engine import _link

from .models import IN, B, Convolved, Embedded, Readout, T, assert_close, data, total_loss


class WithUnits(nn.Module):
    """A leaky membrane in millivolts, driven through resistances."""

    def __init__(self):
        super().__init__()
        self.w = brainstate.ParamState(brainstate.random.randn(IN + 4, 4) * u.ohm)

    def init_state(self, batch_size=None):
        shape = (4,) if batch_size is None else (batch_size, 4)
        self.v = brainstate.HiddenState(jnp.zeros(shape) * u.mV)

    def update(self, x):
        seen = jnp.concatenate([x, jnp.tanh(self.v.value / u.mV)], -1)
        self.v.value = (0.8 * self.v.value + seen @ self.w.value * 0.3 * u.mA).in_unit(u.mV)
        return jnp.sin(self.v.value / u.mV)[..., :2]


MODELS = {
    "gru": (Readout, ()),
    "conv": (Convolved, (4, 4, 2)),
    "embedding": (Embedded, None),
    "units": (WithUnits, ()),
}
ALGORITHMS = {
    "d_rtrl": {},
    "pp_prop": {"decay_or_rank": 0.9},
    "eprop": {},
    "ostl_recurrent": {},
    "ottt": {"leak": 0.8},
}


def model_of(name):
    make, shape = MODELS[name]
    xs, ys = data(integer=True) if shape is None else data(*shape)
    brainstate.random.seed(0)
    return make(), xs, ys


def class_of(algorithm):
    names = {"d_rtrl": "D_RTRL", "eprop": "EProp", "ostl_recurrent": "OSTLRecurrent"}
    return getattr(braintrace, names.get(algorithm, algorithm), None) or braintrace.OTTT


def mapped_by_user(model, algorithm, x, options, **mapping):
    learner = class_of(algorithm)(model, **options)

    @brainstate.transform.vmap_new_states(state_tag="new", axis_size=B)
    def init():
        nn.init_all_states(model)
        learner.compile_graph(x)

    init()
    return learner, nn.Vmap(learner, vmap_states="new", **mapping)


def gradients(call, model, xs, ys, jit=True):
    """The sum over the steps, each with a gradient of its own."""
    weights = model.states(brainstate.ParamState)

    def step(total, at):
        x, y = at
        found = brainstate.transform.grad(lambda: total_loss(call(x), y), weights)()
        return jax.tree.map(jnp.add, total, found), None

    zero = jax.tree.map(jnp.zeros_like, weights.to_dict_values())
    if jit:
        return brainstate.transform.scan(step, zero, (xs, ys))[0]
    for at in zip(xs, ys, strict=True):
        zero, _ = step(zero, at)
    return zero


def batched(name, algorithm, options):
    model, xs, ys = model_of(name)
    learner = braintrace.compile(model, algorithm, xs[0], batch_size=B, **options)
    return gradients(learner, model, xs, ys)


PAIRS = [("gru", a) for a in ALGORITHMS] + [(m, "d_rtrl") for m in MODELS if m != "gru"]


@pytest.mark.parametrize(("name", "algorithm"), PAIRS)
def test_as_the_learner_of_the_batch(name, algorithm):
    options = ALGORITHMS[algorithm]
    wanted = batched(name, algorithm, options)
    model, xs, ys = model_of(name)
    _, call = mapped_by_user(model, algorithm, xs[0, 0], options)
    assert_close(gradients(call, model, xs, ys), wanted)
    assert all(jnp.abs(v).max() > 0 for v in jax.tree.leaves(wanted))


def test_eagerly_along_another_axis():
    wanted = batched("gru", "d_rtrl", {})
    model, xs, ys = model_of("gru")
    _, call = mapped_by_user(model, "d_rtrl", xs[0, 0], {}, in_axes=1, out_axes=1)
    transposed = lambda x: call(x.T).T
    assert_close(gradients(transposed, model, xs, ys, jit=False), wanted)


def test_a_driver_around_the_mapped_call():
    model, xs, ys = model_of("gru")
    wanted = batched("gru", "d_rtrl", {})
    learner, call = mapped_by_user(model, "d_rtrl", xs[0, 0], {})
    mask = jnp.ones(T).at[2].set(0)
    step_fn = lambda x, y: total_loss(call(x), y)
    found = learner.etrace_grad(xs, ys, step_fn=step_fn, reduction="sum")
    assert_close(found, wanted)
    learner, call = mapped_by_user(model, "d_rtrl", xs[0, 0], {})
    masked = learner.etrace_grad(xs, ys, step_fn=step_fn, reduction="sum", mask=mask)
    assert (
        jnp.abs(masked["out", "weight"]["weight"] - wanted["out", "weight"]["weight"]).max() > 1e-3
    )


def test_drivers_of_the_map():
    wanted = batched("gru", "d_rtrl", {})
    model, xs, ys = model_of("gru")
    learner, _ = mapped_by_user(model, "d_rtrl", xs[0, 0], {})
    call = braintrace.ETraceVmap(learner, vmap_states="new")
    start = jax.tree.map(jnp.zeros_like, learner.etrace.value)

    def again():
        learner.etrace.value, model.rnn.h.value = start, jnp.zeros_like(model.rnn.h.value)

    losses = {"reduction": "sum", "loss_fn": total_loss}
    assert_close(call.etrace_grad(xs, ys, **losses), wanted)
    again()
    outs = call.etrace_evolve(xs, return_outputs=True)
    again()
    np.testing.assert_allclose(outs, [call(x) for x in xs])
    with pytest.raises(braintrace.UsageError, match="ETraceVmap has no such option"):
        braintrace.ETraceVmap(learner, vmap_state="new")


def test_two_maps():
    wanted = batched("gru", "d_rtrl", {})
    model, xs, ys = model_of("gru")
    learner = braintrace.D_RTRL(model)

    @brainstate.transform.vmap_new_states(state_tag="outer", axis_size=2)
    def init():
        @brainstate.transform.vmap_new_states(state_tag="inner", axis_size=B // 2)
        def of_half():
            nn.init_all_states(model)
            learner.compile_graph(xs[0, 0])

        of_half()

    init()
    both = nn.Vmap(nn.Vmap(learner, vmap_states="inner"), vmap_states="outer")
    split = lambda x: x.reshape(2, B // 2, *x.shape[1:])
    call = lambda x: both(split(x)).reshape(B, -1)
    assert_close(gradients(call, model, xs, ys), wanted)


def test_samples_are_told_apart_by_the_rule_of_the_link(monkeypatch):
    """Control: without it, JAX sums the cotangents of the samples before the traces meet them."""
    monkeypatch.setattr(_link, "with_batch_rule", lambda function, rule: function)
    wanted = batched("gru", "d_rtrl", {})
    model, xs, ys = model_of("gru")
    _, call = mapped_by_user(model, "d_rtrl", xs[0, 0], {})
    with pytest.raises((AssertionError, ValueError)):  # later versions of JAX refuse it
        assert_close(gradients(call, model, xs, ys), wanted)
    assert np.isfinite(jnp.concatenate([v.ravel() for v in jax.tree.leaves(wanted)])).all()
