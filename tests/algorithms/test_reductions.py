"""Where two algorithms are one, and where an algorithm is exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import braintrace
from braintrace.checks import bptt_gradient
from braintrace.rules import ALGORITHMS
from zoo import CASES as ZOO
from zoo import loss
from zoo._interpret import run_once

from ._rules import SUM, apart, drawn, oracle, same, windowed
from .cells import EXAMPLES, LEAK, B, N, T, data


def online(cell, given, algorithm, window=3, **options):
    """The gradient of a sequence by an algorithm."""
    params, carry, xs, _ = given
    this = braintrace.compile(cell, algorithm, xs[0], params=params, carry=carry, **options)
    return run_once(lambda *given: windowed(this, given, window), *given)


def on(name, algorithm, **options):
    return online(EXAMPLES[name].cell, data(name), algorithm, **options)


def bptt(cell, given):
    run = lambda *given: bptt_gradient(cell, *given, **SUM)[0]
    return run_once(run, *given)


@pytest.mark.parametrize("name", ["leaky_tanh", "two_alif"])
def test_eprop_without_filter_is_d_rtrl(name):
    right = oracle("d_rtrl", name)
    same(on(name, "eprop", kappa_filter_decay=0.0), right)
    assert max(apart(on(name, "eprop", kappa_filter_decay=0.5), right).values()) > 1e-2


@pytest.mark.parametrize("name", ["one_lif", "three_lif"])
def test_ottt_is_ostl_without_recurrence_on_a_single_state_with_detached_reset(name):
    right = on(name, "ostl_feedforward")
    same(on(name, "ottt", leak=LEAK, bias_trace=True), right)
    same(on(name, "ottt", leak="model"), on(name, "ottt", leak=LEAK))
    off = apart(
        on(name, "ottt", leak=LEAK), right
    )  # the paper's biases have no trace; the weights are the same
    assert all((d < 1e-10) == (not k.startswith("b")) for k, d in off.items()), off
    assert apart(on(name, "ottt", leak=0.5), right)["o"] > 1e-2


@pytest.mark.parametrize("name", ["leaky_tanh", "two_alif"])
def test_mdgl_with_zero_weights_is_eprop(name):
    params, *rest = data(name)
    given = {k: v * (k[0] != "U") for k, v in params.items()}, *rest
    cell, kappa = EXAMPLES[name].cell, {"kappa_filter_decay": 0.6}
    right = online(cell, given, "eprop", **kappa)
    same(online(cell, given, "mdgl", **kappa), right, 1e-12)
    weights = online(cell, data(name), "mdgl", **kappa)
    assert max(apart(weights, online(cell, data(name), "eprop", **kappa)).values()) > 1e-2


@pytest.mark.parametrize("name", ["gru", "two_alif"])
def test_mdgl_is_d_rtrl_with_bptt_inside_windows_of_one_step(name):
    """The traces are local, and the signal of a step is the whole derivative of its loss."""
    params, carry, xs, _ = given = data(name)
    this = braintrace.compile(EXAMPLES[name].cell, "d_rtrl", xs[0], params=params, carry=carry)
    run = lambda *given: steps_alone(this, given)
    same(run_once(run, *given), on(name, "mdgl"), 1e-12)


def steps_alone(this, given):
    """Gradients of windows of one step with BPTT inside, added up."""
    params, carry, xs, ys = given
    state, total = this.init(params, carry), jax.tree.map(jnp.zeros_like, params)
    for x, y in zip(xs, ys, strict=True):

        def objective(params, state=state, x=x, y=y):
            new, outs = this.update_window(params, state, x[None], full=True)
            return jnp.sum(loss(outs[0], y)), new

        found, state = jax.grad(objective, has_aux=True)(params)
        total = jax.tree.map(jnp.add, total, found)
    return total


def linear(p, h, x):
    h = LEAK * h + h @ p["U"] + x @ p["W"] + p["b"]
    return h, h @ p["o"]


def linear_of_both(p, h, x):
    """One product of the inputs beside the layer's own activity."""
    weight = jnp.concatenate([p["W"], p["U"]])
    h = LEAK * h + jnp.concatenate([x, h], -1) @ weight + p["b"]
    return h, h @ p["o"]


