"""Numbers that other libraries' algorithms get wrong: rows G, J to P, S and T of the table in
`test_defects.py`'s manner.

The right gradient is BPTT or the algorithm's oracle; a control computes the wrong one, or shows
that it would be seen.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import braintrace
from algorithms._rules import DECAYS, SUM, apart, drawn, learner, oracle, same, windowed
from algorithms.cells import EXAMPLES, LEAK, B, I, N, O, T, data, fire, lif, lif_move, read, stack
from braintrace.checks import (
    Layer,
    LayeredCell,
    bptt_gradient,
    eprop_oracle,
    layered_oracle,
    ottt_oracle,
    pp_prop_oracle,
)
from zoo import CASES, bptt
from zoo._interpret import run_once

sg = lax.stop_gradient


def compiled(cell, given, algorithm, **options):
    params, carry, xs, _ = given
    return braintrace.compile(
        cell, algorithm, jax.tree.map(lambda v: v[0], xs), params=params, carry=carry, **options
    )


def online(cell, given, algorithm, **options):
    this = compiled(cell, given, algorithm, **options)
    return run_once(lambda *given: windowed(this, given, 3), *given)


def by(program, cell, given, **options):
    run = lambda *given: program(cell, *given, **SUM, **options)[0]
    return run_once(run, *given)


def test_g_biases_accumulate_under_the_factorised_rule():
    """Wrong: no input side for biases, up to 17 times too small. A bias is the weight of a constant
    input of 1.
    """
    params, carry, xs, ys = data("one_lif")
    options = {"decay_or_rank": 0.9}
    got = online(EXAMPLES["one_lif"].cell, (params, carry, xs, ys), "pp_prop", **options)
    ones = jnp.concatenate([xs, jnp.ones((T, B, 1))], axis=-1)
    stacked = {"W": jnp.concatenate([params["W"], params["b"][None]]), "o": params["o"]}
    cell = stack(lif(recurrent=False, bias=False))
    row = online(cell, (stacked, carry, ones, ys), "pp_prop", **options)["W"]
    same({"b": got["b"], "W": got["W"]}, {"b": row[-1], "W": row[:-1]})
    right = oracle("pp_prop", "leaky_tanh")  # elementwise parameters too: tau
    same(
        {"tau": windowed(learner("pp_prop", "leaky_tanh"), data("leaky_tanh"), 3)["tau"]},
        {"tau": right["tau"]},
    )
    lost = by(pp_prop_oracle, EXAMPLES["one_lif"].cell, (params, carry, xs, ys), decays=(0.0, 0.9))[
        "b"
    ]
    assert jnp.linalg.norm(lost - got["b"]) > 0.5 * jnp.linalg.norm(
        got["b"]
    )  # control: no input side


def test_j_ottt_with_a_gain_between_drive_and_state():
    """Wrong: dh/dy left out, 10 times too large."""

    def layer(gain):
        move = lambda p, h, y: LEAK * (h - 0.3 * sg(fire(h))) + gain * y
        return stack(Layer(lambda p, below, own, one: below @ p["W"], move, fire), leak=None)

    params, carry, xs, ys = data("one_lif")
    given = ({"W": params["W"], "o": params["o"]}, carry[:1], 3 * xs, ys)
    got = online(layer(0.1), given, "ottt", leak=LEAK)
    same(got, by(bptt_gradient, layer(0.1), given))

    def without(p, h, y):
        """The drive's derivative is 1 and its value is scaled."""
        return LEAK * (h - 0.3 * sg(fire(h))) + y + sg(0.1 * y - y)

    wrong = stack(Layer(lambda p, below, own, one: below @ p["W"], without, fire), leak=None)
    same({"W": by(bptt_gradient, wrong, given)["W"]}, {"W": 10 * got["W"]})


