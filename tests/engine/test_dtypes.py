"""float32 and bfloat16 cells, the dtype of traces, and leaves that carry no gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from braintrace.core.engine import Rule
from braintrace.core.traces import PerParameter
from zoo import CASES, bptt, loss

from ._front_end import assert_same, data, distances, learner_for, stepwise


def cast(tree, dtype):
    return jax.tree.map(
        lambda v: v.astype(dtype) if jnp.issubdtype(v.dtype, jnp.floating) else v, tree
    )


def gradients(name, dtype, rule=None, **options):
    case = CASES[name]
    params, carry, xs, ys = cast(data(name), dtype)
    learner = learner_for(case.cell, params, carry, xs[0], **({"rule": rule} if rule else {}))
    state = learner.init(params, carry)
    got, state, _ = learner.etrace_grad(
        params, state, xs, ys, loss_fn=loss, reduction="sum", **options
    )
    return got, state, learner, (params, carry, xs, ys)


@pytest.mark.parametrize(
    "name", ["gru_reset_after", "exponential_synapse", "conv1d_recurrent", "lru"]
)
def test_float32(name):
    wide = bptt(CASES[name].oracle, *data(name))
    got, state, learner, given = gradients(name, jnp.float32, window=2)
    if name != "lru":  # its complex carry has no narrow cast here
        assert all(
            v.dtype == jnp.float32 for v in jax.tree.leaves((got, state.traces, state.carry))
        )
    assert all(d < 1e-4 for d in distances(got, wide).values())
    steps = stepwise(learner, given[0], learner.init(*given[:2]), *given[2:])[0]
    assert_same(got, steps, 1e-4)


@pytest.mark.parametrize("name", ["gru_reset_after", "leaky_recurrent"])
def test_bfloat16_cells_have_float32_traces(name):
    wide = bptt(CASES[name].oracle, *data(name))
    got, state, learner, given = gradients(name, jnp.bfloat16, window=2)
    assert all(v.dtype == jnp.bfloat16 for v in jax.tree.leaves((got, state.carry)))
    assert all(v.dtype == jnp.float32 for v in jax.tree.leaves(state.traces))
    assert all(d < 0.1 for d in distances(got, wide).values())
    steps = stepwise(learner, given[0], learner.init(*given[:2]), *given[2:])[0]
    assert all(d < 0.1 for d in distances(steps, wide).values())


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_the_dtype_of_traces_is_the_users_choice(dtype):
    rule = Rule("D_RTRL", PerParameter(dtype=dtype))
    got, state, _, _ = gradients("leaky_recurrent", jnp.float32, rule, window=2)
    assert all(v.dtype == dtype for v in jax.tree.leaves(state.traces))
    assert all(v.dtype == jnp.float32 for v in jax.tree.leaves(got))
    wide = bptt(CASES["leaky_recurrent"].oracle, *data("leaky_recurrent"))
    assert all(d < (0.05 if dtype == jnp.bfloat16 else 1e-5) for d in distances(got, wide).values())


def slow(p, h, x):
    """A leak of 0.999 in bfloat16 arithmetic is a leak of 1: the trace must not be rounded so."""
    h = p["a"] * h + x @ p["W"]
    return h, h


def test_a_slow_decay_is_not_rounded_to_one_in_the_trace():
    params = {"a": jnp.full((1,), 0.99609375, jnp.bfloat16), "W": jnp.ones((1, 1), jnp.bfloat16)}
    carry, xs = jnp.zeros((1, 1), jnp.bfloat16), jnp.zeros((400, 1, 1), jnp.bfloat16).at[0].set(1)
    ends = {}
    for dtype in (jnp.bfloat16, jnp.float32):
        learner = learner_for(slow, params, carry, xs[0], Rule("D_RTRL", PerParameter(dtype=dtype)))
        state = learner.init(params, carry)
        weight = jnp.zeros((400,)).at[-1].set(1)
        ends[dtype] = learner.etrace_grad(
            params,
            state,
            xs,
            loss_fn=lambda out: jnp.sum(out),
            mask=weight,
            reduction="sum",
            window=1,
        )[0]["W"]
    exact = 0.99609375**399
    assert abs(float(ends[jnp.float32][0, 0]) / exact - 1) < 0.05
    assert abs(float(ends[jnp.bfloat16][0, 0]) / exact - 1) > 0.05  # control


def test_integer_and_key_leaves_of_the_carry():
    params, carry, xs, ys = data("noise")
    learner = learner_for(CASES["noise"].cell, params, carry, xs[0])
    state = learner.etrace_grad(params, learner.init(params, carry), xs, ys, loss_fn=loss)[1]
    keys = jax.random.key_data(state.carry["key"])
    expected = jax.lax.scan(lambda c, x: CASES["noise"].cell(params, c, x), carry, xs)[0]
    np.testing.assert_array_equal(keys, jax.random.key_data(expected["key"]))
    params, carry, xs, ys = data("counter")
    learner = learner_for(CASES["counter"].cell, params, carry, xs[0])
    state = learner.etrace_grad(params, learner.init(params, carry), xs, ys, loss_fn=loss)[1]
    assert state.carry["n"].dtype == carry["n"].dtype
    assert state.carry["n"].tolist() == [5, 5]


def test_integer_parameters_have_no_gradient():
    """A parameter that is not differentiable is an operand like any other; its gradient is None."""

    def cell(p, h, x):
        h = 0.5 * h + jnp.tanh(x @ p["W"]) * (p["on"] > 0)
        return h, h

    params = {"W": jnp.ones((3, 4)), "on": jnp.array([1, 0, 1, 1])}
    carry, xs = jnp.zeros((2, 4)), jnp.linspace(-1, 1, 30).reshape(5, 2, 3)
    learner = learner_for(cell, params, carry, xs[0])
    given = {"loss_fn": lambda out: jnp.sum(out**2), "reduction": "sum"}
    got, _, _ = learner.etrace_grad(params, learner.init(params, carry), xs, **given)
    assert got["on"] is None

    def total(W):
        return jnp.sum(jax.lax.scan(lambda c, x: cell({**params, "W": W}, c, x), carry, xs)[1] ** 2)

    assert_same([got["W"]], [jax.grad(total)(params["W"])])
