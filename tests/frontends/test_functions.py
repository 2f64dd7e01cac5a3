"""Plain functions with trees of any shape, and apply functions of other frameworks as they are."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import braintrace
from braintrace import State, UsageError
from zoo._case import two_evaluations

from . import cells
from .cells import (
    IN,
    OUT,
    B,
    N,
    T,
    assert_close,
    assert_tells_apart,
    data,
    sample_loss,
    sequence_gradient,
)

ZERO = jnp.zeros((B, N))


def test_haiku_apply():
    hk = pytest.importorskip("haiku")
    xs, ys = data()
    step = hk.without_apply_rng(hk.transform(lambda carry, x: hk.GRU(N)(x, carry)[::-1]))
    carry = ZERO + 0.1
    params = step.init(jax.random.key(1), carry, xs[0])
    loss = lambda out, y: sample_loss(out[..., :OUT], y)
    learner = braintrace.compile(step.apply, "d_rtrl", xs[0], params=params, carry=carry)

    def marked(params, h, x, old=cells.keep, mix=cells.keep):
        p = params["gru"]
        (xz, xr, xa), (hz, hr, ha), (bz, br, ba) = (
            jnp.split(p[k], 3, axis=-1) for k in ("w_i", "w_h", "b")
        )
        z = jax.nn.sigmoid(mix(x) @ xz + mix(old(h)) @ hz + bz)
        r = jax.nn.sigmoid(mix(x) @ xr + mix(old(h)) @ hr + br)
        h = (1 - z) * h + z * jnp.tanh(mix(x) @ xa + mix(r * old(h)) @ ha + ba)
        return h, h[..., :OUT]

    oracle, bptt = (
        sequence_gradient(f, params, carry, xs, ys) for f in (two_evaluations(marked), marked)
    )
    assert_tells_apart(oracle, bptt)
    for window in (1, 3, None):
        found, *_ = learner.etrace_grad(
            params,
            learner.init(params, carry),
            xs,
            ys,
            loss_fn=loss,
            window=window,
            reduction="sum",
        )
        assert_close(found, oracle)


def test_linen_apply():
    linen = pytest.importorskip("flax.linen")
    xs, ys = data()
    model = linen.OptimizedLSTMCell(features=N, param_dtype=jnp.float64)
    carry = jax.tree.map(lambda v: v + 0.1, model.initialize_carry(jax.random.key(0), xs[0].shape))
    variables = model.init(jax.random.key(1), carry, xs[0])
    loss = lambda out, y: sample_loss(out[..., :OUT], y)
    learner = braintrace.compile(model.apply, "d_rtrl", xs[0], params=variables, carry=carry)

    def marked(variables, carry, x, old=cells.keep, mix=cells.keep):
        p, (c, h) = variables["params"], carry
        gate = lambda n: (
            mix(x) @ p["i" + n]["kernel"] + mix(old(h)) @ p["h" + n]["kernel"] + p["h" + n]["bias"]
        )
        i, f, o = (jax.nn.sigmoid(gate(n)) for n in "ifo")
        c = f * c + i * jnp.tanh(gate("g"))
        h = o * jnp.tanh(c)
        return (c, h), h[..., :OUT]

    oracle, bptt = (
        sequence_gradient(f, variables, carry, xs, ys) for f in (two_evaluations(marked), marked)
    )
    assert_tells_apart(oracle, bptt)
    for window in (1, 3, None):
        found, *_ = learner.etrace_grad(
            variables,
            learner.init(variables, carry),
            xs,
            ys,
            loss_fn=loss,
            window=window,
            reduction="sum",
        )
        assert_close(found, oracle)
    with pytest.raises(UsageError, match=r"compile\(model.apply, algorithm, x, params=variables"):
        braintrace.compile(model, "d_rtrl", xs[0], params=variables, carry=carry)


def test_haiku_style_apply():
    """`apply(params, carry, x)` of a transformed step, as `hk.without_apply_rng(hk.transform(f))`
    has it.
    """
    rng = np.random.default_rng(0)
    shapes = {
        "gru": {"w_i": (IN, 3 * N), "w_h": (N, 3 * N), "b": (3 * N,)},
        "linear": {"w": (N, OUT), "b": (OUT,)},
    }
    params = jax.tree.map(
        lambda s: jnp.asarray(0.5 * rng.standard_normal(s)),
        shapes,
        is_leaf=lambda s: isinstance(s, tuple),
    )
    xs, ys = data()

    class Transformed:
        """What such a transformation returns: functions that find their parameters by module
        name.
        """

        @staticmethod
        def apply(params, carry, x, old=cells.keep, mix=cells.keep):
            p = params["gru"]
            gates_x, gates_h = jnp.split(mix(x) @ p["w_i"] + p["b"], [2 * N], -1), p["w_h"]
            z, r = jnp.split(
                jax.nn.sigmoid(gates_x[0] + mix(old(carry)) @ gates_h[:, : 2 * N]), 2, -1
            )
            a = jnp.tanh(gates_x[1] + mix(r * old(carry)) @ gates_h[:, 2 * N :])
            h = (1 - z) * carry + z * a
            return h, h @ params["linear"]["w"] + params["linear"]["b"]

    oracle, bptt = (
        sequence_gradient(f, params, ZERO, xs, ys)
        for f in (two_evaluations(Transformed.apply), Transformed.apply)
    )
    assert_tells_apart(oracle, bptt)
    learner = braintrace.compile(Transformed.apply, "d_rtrl", xs[0], params=params, carry=ZERO)
    found, *_ = learner.etrace_grad(
        params, learner.init(params, ZERO), xs, ys, loss_fn=sample_loss, window=3, reduction="sum"
    )
    assert_close(found, oracle)


def test_trees_of_any_shape():
    """Tuples, lists, None, integers and a registered class, in params, carry, input and output."""
    rng = np.random.default_rng(0)
    w, u, r = (jnp.asarray(0.5 * rng.standard_normal(s)) for s in ((IN, N), (N, N), (N, OUT)))
    xs, ys = data()

    def cell(params, carry, x):
        (w, [u]), r, gain, _ = params
        h = 0.8 * carry["h"][0] + jnp.tanh(x[0] @ w + carry["h"][0] @ u) * gain
        return {"h": [h], "count": carry["count"] + 1, "none": None}, (h @ r, None)

    params = ((w, [u]), braintrace.SingleStepData(r), jnp.int32(1), None)
    carry = {"h": [ZERO], "count": jnp.zeros((), jnp.int32), "none": None}
    flat = lambda params, carry, x: cell((params[0], params[1].data, *params[2:]), carry, x)
    learner = braintrace.compile(flat, "d_rtrl", (xs[0],), params=params, carry=carry)
    state = learner.init(params, carry)
    found, state, _ = learner.etrace_grad(
        params, state, (xs,), ys, loss_fn=lambda out, y: sample_loss(out[0], y), window=3
    )
    assert found[2] is None and found[3] is None and state.carry["count"] == T
    report = learner.check_gradients(
        params,
        learner.init(params, carry),
        (xs,),
        ys,
        loss_fn=lambda out, y: sample_loss(out[0], y),
    )
    assert report.ok and len(report.rows) == 3
    assert learner.trained(params)[2] is None
    bare = braintrace.compile(
        lambda p, h, x: (0.8 * h + jnp.tanh(x @ p[0] + h @ p[1]), h @ p[2]),
        "d_rtrl",
        xs[0],
        params=(w, u, r),
        carry=ZERO,
    )
    assert bare.graph.exactness("[0]") == learner.graph.exactness("[0][0]") == "approximate"


def leaky():
    """A learner of a leaky layer with recurrence, its parameters, carry and data."""
    rng = np.random.default_rng(3)
    params = {
        "w": jnp.asarray(rng.standard_normal((IN, OUT))),
        "u": jnp.asarray(0.3 * rng.standard_normal((OUT, OUT))),
    }
    xs, ys = data()
    carry = jnp.zeros((B, OUT))
    cell = lambda p, h, x: ((h := 0.8 * h + jnp.tanh(x @ p["w"] + h @ p["u"])), h)
    return (
        braintrace.compile(cell, "d_rtrl", xs[0], params=params, carry=carry),
        params,
        carry,
        xs,
        ys,
    )


def test_evolving_moves_the_traces_on():
    learner, params, carry, xs, ys = leaky()
    for traces in (True, False):
        start = learner.init(params, carry, traces=traces)
        stepped = start
        for x in xs[:4]:
            stepped, _ = learner.update(params, stepped, x)
        evolved, _ = learner.etrace_evolve(params, start, xs[:4])
        assert evolved.steps == 4
        assert_close(evolved.carry, stepped.carry)
        assert_close(evolved.traces, stepped.traces)
    left, _ = learner.etrace_evolve(params, start, xs[:4], traces=False)
    assert left.traces is None
    from_both = [
        learner.etrace_grad(params, s, xs[4:], ys[4:], loss_fn=sample_loss)[0]["w"]
        for s in (evolved, left)
    ]
    assert not jnp.allclose(*from_both), "control: the warm-up is reached back into"


@pytest.mark.parametrize("traces", [True, False])
def test_an_evolution_holds_its_outputs_only_where_they_are_returned(traces):
    learner, params, carry, xs, _ = leaky()
    start = learner.init(params, carry)

    def held(steps, **options):
        """Bytes beside the inputs."""
        run = lambda xs: learner.etrace_evolve(params, start, xs, traces=traces, **options)
        given = jax.ShapeDtypeStruct((steps, *xs.shape[1:]), xs.dtype)
        memory = jax.jit(run).lower(given).compile().memory_analysis()
        return memory.temp_size_in_bytes + memory.output_size_in_bytes

    size = {"window": 2}
    assert held(4000, return_outputs=False, **size) < held(40, return_outputs=False, **size) + 4000
    assert held(4000, **size) > 4000 * carry.size  # control
    state, out = learner.etrace_evolve(params, start, xs, traces=traces, return_outputs=False)
    same, _ = learner.etrace_evolve(params, start, xs, traces=traces)
    assert out is None
    assert_close(state.carry, same.carry)
    assert_close(state.traces, same.traces)


@pytest.mark.parametrize("mode", ["A", "O"])
def test_fit_counts_the_steps_before_it(mode):
    """Also where no traces were formed: they start at zero, and nothing else changes."""
    learner, params, carry, xs, ys = leaky()
    tx = optax.sgd(1e-2)
    before, _ = learner.etrace_evolve(
        params, learner.init(params, carry, traces=False), xs[:4], traces=False
    )
    assert before.traces is None and before.steps == 4
    formed = State(before.carry, learner.init(params, carry).traces, before.steps)
    fits = [
        learner.etrace_fit(
            params, tx.init(params), s, xs[4:], ys[4:], optimizer=tx, mode=mode, loss_fn=sample_loss
        )
        for s in (before, formed)
    ]
    assert [int(fit[2].steps) for fit in fits] == [T, T]
    assert_close(*(fit[0] for fit in fits))
    assert_close(*(fit[2].carry for fit in fits))


def test_fit_at_every_step_returns_aux_and_moves_on():
    learner, params, carry, xs, ys = leaky()
    tx = optax.sgd(1e-2)
    options = {
        "optimizer": tx,
        "mode": "O",
        "has_aux": True,
        "loss_fn": lambda out, y: (sample_loss(out, y), out),
    }
    found = learner.etrace_fit(
        params, tx.init(params), learner.init(params, carry), xs, ys, **options
    )
    same = learner.etrace_fit(
        params,
        tx.init(params),
        learner.init(params, carry),
        xs,
        ys,
        window=3,
        return_state=False,
        **options,
    )
    assert found[3].aux.shape == (T, B, OUT)
    assert_close(found[0], same[0])
    assert same[2].steps == T


def test_options_of_brainstate_modules_are_refused_with_what_to_do():
    _, params, carry, xs, _ = leaky()
    with pytest.raises(
        UsageError,
        match=r"vjp_method.*\n.*none of them for a plain function\n.*update_window\(..., "
        r"full=True\)",
    ):
        braintrace.compile(
            lambda p, h, x: (h + x @ p["w"], h),
            "d_rtrl",
            xs[0],
            params=params,
            carry=carry,
            vjp_method="multi-step",
        )