def test_k_f_otpe_filters_twice_and_normalises():
    """Wrong: one filter and a sum of surrogates, 4.6 to 7.3 times too large."""
    params, carry, xs, ys = given = data("one_lif", steps=12)
    cell = EXAMPLES["one_lif"].cell
    got = online(cell, given, "otpe", leak=LEAK, mode="approx")

    def numbers(double, normalise):
        """The rule by hand, for the weight of one hidden layer."""

        def one(state, at):
            (V, y), once, twice, mean, count = state
            x, target = at
            (V, y), _ = cell(params, (V, y), x)
            psi = jax.grad(lambda v: fire(v).sum())(V)
            once = LEAK * once + x
            twice = LEAK * twice + once
            new = LEAK * count + 1
            mean = (LEAK * (count if normalise else 1.0) * mean + psi) / (new if normalise else 1.0)
            q = 2 * (y - target) @ params["o"].T
            return ((V, y), once, twice, mean, new), jnp.einsum(
                "bi,bo->io", twice if double else once, q * mean
            )

        start = (carry, jnp.zeros((B, I)), jnp.zeros((B, I)), jnp.zeros((B, N)), jnp.zeros(()))
        return lax.scan(one, start, (xs, ys))[1].sum(0)

    same({"W": got["W"]}, {"W": numbers(double=True, normalise=True)})
    for double, normalise in ((True, False), (False, True), (False, False)):
        wrong = numbers(double, normalise)
        assert jnp.linalg.norm(wrong - got["W"]) > 0.3 * jnp.linalg.norm(got["W"])


def test_l_kappa_sits_behind_the_spike_derivative():
    """Wrong: a filter on the state under the spike derivative of now, relative error 0.25."""
    given, kappa = data("recurrent_lif"), 0.7
    got = online(EXAMPLES["recurrent_lif"].cell, given, "eprop", kappa_filter_decay=kappa)
    same(got, by(eprop_oracle, EXAMPLES["recurrent_lif"].cell, given, kappa=kappa))

    def misplaced(params, carry, x):
        (h, y, filtered), layer = carry, EXAMPLES["recurrent_lif"].cell.layers[0]
        h = layer.move(params, h, layer.drive(params, x, sg(layer.out(h)), 1.0))
        filtered = kappa * filtered + h
        z = fire(h + (filtered - sg(filtered)) - (h - sg(h)))
        y = LEAK * sg(y) + z @ params["o"]
        return (h, y, filtered), y

    params, carry, xs, ys = given
    wrong = run_once(partial(bptt, misplaced), params, (*carry, jnp.zeros_like(carry[0])), xs, ys)
    assert apart(wrong, got)["W"] > 0.1


def test_l_kappa_moves_with_the_forward_pass():
    """Wrong: the filter stands still unless a backward pass runs. Here steps without a loss count
    as well.
    """
    params, carry, xs, ys = data("recurrent_lif")
    this = compiled(
        EXAMPLES["recurrent_lif"].cell, data("recurrent_lif"), "eprop", kappa_filter_decay=0.7
    )
    state = this.init(params, carry)
    for x in xs[:4]:
        state, _ = this.update(params, state, x)  # no gradient is asked for
    late, _, _ = this.etrace_grad(params, state, xs[4:], ys[4:], **SUM)
    mask = jnp.zeros((T, B)).at[4:].set(1.0)
    same(
        late,
        by(
            eprop_oracle,
            EXAMPLES["recurrent_lif"].cell,
            data("recurrent_lif"),
            kappa=0.7,
            mask=mask,
        ),
    )
    fresh, _, _ = this.etrace_grad(params, this.init(params, state.carry), xs[4:], ys[4:], **SUM)
    assert apart(fresh, late)["W"] > 0.1  # control: those steps matter