def linear_convolution(p, h, x):
    numbers = {"dimension_numbers": ("NWC", "WIO", "NWC")}
    before = jax.lax.conv_general_dilated(h, p["U"][:3, :1, None], (1,), "SAME", **numbers)
    h = LEAK * h + before + (x @ p["W"] + p["b"])[..., None]
    return h, h[..., 0] @ p["o"]


@pytest.mark.parametrize("cell", [linear, linear_of_both, linear_convolution])
def test_modprop_of_a_linear_network_is_bptt(cell):
    """With mu its slope, and as many taps as steps; the error falls with the taps."""
    params, carry, *rest = data("recurrent_lif")
    h = carry[0][..., None] if cell is linear_convolution else carry[0]
    given = {**params, "U": 0.3 * params["U"]}, h, *rest
    right, options = bptt(cell, given), {"mu": 1.0, "leak": "model"}
    same(online(cell, given, "modprop", taps=T, **options), right)
    same(online(cell, given, "modprop", window=1, taps=T, **options), right)
    off = [apart(online(cell, given, "modprop", taps=k, **options), right)["W"] for k in (1, 3, 5)]
    assert off[0] > off[1] > off[2] > 1e-3, off
    assert apart(online(cell, given, "modprop", taps=T, mu=0.9, leak=LEAK), right)["W"] > 1e-3


@pytest.mark.parametrize(("scale", "grows"), [(0.05, False), (2.0, True)])
def test_modprop_warns_of_signals_that_grow(scale, grows):
    params, carry, xs, _ = data("recurrent_lif")
    params = {**params, "U": scale * params["U"]}
    settings = {"params": params, "carry": carry[0], "leak": LEAK, "mu": 1.0}
    rows = braintrace.compile(linear, "modprop", xs[0], **settings).graph.parameters
    warned = {row.path: row.warnings for row in rows}
    radius = np.abs(np.linalg.eigvals(LEAK * np.eye(N) + params["U"])).max()
    assert bool(radius > 1) is grows
    assert any(f"mu W is {radius:.3g}" in w for w in warned["['U']"]) is grows, warned
    assert not warned["['o']"]


@pytest.mark.parametrize("name", ["three_lif", "recurrent_lif", "two_alif"])
def test_s_tllr_without_past_slopes_is_ottt(name):
    right = on(name, "ottt", leak=LEAK)
    same(on(name, "s_tllr", lambda_pre=LEAK, alpha_post=0.0), right, 1e-12)
    # the code of the term, with a weight that rounds to nothing
    same(on(name, "s_tllr", lambda_pre=LEAK, alpha_post=1e-300), right, 1e-12)
    assert max(apart(on(name, "s_tllr", lambda_pre=LEAK), right).values()) > 1e-2


def test_otpe_on_one_hidden_layer_under_an_output_of_equal_leak_is_bptt():
    right = oracle("bptt", "one_lif")
    same(on("one_lif", "otpe", leak=LEAK), right)
    assert apart(on("one_lif", "d_rtrl"), right)["W"] > 1e-2
    assert apart(on("one_lif", "otpe", leak=0.5), right)["W"] > 1e-2
    deep, bptt_deep = oracle("otpe", "three_lif"), oracle("bptt", "three_lif")
    off = apart(deep, bptt_deep)
    assert off["W3"] < 1e-10 < 1e-2 < off["W1"], (
        off
    )  # the top hidden layer is exact, those below are not


def test_eprop_with_the_readouts_own_kappa_is_bptt_without_recurrence():
    for name in ("one_lif", "conv_lif", "synapse"):
        same(on(name, "eprop", kappa_filter_decay="readout"), oracle("bptt", name))


