"""Windows of the multi-step form: a step function that is given k steps at once."""

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import braintrace
from braintrace import MultiStepData

from .leaky import IN, OUT, Leaky, N, T, gradient, sequences
from .models import assert_close

B, MASK = 3, jnp.array([0.0, 1.0, 0.5, 2.0, 1.0, 0.0])


def oracle(model, xs, ys, size, mask=None):
    """Of each window BPTT inside of it, and before it the leak of each neuron alone, which is
    what D-RTRL's trace holds.
    """
    keep, mask = jax.lax.stop_gradient, jnp.ones(T) if mask is None else mask

    def of_window(params, start):
        h, total = jnp.zeros((*xs.shape[1:-1], N)), 0.0
        for t in range(start + size):
            w, r, o = (params[k,] for k in "wro")
            h = model.step(h, xs[t] @ w + (h @ r if t >= start else keep(h) @ r))
            if t >= start:
                total += jnp.sum(mask[t] * jnp.sum((h @ o - ys[t]) ** 2, -1))
        return total

    params = {path: s.value for path, s in model.states(brainstate.ParamState).items()}
    parts = [jax.grad(of_window)(params, start) for start in range(0, T, size)]
    return jax.tree.map(lambda *v: sum(v), *parts)


def compiled(xs, method="multi-step", **options):
    return braintrace.compile(Leaky(), "d_rtrl", xs[0], vjp_method=method, **options)


def losses_of(learner, shapes=None):
    def step_fn(x, y):
        if shapes is not None:
            shapes.append((x.shape, y.shape))
        return jnp.sum((learner(MultiStepData(x)) - y) ** 2, -1)

    return step_fn


@pytest.mark.parametrize("size", [2, 3, 6])
def test_the_gradient_is_that_of_windows(size):
    xs, ys = sequences()
    learner, shapes = compiled(xs), []
    found, losses = learner.etrace_grad(
        xs,
        ys,
        step_fn=losses_of(learner, shapes),
        chunk_size=size,
        mask=MASK,
        reduction="sum",
        return_value=True,
    )
    assert set(shapes) == {((size, IN), (size, OUT))}
    assert_close(found, oracle(learner.model, xs, ys, size, MASK))
    other = oracle(learner.model, xs, ys, 3 if size == 2 else 2, MASK)
    assert not np.allclose(found["w",], other["w",], rtol=1e-4)  # control: of other windows
    assert losses.shape == (T,) and learner.running_index.value == T


class WithoutMemory(Leaky):
    """Its state comes to its next value through the recurrent weights alone."""

    def step(self, h, z):
        return jnp.tanh(z)


ENTRIES = {  # of a window: from the state, and what was added up for it in the step before
    "d_rtrl": lambda h, z: jnp.tanh(z),  # the trace of that step
    "ostl_recurrent": lambda h, z: h,  # the whole layer's: BPTT
}


@pytest.mark.parametrize("rule", ENTRIES)
def test_a_state_without_memory_has_a_trace_at_the_entry(rule):
    """To later steps it goes through the recurrent weights alone."""
    xs, ys = sequences()
    learner = braintrace.compile(WithoutMemory(), rule, xs[0], vjp_method="multi-step")

    def total(params, entry):
        h, z, total = jnp.zeros(N), jnp.zeros(N), 0.0
        for t, (x, y) in enumerate(zip(xs, ys, strict=True)):
            h = entry(h, z) if t % 3 == 0 else h
            z = x @ params["w",] + jax.lax.stop_gradient(h) @ params["r",]
            h = jnp.tanh(x @ params["w",] + h @ params["r",])
            total += jnp.sum((h @ params["o",] - y) ** 2)
        return total

    given = {"step_fn": losses_of(learner), "chunk_size": 3, "reduction": "sum"}
    params = {path: s.value for path, s in learner.param_states.items()}
    found = learner.etrace_grad(xs, ys, **given)
    assert_close(found, jax.grad(total)(params, ENTRIES[rule]))
    truncated = jax.grad(total)(params, lambda h, z: jax.lax.stop_gradient(h))  # control
    assert not np.allclose(found["w",], truncated["w",], rtol=1e-3)