def test_m_one_signal_and_a_zero_target_gives_no_gradient():
    """Wrong: a mixture of two signals, and a gradient without a target."""
    params, carry, xs, _ = given = data("three_lif")
    this = compiled(EXAMPLES["three_lif"].cell, given, "osttp", feedback_key=0)
    for window in (1, 3, T):
        got = windowed(this, given, window, y_target=jnp.zeros((T, B, O)))
        assert all(not v.any() for k, v in got.items() if k != "o")
        assert jnp.linalg.norm(got["o"]) > 1
    for algorithm, options in (
        ("eprop", {"feedback": "random", "random_feedback_key": 0}),
        ("osttp", {"feedback_key": 0}),
    ):
        learner = compiled(EXAMPLES["three_lif"].cell, given, algorithm, **options)
        with pytest.raises(braintrace.UsageError, match="has no multi-step form"):
            learner.update_window(params, learner.init(params, carry), xs, full=True)


def test_n_random_feedback_acts_on_the_readouts_error():
    """Wrong: a square matrix on dL/dh, which still depends on the readout's weight. By hand: sum of
    (B e)_j eligibility_j.
    """
    params, carry, xs, ys = given = data("one_lif")
    carry = carry[:1]
    cell = stack(lif(recurrent=False), leak=None)
    given, b = (params, carry, xs, ys), drawn(N, O, seed=4)
    got = online(cell, given, "eprop", feedback="random", feedback_weights=[b])

    def one(state, at):
        h, trace = state
        x, target = at
        (h,), out = cell(params, (h,), x)
        trace = LEAK * trace + x
        signal = 2 * (out - target) @ b.T * jax.grad(lambda v: fire(v).sum())(h)
        return (h, trace), jnp.einsum("bi,bo->io", trace, signal)

    right = lax.scan(one, (carry[0], jnp.zeros((B, I))), (xs, ys))[1].sum(0)
    same({"W": got["W"]}, {"W": right})
    assert apart(online(cell, given, "d_rtrl"), got)["W"] > 0.1


def test_o_ostl_keeps_the_recurrence_and_the_past():
    """Wrong: a diagonal with the self-weight (SnAp-1), relative error 0.28 to 0.5; no temporal term
    in the feedforward form.
    """
    case = CASES["leaky_recurrent"]
    given = case.make(jax.random.key(0), T, B)
    right = run_once(partial(bptt, case.cell), *given)
    same(online(case.cell, given, "ostl_recurrent"), right)

    def snap(p, h, x):
        own = sg(p["U"]) * jnp.eye(len(p["U"]))
        drive = x @ p["W"] + sg(h) @ p["U"] + (h - sg(h)) @ own + p["b"]
        h = jax.nn.sigmoid(p["tau"]) * h + jnp.tanh(drive)
        return h, h @ p["o"]

    assert apart(run_once(partial(bptt, snap), *given), right)["U"] > 0.02
    given, cell = data("one_lif"), stack(lif(recurrent=False), leak=None)
    given = (given[0], given[1][:1], *given[2:])
    right = by(bptt_gradient, cell, given)
    same(online(cell, given, "ostl_feedforward"), right)
    assert (
        apart(by(ottt_oracle, cell, given, leak=0.0), right)["W"] > 0.1
    )  # control: no temporal term


def test_p_the_correction_of_the_factorised_rule_counts_steps():
    """Wrong: indexed by calls, dropped after 1000 steps. The windows of `etrace_grad` and of
    `update_window` agree.
    """
    params, carry, xs, ys = given = data("one_lif")
    this = compiled(EXAMPLES["one_lif"].cell, given, "pp_prop", decay_or_rank=0.9)
    right = by(pp_prop_oracle, EXAMPLES["one_lif"].cell, given, decays=(0.9, 0.9))

    def whole(params):
        _, outs = this.update_window(params, this.init(params, carry), xs)
        return jnp.sum(jnp.square(outs - ys))

    same(run_once(jax.grad(whole), params), right)
    state, _ = this.update_window(params, this.init(params, carry), xs)
    np.testing.assert_allclose(state.traces["weight"], 1 - 0.9**T)
    assert (
        abs(float(state.traces["weight"][0]) - 0.1) > 0.3
    )  # control: one call would have gathered 0.1


