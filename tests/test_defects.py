"""Gradients that online-learning libraries have got wrong, and what they must be.

Each row is one situation: the right gradient is that of BPTT, or of a two-evaluation oracle where
the rule leaves paths out; a control computes the gradient that the wrong rule gives and shows that
the test would notice it.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.nn import sigmoid, softmax

from braintrace.cell import BatchSpec
from engine._front_end import assert_same, data, distance, distances, learner_for, stepwise, summed
from zoo import CASES, bptt, loss
from zoo._interpret import once, run_once

I, N, O, B, T = 3, 4, 2, 2, 8
sg = lax.stop_gradient


def normal(*shape, seed=0, scale=0.6):
    return jnp.asarray(scale * np.random.default_rng([seed, *shape]).standard_normal(shape))


def leaky(**more):
    """Parameters of a leaky layer with a readout."""
    return {"a": normal(N), "W": normal(I, N), "o": normal(N, O)} | more


XS, YS = normal(T, B, I, scale=1.0), normal(T, B, O, seed=1, scale=1.0)
H0 = normal(B, N, seed=2)


def online(cell, params, carry=H0, xs=XS, ys=YS):
    """The online gradient, which is the same step by step and in windows of 1, 3 and the
    default.
    """
    learner = learner_for(cell, params, carry, jax.tree.map(lambda v: v[0], xs))

    @once
    def every_way(params, carry, xs, ys):
        state = learner.init(params, carry)
        given = {"loss_fn": loss, "reduction": "sum", "return_state": False}
        windows = [
            learner.etrace_grad(params, state, xs, ys, window=w, **given)[0] for w in (1, 3, None)
        ]
        return stepwise(learner, params, state, xs, ys)[0], windows

    first, others = every_way(params, carry, xs, ys)
    for other in others:
        assert_same(other, first)
    return first


def by_autodiff(cell, params, carry=H0, xs=XS, ys=YS):
    """Reverse mode through the scan of a cell: BPTT, or an oracle."""
    return run_once(partial(bptt, cell), params, carry, xs, ys)


def two_evaluations(live, local):
    """The new carry from one function, the output from another."""
    return lambda p, c, x: (local(p, c, x)[0], live(p, c, x)[1])


def far(wrong, right, *names, by=0.05):
    """Control: the wrong gradient is another one."""
    for name in names:
        assert distance(wrong[name], right[name]) > by, name


def test_a_parameters_outside_a_traced_operation():
    """Wrong: exactly zero for the readout, the reset weight of a GRU and a layer before another
    weight.
    """
    for name, outside in (
        ("gru_reset_before", ("Wr", "br", "o")),
        ("encoder", ("E", "o")),
        ("lru", ("C_re", "D")),
    ):
        case, given = CASES[name], data(name)
        right = by_autodiff(case.oracle, *given)
        got = online(case.cell, *given)
        assert_same(got, right)
        far(jax.tree.map(jnp.zeros_like, right), got, *outside, by=0.99)
    assert_same({"o": got["D"]}, {"o": by_autodiff(case.cell, *given)["D"]})


def synapse_into_membrane(p, c, x):
    g, v = c
    g = sigmoid(p["a"]) * g + x @ p["W"]
    v = 0.9 * v + jnp.tanh(g)
    return (g, v), jnp.tanh(v) @ p["o"]


@pytest.mark.parametrize("steps", [1, 8])
def test_b_states_that_feed_each_other_inside_a_step(steps):
    """Wrong: the path synapse -> membrane counted in the trace and in the learning signal, 2.0
    times at T=1.
    """
    params, carry = leaky(), (H0, normal(B, N, seed=3))
    xs, ys = XS[:steps], YS[:steps]
    right = by_autodiff(synapse_into_membrane, params, carry, xs, ys)
    assert_same(online(synapse_into_membrane, params, carry, xs, ys), right)
    if steps > 1:
        return

    def after(perturbation, W):
        """The step with the new states perturbed, and the new states."""
        g = sigmoid(params["a"]) * carry[0] + xs[0] @ W + perturbation[0]
        v = 0.9 * carry[1] + jnp.tanh(g) + perturbation[1]
        return summed(jnp.tanh(v) @ params["o"], ys[0]), (g, v)

    zero = jax.tree.map(jnp.zeros_like, carry)
    signal = jax.grad(lambda n: after(n, params["W"])[0])(zero)
    _, pull = jax.vjp(lambda W: after(zero, W)[1], params["W"])
    (twice,) = pull(signal)
    assert distance(twice, 2 * right["W"]) < 1e-10


def test_b_lstm():
    case, given = CASES["lstm"], data("lstm")
    assert_same(online(case.cell, *given), by_autodiff(case.oracle, *given))


def rolled(p, h, neighbour, x):
    h = sigmoid(p["a"]) * h + 0.5 * neighbour + x @ p["W"]
    return h, jnp.tanh(h) @ p["o"]


def test_c_mixing_by_anything_but_a_product():
    """Wrong: D by one VJP with ones, a column sum that counts the neighbour's edge as the own
    one.
    """
    params = leaky()
    cell = lambda p, h, x: rolled(p, h, jnp.roll(h, 1, axis=-1), x)
    right = by_autodiff(lambda p, h, x: rolled(p, h, sg(jnp.roll(h, 1, axis=-1)), x), params)
    assert_same(online(cell, params), right)
    column_sum = lambda p, h, x: rolled(p, h, sg(jnp.roll(h, 1, axis=-1) - h) + h, x)
    far(by_autodiff(column_sum, params), right, "W", "a")
    far(by_autodiff(cell, params), right, "W", "a")  # and the oracle is not BPTT
    for name in ("mean_subtraction", "cumulative_sum", "softmax_of_the_old_state", "inhibition"):
        case, given = CASES[name], data(name)
        assert_same(online(case.cell, *given), by_autodiff(case.oracle, *given))


def test_d_a_scale_or_mask_outside_the_operation():
    """Wrong: the gradient of the operand instead of the parameter, 0.5 times."""
    params = leaky()

    def scaled(p, h, x, scale=2.0):
        h = sigmoid(p["a"]) * h + jnp.tanh(x @ (scale * p["W"]))
        return h, h @ p["o"]

    right = by_autodiff(scaled, params)
    assert_same(online(scaled, params), right)
    operand = by_autodiff(lambda p, h, x: scaled(p, h, x, 1.0), params | {"W": 2.0 * params["W"]})
    assert distance(operand["W"], 0.5 * right["W"]) < 1e-10  # the wrong gradient


def test_e_a_sum_of_weights():
    """Wrong: zero for the second."""
    params = leaky(V=normal(I, N, seed=4))

    def cell(p, h, x):
        h = sigmoid(p["a"]) * h + jnp.tanh(x @ (p["W"] + p["V"]))
        return h, h @ p["o"]

    right = by_autodiff(cell, params)
    got = online(cell, params)
    assert_same(got, right)
    assert_same({"V": got["V"]}, {"V": got["W"]})
    assert distance(jnp.zeros_like(right["V"]), right["V"]) == 1


def twice(p, h, x, first=lambda w: w, second=lambda w: w, old=lambda h: h):
    h = sigmoid(p["a"]) * h + jnp.tanh(x @ first(p["W"]) + old(h) @ second(p["W"]))
    return h, h @ p["o"]


def test_f_one_weight_in_two_places():
    """Wrong: one use is lost."""
    params, xs = leaky(W=normal(N, N)), normal(T, B, N, scale=1.0)
    right = by_autodiff(lambda *a: twice(*a, old=sg), params, xs=xs)
    assert_same(online(twice, params, xs=xs), right)
    for lost in ({"first": sg}, {"second": sg}):
        far(by_autodiff(lambda *a, lost=lost: twice(*a, old=sg, **lost), params, xs=xs), right, "W")


def normalised(p, h, x, cut=lambda v: v):
    y = x @ p["W"]
    y = (y - cut(jnp.mean(y, -1, keepdims=True))) * cut(
        lax.rsqrt(jnp.var(y, -1, keepdims=True) + 0.1)
    )
    h = sigmoid(p["a"]) * h + y
    return h, jnp.tanh(h) @ p["o"]


def squashed(p, h, x, cut=lambda v: v):
    y = jnp.exp(x @ p["W"])
    h = sigmoid(p["a"]) * h + y / cut(jnp.sum(y, -1, keepdims=True))
    return h, jnp.tanh(h) @ p["o"]


@pytest.mark.parametrize("cell", [normalised, squashed])
def test_h_a_normalisation_between_the_operation_and_the_state(cell):
    """Wrong: zero. The own path is traced, and what the statistics do at this step is kept."""
    params = leaky()
    right = by_autodiff(two_evaluations(cell, lambda *a: cell(*a, cut=sg)), params)
    got = online(cell, params)
    assert_same(got, right)
    assert np.linalg.norm(right["W"]) > 0.1
    far(jax.tree.map(jnp.zeros_like, right), got, "W", by=0.99)


def test_h_the_librarys_softmax():
    params = leaky()

    def cell(p, h, x):
        h = sigmoid(p["a"]) * h + softmax(x @ p["W"])
        return h, jnp.tanh(h) @ p["o"]

    assert_same(
        online(cell, params),
        by_autodiff(two_evaluations(cell, lambda *a: squashed(*a, cut=sg)), params),
    )


def test_i_a_roll_between_the_operation_and_the_state():
    """Wrong: the trace sits where the product was, not where it goes: relative error above 1."""
    params = leaky()

    def cell(p, h, x, move=lambda y: jnp.roll(y, 1, axis=-1)):
        h = sigmoid(p["a"]) * h + move(x @ p["W"])
        return h, jnp.tanh(h) @ p["o"]

    right = by_autodiff(cell, params)
    assert_same(online(cell, params), right)
    far(
        by_autodiff(
            lambda *a: cell(*a, move=lambda y: sg(jnp.roll(y, 1, axis=-1) - y) + y), params
        ),
        right,
        "W",
        by=1,
    )


def with_clock(p, c, x):
    """A state with samples, and a clock without."""
    h = sigmoid(p["a"]) * c["h"] + jnp.cos(c["t"]) * jnp.tanh(x @ p["W"])
    return {"h": h, "t": c["t"] + 1}, h @ p["o"]


def test_q_a_reset_leaves_what_has_no_samples_alone():
    """Wrong: axis 0 of every array is taken for the batch."""
    params, carry = leaky(), {"h": H0, "t": jnp.zeros(())}
    assert_same(online(with_clock, params, carry), by_autodiff(with_clock, params, carry))
    learner = learner_for(with_clock, params, carry, XS[0])
    reset = jnp.zeros((T, B), bool).at[3].set(True)
    state = learner.init(params, carry)
    got, end, _ = learner.etrace_grad(
        params, state, XS, YS, loss_fn=loss, reduction="sum", reset=reset
    )
    pieces = [by_autodiff(with_clock, params, carry, XS[:3], YS[:3])]
    pieces.append(by_autodiff(with_clock, params, carry | {"t": jnp.asarray(3.0)}, XS[3:], YS[3:]))
    assert_same(got, jax.tree.map(jnp.add, *pieces))
    assert end.carry["t"] == T
    again = by_autodiff(
        with_clock, params, carry, XS[3:], YS[3:]
    )  # control: the clock set back too
    far(jax.tree.map(jnp.add, pieces[0], again), got, "W", by=0.01)


def test_q_a_reset_without_samples_is_refused():
    params, carry = leaky(), {"h": H0, "t": jnp.zeros(3)}
    cell = lambda p, c, x: with_clock(p, c | {"t": c["t"][0]}, x)

    def kept(p, c, x):
        new, out = cell(p, c, x)
        return new | {"t": c["t"] + 1}, out

    learner = learner_for(kept, params, carry, XS[0], batch=BatchSpec())
    state = learner.init(params, carry)
    with pytest.raises(ValueError, match="The batch that reset refers to is not known"):
        learner.etrace_grad(params, state, XS, YS, loss_fn=loss, reset=jnp.zeros((T, B), bool))
    assert_same(online(kept, params, carry), by_autodiff(kept, params, carry))


def adaptive(p, c, x, read=lambda a: a):
    V, a = c
    z = sigmoid(3 * (V - read(a)))
    V = sigmoid(p["a"]) * V + x @ p["W"] - z
    a = 0.9 * a + z
    return (V, a), sigmoid(3 * (V - a)) @ p["o"]


def test_r_two_old_states_in_one_equation():
    """Wrong: refused, or the path through the second state lost."""
    params, carry = leaky(), (H0, normal(B, N, seed=5))
    right = by_autodiff(adaptive, params, carry)
    assert_same(online(adaptive, params, carry), right)
    lost = two_evaluations(adaptive, lambda *a: adaptive(*a, read=sg))
    far(by_autodiff(lost, params, carry), right, "W", by=0.01)


def test_s_operations_that_were_refused():
    """Two embeddings driven by the same indices; a grouped convolution with a bias."""
    params = leaky(W=normal(5, N), V=normal(5, N, seed=6))
    indices = jnp.asarray(np.random.default_rng(0).integers(0, 5, (T, B)))

    def embedded(p, h, i):
        h = sigmoid(p["a"]) * h + jnp.tanh(p["W"][i] * p["V"][i])
        return h, h @ p["o"]

    right = by_autodiff(embedded, params, xs=indices)
    assert_same(online(embedded, params, xs=indices), right)
    params = {"K": normal(6, 2, 3), "b": normal(6, 1), "o": normal(6, O)}

    def convolved(p, h, x):
        y = lax.conv_general_dilated(x, p["K"], (1,), "SAME", feature_group_count=2)
        h = 0.7 * h + jnp.tanh(y + p["b"])
        return h, h.mean(-1) @ p["o"]

    given = (params, normal(B, 6, 5), normal(T, B, 4, 5))
    assert_same(online(convolved, *given), by_autodiff(convolved, *given))


def gru(p, h, x):
    xr, xz, xn = jnp.split(x @ p["W"], 3, axis=-1)
    hr, hz, hn = jnp.split(h @ p["U"], 3, axis=-1)
    z = sigmoid(xz + hz)
    return z * h + (1 - z) * jnp.tanh(xn + sigmoid(xr + hr) * hn)


def test_u_an_eager_call_is_not_traced_again():
    """Wrong: 610 ms for every step of a two-layer GRU of 128."""
    width, count = 128, [0]

    def cell(p, c, x):
        count[0] += 1
        h = gru(p[0], c[0], x)
        top = gru(p[1], c[1], h)
        return (h, top), top

    layer = {
        "W": normal(width, 3 * width, scale=0.05),
        "U": normal(width, 3 * width, seed=1, scale=0.05),
    }
    params, carry = (layer, layer), (jnp.zeros((1, width)),) * 2
    learner = learner_for(cell, params, carry, jnp.ones((1, width)))
    state = learner.init(params, carry)
    for _ in range(3):
        state, out = learner(params, state, jnp.ones((1, width)))
    assert count == [1]
    assert np.isfinite(out).all()
    learner_for(cell, params, carry, jnp.ones((1, width)))
    assert count == [2]  # control: the count notices a trace


def test_v_every_sub_step_is_traced():
    """Wrong: only the last one is."""
    params = leaky(u=normal(N, seed=7))

    def cell(p, h, x, only_last=False):
        def substep(h, k):
            q = jax.tree.map(lambda v: jnp.where(k < 2, sg(v), v), p) if only_last else p
            return sigmoid(q["a"]) * h + jnp.tanh(x @ q["W"] + q["u"] * h), None

        h, _ = lax.scan(substep, h, jnp.arange(3))
        return h, h @ p["o"]

    right = by_autodiff(cell, params)
    assert_same(online(cell, params), right)
    last = by_autodiff(lambda *a: cell(*a, only_last=True), params)
    far(last, right, "W", "a", "u")
    assert distances(last, right)["['o']"] < 1e-10