def test_every_way_of_saying_the_loss():
    xs, ys = sequences()
    learner, given = compiled(xs), {"chunk_size": 3, "reduction": "sum"}
    plain = learner.etrace_grad(xs, ys, step_fn=losses_of(learner), **given)

    def again(**options):
        learner.reset_state(model=True)
        return learner.etrace_grad(xs, ys, **{**given, **options})

    assert_close(again(loss_fn=lambda out, y: jnp.sum((out - y) ** 2)), plain)
    both = lambda x, y: ((loss := losses_of(learner)(x, y)), 2 * loss)
    found, losses, aux = again(step_fn=both, has_aux=True, return_value=True)
    assert_close(found, plain)
    assert aux.shape == (2, 3)  # over windows
    np.testing.assert_allclose(aux.ravel(), 2 * losses)
    jitted = brainstate.transform.jit(lambda: again(step_fn=losses_of(learner)))
    assert_close(jitted(), plain)
    assert_close(again(step_fn=losses_of(learner), return_state=False), plain)
    assert learner.running_index.value == 0
    in_two = again(step_fn=losses_of(learner), chunk_size=2)
    assert not np.allclose(in_two["w",], plain["w",], rtol=1e-4)  # control


def test_a_window_of_one_and_the_option_window_are_steps():
    xs, ys = sequences()
    learner = compiled(xs)
    found = [gradient(learner, xs, ys, **o) for o in ({}, {"chunk_size": 1}, {"window": 3})]
    single = braintrace.compile(learner.model, "d_rtrl", xs[0])
    for gradients in found:
        assert_close(gradients, gradient(single, xs, ys))
    assert not np.allclose(found[0]["w",], oracle(learner.model, xs, ys, 2)["w",], rtol=1e-4)


def test_losses_of_samples_and_padding():
    xs, ys = brainstate.random.randn(T, B, IN), brainstate.random.randn(T, B, OUT)
    mask = jnp.ones((T, B)).at[4:, 1].set(0.0).at[0].set(0.0)
    learner = compiled(xs, batch_size=B)
    padded = jnp.where((mask == 0)[..., None] & (jnp.arange(T) > 3)[:, None, None], jnp.nan, xs)
    found, losses = learner.etrace_grad(
        padded,
        ys,
        step_fn=losses_of(learner),
        chunk_size=2,
        mask=mask,
        reduction="sum",
        return_value=True,
        loss_output="masked",
    )
    zeroed = jnp.where(jnp.isnan(padded), 0, xs)
    assert_close(found, oracle(learner.model, zeroed, ys, 2, mask))
    assert losses.shape == (T, B) and bool((losses[4:, 1] == 0).all()) and bool(losses[1].all())


def test_losses_times_the_mask():
    xs, ys = sequences()
    learner = compiled(xs, "single-step")

    def losses(kind, mask=MASK):
        learner.reset_state(model=True)
        step_fn = lambda x, y: jnp.sum((learner(x) - y) ** 2)
        options = {"loss_output": kind, "return_value": True, "reduction": "sum", "mask": mask}
        return learner.etrace_grad(xs, ys, step_fn=step_fn, **options)[1]

    np.testing.assert_allclose(losses("masked"), MASK * losses("per_step"))
    np.testing.assert_allclose(losses("masked").sum(), losses("scalar"))
    np.testing.assert_allclose(losses("masked", None), losses("per_step"))
    assert not np.allclose(losses("masked"), losses("per_step"))  # control