def one_hot(indices, size):
    return jnp.asarray(np.eye(size)[np.asarray(indices)])


def test_s_two_embeddings_under_the_factorised_rule():
    """Wrong: a crash. An embedding of an index is the product with a one-hot vector."""
    indices = np.random.default_rng(1).integers(0, 5, (T, B))
    params = {
        "W": jnp.asarray(drawn(5, N)),
        "V": jnp.asarray(drawn(5, N, seed=1)),
        "o": jnp.asarray(drawn(N, O)),
    }
    carry, ys = (jnp.zeros((B, N)),), jnp.asarray(drawn(T, B, O))

    def layers(drive):
        move = lambda p, h, y: 0.7 * h + jnp.tanh(y[0] * y[1])
        return LayeredCell((Layer(drive, move, jnp.tanh),), read)

    tables = layers(lambda p, below, own, one: (p["W"][below], p["V"][below]))
    products = layers(lambda p, below, own, one: (below @ p["W"], below @ p["V"]))
    got = online(tables, (params, carry, jnp.asarray(indices), ys), "pp_prop", decay_or_rank=DECAYS)
    same(got, by(pp_prop_oracle, products, (params, carry, one_hot(indices, 5), ys), decays=DECAYS))
    exact = online(tables, (params, carry, jnp.asarray(indices), ys), "d_rtrl")
    assert apart(exact, got)["W"] > 1e-2


def test_s_grouped_convolution_with_a_bias_under_the_factorised_rule():
    """Wrong: a refusal."""
    params = {
        "K": jnp.asarray(drawn(3, 1, 4)),
        "b": jnp.asarray(drawn(4)),
        "o": jnp.asarray(drawn(20, O)),
    }
    dims = ("NWC", "WIO", "NWC")

    def drive(p, below, own, one):
        return (
            lax.conv_general_dilated(
                below, p["K"], (1,), "SAME", dimension_numbers=dims, feature_group_count=2
            )
            + one * p["b"]
        )

    cell = stack(Layer(drive, lif_move, fire))
    carry = (jnp.zeros((B, 5, 4)), jnp.zeros((B, O)))
    given = (params, carry, jnp.asarray(drawn(T, B, 5, 2)), jnp.asarray(drawn(T, B, O)))
    right = by(pp_prop_oracle, cell, given, decays=DECAYS)
    same(online(cell, given, "pp_prop", decay_or_rank=DECAYS), right)
    assert apart(by(layered_oracle, cell, given), right)["b"] > 1e-2


def test_t_memory_of_the_exact_rule_is_linear_in_the_samples():
    """Wrong: one Jacobian over batch and neurons, (B n)^2."""
    n, steps = 16, 4

    def needed(samples):
        case = EXAMPLES["leaky_tanh"]
        number = lambda *shape: jnp.full(shape, 0.1, jnp.float32)
        params = {
            "tau": number(n),
            "W": number(I, n),
            "U": number(n, n),
            "b": number(n),
            "o": number(n, O),
        }
        carry, xs, ys = (number(samples, n),), number(steps, samples, I), number(steps, samples, O)
        this = compiled(case.cell, (params, carry, xs, ys), "ostl_recurrent")
        run = lambda p, s: this.etrace_grad(p, s, xs, ys, window=1, **SUM)[:2]
        analysis = jax.jit(run).lower(params, this.init(params, carry)).compile().memory_analysis()
        return analysis.temp_size_in_bytes + analysis.output_size_in_bytes

    small, middle, large = needed(8), needed(16), needed(32)
    slope = (large - middle) / (middle - small)
    assert 1.6 < slope < 2.4, (small, middle, large)  # quadratic growth would give 4
    assert (
        large < (32 * n) ** 2 * 4 * n
    )  # far below a Jacobian over batch and neurons for each weight's row