@pytest.mark.parametrize(
    "name",
    ["gru_reset_before", "gru_reset_after", "lstm", "alif", "conv1d_recurrent", "layer_norm"],
)
def test_ostl_with_recurrence_is_bptt_on_one_layer(name):
    case = ZOO[name]
    given = case.make(jax.random.key(3), T, B)
    right = bptt(case.cell, given)
    for window in (1, 3):
        same(online(case.cell, given, "ostl_recurrent", window), right)
    assert max(apart(online(case.cell, given, "ostl_feedforward"), right).values()) > 1e-3


@pytest.mark.parametrize("algorithm", ["eprop", "rflo"])
def test_the_readouts_weight_as_feedback_is_symmetric_feedback(algorithm):
    for name in ("leaky_tanh", "recurrent_lif"):
        chosen = {"feedback": "random"} if algorithm == "eprop" else {}
        given = {"feedback_weights": [np.asarray(data(name)[0]["o"])]}
        same(on(name, algorithm, **chosen, **given), oracle("d_rtrl", name))
        assert (
            apart(on(name, algorithm, **chosen, random_feedback_key=0), oracle("d_rtrl", name))["W"]
            > 1e-2
        )


def test_random_feedback_does_not_see_the_readouts_weight():
    """With the error held fixed, the hidden gradient stays the same whatever the readout is: a
    linear loss.
    """
    params, carry, xs, ys = data("leaky_tanh")
    this = braintrace.compile(
        EXAMPLES["leaky_tanh"].cell,
        "rflo",
        xs[0],
        params=params,
        carry=carry,
        random_feedback_key=1,
    )
    linear = lambda out, y: jnp.sum(out * y, axis=-1)
    found = [
        this.etrace_grad(p, this.init(p, carry), xs, ys, loss_fn=linear, window=3)[0]
        for p in (params, params | {"o": 3.0 * params["o"] + 1.0})
    ]
    same({"W": found[1]["W"], "U": found[1]["U"]}, {"W": found[0]["W"], "U": found[0]["U"]})


def test_adaptive_feedback_aligns_with_the_readout():
    params, carry, xs, ys = data("leaky_tanh")
    options = {
        "feedback": "adaptive",
        "random_feedback_key": 2,
        "feedback_scale": 3.0,
        "feedback_decay": 0.02,
    }
    this = braintrace.compile(
        EXAMPLES["leaky_tanh"].cell, "eprop", xs[0], params=params, carry=carry, **options
    )

    def cosine(params, state):
        (e,) = (
            v
            for v, leaf in zip(state.traces["extra"], this.graph.extra, strict=True)
            if leaf.name == "feedback"
        )
        w = params["o"]
        return jnp.vdot(w, w + e) / jnp.linalg.norm(w) / jnp.linalg.norm(w + e)

    def train(both, _):
        params, state = both
        found, state, _ = this.etrace_grad(params, state, xs, ys, loss_fn=loss, window=3)
        params = jax.tree.map(lambda p, g: p - 0.01 * g, params, found)
        return (params, state), cosine(params, state)

    start = this.init(params, carry)
    _, cosines = run_once(lambda *s: jax.lax.scan(train, s, length=60), params, start)
    assert cosine(params, start) < 0.9
    assert cosines[-1] > 0.999


def test_a_rank_stands_for_a_decay():
    carrier = lambda name, value: ALGORITHMS[name](decay_or_rank=value).parts().carrier
    for rank, decay in ((1, 0.0), (3, 0.5), (19, 0.9)):
        right = carrier("pp_prop", decay)
        assert carrier("pp_prop", rank) == carrier("pp_prop", (rank, decay)) == right
        assert carrier("ostl_feedforward", rank) == right
    assert carrier("pp_prop", 1) != carrier("pp_prop", 0.9)
    right = on("one_lif", "pp_prop", decay_or_rank=3)
    same(on("one_lif", "es_d_rtrl", decay_or_rank=0.5), right, 1e-14)
    assert apart(on("one_lif", "pp_prop", decay_or_rank=19), right)["W"] > 1e-2
    same(
        on("one_lif", "pp_prop", decay_or_rank=0.0), on("one_lif", "ottt", leak=0.0)
    )  # no past at all