def test_learning_from_windows():
    xs, ys = sequences()
    learner = compiled(xs)
    start = {path: state.value for path, state in learner.param_states.items()}
    expected = oracle(learner.model, xs, ys, 3, MASK)["w",]
    given = {"step_fn": losses_of(learner), "chunk_size": 3, "reduction": "sum"}

    def learned(mode):
        learner.reset_state(model=True)
        for path, state in learner.param_states.items():
            state.value = start[path]
        options = {"optimizer": optax.sgd(0.01), "mode": mode, "loss_output": "masked"}
        losses = learner.etrace_fit(xs, ys, **given, **options, mask=MASK)
        assert losses.shape == (T,) and learner.running_index.value == T
        return start["w",] - learner.param_states["w",].value

    np.testing.assert_allclose(learned("A"), 0.01 * expected)
    found = learned("O")  # an update for each window; the second one reads what the first one wrote
    learner.reset_state(model=True)
    for path, state in learner.param_states.items():
        state.value = start[path]
    for part in (slice(0, 3), slice(3, 6)):
        gradients = learner.etrace_grad(xs[part], ys[part], **given, mask=MASK[part])
        for path, one in gradients.items():
            learner.param_states[path].value -= 0.01 * one
    np.testing.assert_allclose(found, start["w",] - learner.param_states["w",].value)
    assert not np.allclose(found, 0.01 * expected, rtol=1e-4)  # control


def test_evolving_in_windows():
    xs, ys = sequences()
    learner = compiled(xs)
    shapes = []

    def step_fn(x):
        shapes.append(x.shape)
        return learner(MultiStepData(x))

    def evolved(**options):
        learner.reset_state(model=True)
        outs = learner.etrace_evolve(xs[:4], chunk_size=2, **options)
        after = learner.etrace_grad(xs[4:], ys[4:], step_fn=losses_of(learner), chunk_size=2)
        return outs, after

    assert evolved()[0] is None and evolved(step_fn=step_fn)[0] is None
    outs, after = evolved(return_outputs=True)
    others, same = evolved(return_outputs=True, step_fn=step_fn)
    assert outs.shape == others.shape == (2, 2, OUT) and set(shapes) == {(2, IN)}
    np.testing.assert_allclose(outs, others)
    assert_close(after, same)
    cold = evolved(traces=False)[1]
    assert not np.allclose(cold["w",], after["w",], rtol=1e-4)  # control: without their traces


def test_inputs_of_one_step_beside_those_of_several():
    class Scaled(Leaky):
        def update(self, x, scale):
            return super().update(scale * x)

    xs, scale = sequences()[0], 2 * jnp.ones(IN)
    learner = braintrace.D_RTRL(Scaled())
    brainstate.nn.init_all_states(learner.model)
    learner.compile_graph(xs[0], scale)
    outs = []
    for given in (scale, braintrace.SingleStepData(scale), MultiStepData(jnp.tile(scale, (T, 1)))):
        learner.reset_state(model=True)
        outs.append(learner(MultiStepData(xs), given))
    assert outs[0].shape == (T, OUT) and all(jnp.array_equal(out, outs[0]) for out in outs)
    learner.reset_state(model=True)
    assert not jnp.allclose(learner(MultiStepData(xs), scale + 1), outs[0])  # control


BAD = {
    "a remainder": ({"chunk_size": 4}, "last window would be shorter(.|\n)*leave out the last 2"),
    "a reset": ({"reset": jnp.zeros((T, 1), bool)}, "windows of 3 steps"),
    "one loss": ({"step_fn": "mean"}, r"one loss for each step(.|\n)*expected: shape \(3,\)"),
    "a step": ({"step_fn": "step"}, r"with one\.(.|\n)*pass window= in place of chunk_size="),
    "no size": ({"chunk_size": 2.5}, "Invalid window"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_windows_are_refused_and_change_nothing(bad):
    xs, ys = sequences()
    learner = compiled(xs)
    steps = {
        "mean": lambda x, y: losses_of(learner)(x, y).mean(),
        "step": lambda x, y: jnp.sum((learner(x) - y) ** 2),
    }
    options, said = BAD[bad]
    given = {"chunk_size": 3, **options}
    given["step_fn"] = steps.get(options.get("step_fn"), losses_of(learner))
    with pytest.raises(braintrace.UsageError, match=said):
        learner.etrace_grad(xs, ys, **given)
    assert learner.running_index.value == 0 and not learner.model.h.value.any()


def test_windows_without_the_multi_step_form_are_refused():
    xs, ys = sequences()
    learner = compiled(xs, "single-step")
    with pytest.raises(braintrace.UsageError, match="compile with vjp_method='multi-step'"):
        learner.etrace_grad(xs, ys, step_fn=losses_of(learner), chunk_size=3)