def factorised_learner(samples=B):
    params, carry, xs, ys = data("one_lif", samples=samples)
    cell = EXAMPLES["one_lif"].cell
    return braintrace.compile(
        cell, "pp_prop", xs[0], params=params, carry=carry, decay_or_rank=0.9
    ), (params, carry, xs, ys)


def test_the_correction_counts_steps_and_not_calls():
    this, (params, carry, xs, _) = factorised_learner()
    state = this.init(params, carry)
    after, _ = this.update_window(params, state, xs)
    np.testing.assert_allclose(
        after.traces["weight"], 1 - 0.9**T, rtol=1e-12
    )  # 0.469, not the 0.1 of one call
    for x in xs:
        state, _ = this.update(params, state, x)
    np.testing.assert_allclose(state.traces["weight"], after.traces["weight"], rtol=1e-12)


def test_the_correction_is_reset_with_a_sample():
    this, (params, carry, xs, ys) = factorised_learner()
    reset = jnp.zeros((T, B), bool).at[4, 1].set(True)
    _, state, _ = this.etrace_grad(params, this.init(params, carry), xs, ys, reset=reset, **SUM)
    np.testing.assert_allclose(state.traces["weight"], [1 - 0.9**T, 1 - 0.9**2], rtol=1e-12)


def test_the_correction_goes_on_for_ever():
    """Beyond 1000 steps it neither drops out nor wraps."""
    params, carry, xs, _ = data("one_lif")
    options = {"params": params, "carry": carry, "decay_or_rank": 0.999}
    this = braintrace.compile(EXAMPLES["one_lif"].cell, "pp_prop", xs[0], **options)
    long = jnp.tile(xs, (250, 1, 1))
    state, _ = jax.jit(this.update_window)(params, this.init(params, carry), long)
    np.testing.assert_allclose(state.traces["weight"], 1 - 0.999 ** len(long), rtol=1e-9)
    assert state.traces["weight"][0] < 0.8  # control: at 1500 steps the correction still counts
    last = jnp.iinfo(jnp.int32).max
    state = type(state)(state.carry, state.traces, jnp.asarray(last, jnp.int32))
    later, _ = this.update(params, state, xs[0])
    assert later.steps == last
    assert (
        np.isfinite(later.traces["weight"]).all()
        and (later.traces["weight"] > state.traces["weight"]).all()
    )


def test_depth_is_right():
    """The oracle of OSTL keeps what BPTT keeps in the top layer of a stack, and not in the layer
    below.
    """
    off = apart(oracle("ostl_recurrent", "two_alif"), oracle("bptt", "two_alif"))
    assert off["W1"] > 1e-2, off


def test_a_target_at_the_end_is_a_target_of_each_samples_last_counted_step():
    params, carry, xs, ys = data("recurrent_lif")
    cell, B_list = EXAMPLES["recurrent_lif"].cell, [drawn(3, N)]
    options = {"params": params, "carry": carry, "B_list": B_list}
    per_step = braintrace.compile(cell, "osttp", xs[0], **options)
    at_end = braintrace.compile(cell, "osttp", xs[0], **options, target_timing="sequence-end")
    y, mask = jnp.asarray(drawn(B, 3)), jnp.ones((T, B)).at[T - 2 :, 1].set(0.0)
    steps = jnp.zeros((T, B, 3)).at[T - 1, 0].set(y[0]).at[T - 3, 1].set(y[1])

    def gradient(this, y_target):
        return this.etrace_grad(
            params, this.init(params, carry), xs, ys, mask=mask, window=3, y_target=y_target, **SUM
        )[0]

    right = gradient(per_step, steps)
    same(gradient(at_end, y), right)
    late = steps.at[T - 1, 1].set(y[1]).at[T - 3, 1].set(0.0)
    assert apart(gradient(per_step, late), right)["W"] > 1e-3  # control: the step matters
