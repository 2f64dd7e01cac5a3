"""What is left out on purpose: frozen parameters, parameters without a trace, and edges that no
trace passes.

The oracles evaluate a marked step twice, as the zoo does; for `stop_trace` the mark `edge` stands
around the value: stopped in the evaluation that gives the next carry, and in the one that gives the
output without the old state's part.
"""

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.nn import sigmoid

import braintrace
from braintrace import CompilationError, UsageError, checks
from zoo._case import keep, spike

from .cells import IN, OUT, B, N, T, assert_close, data, sample_loss, sequence_gradient

sg = lax.stop_gradient
ZERO = jnp.zeros((B, N))
WINDOWS = [1, 3, None]


def weights(**shapes):
    rng = np.random.default_rng(2)
    return {name: jnp.asarray(0.6 * rng.standard_normal(shape)) for name, shape in shapes.items()}


PARAMS = weights(w=(IN, N), u=(N, N), a=(N,), out=(N, OUT), b=(OUT,))


def step(p, h, x, old=keep, mix=keep):
    """A gated layer: `a` scales a path from each unit to itself, `u` is recurrent."""
    drive = mix(x) @ p["w"] + mix(old(h)) @ p["u"]
    h = sigmoid(p["a"]) * h + jnp.tanh(drive)
    return h, h @ p["out"] + p["b"]


def oracle(names):
    """Two evaluations; in the one that gives the next carry, parameters in `names` are stopped."""

    def both(p, h, x):
        kept = {k: sg(v) if k in names else v for k, v in p.items()}
        new, _ = step(kept, h, x, old=sg, mix=sg)
        _, out = step(p, h, x, old=sg, mix=keep)
        return new, out

    return both


def compiled(cell=step, params=PARAMS, carry=ZERO, algorithm="d_rtrl", **options):
    return braintrace.compile(
        lambda p, c, x: cell(p, c, x),
        algorithm,
        data()[0][0],
        params=params,
        carry=carry,
        **options,
    )


def gradient(learner, window, params=PARAMS, carry=ZERO):
    xs, ys = data()
    start = learner.init(params, carry)
    return learner.etrace_grad(
        params, start, xs, ys, loss_fn=sample_loss, window=window, reduction="sum"
    )[0]


def stepwise(learner, params=PARAMS, carry=ZERO):
    state, total = learner.init(params, carry), None
    for x, y in zip(*data(), strict=True):

        def loss(params, state=state, x=x, y=y):
            state, out = learner.update(params, state, x)
            return sample_loss(out, y).sum(), state

        one, state = jax.grad(loss, has_aux=True)(params)
        total = one if total is None else jax.tree.map(jnp.add, total, one)
    return total


# exclude
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [["u"], ["a"], ["w", "a"], ["w", "u", "a"]], ids="+".join)
def test_excluded_parameters_have_an_instantaneous_gradient(names):
    xs, ys = data()
    learner = compiled(exclude=names)
    expected, plain = (sequence_gradient(oracle(n), PARAMS, ZERO, xs, ys) for n in (names, []))
    for window in WINDOWS:
        assert_close(gradient(learner, window), expected)
    assert_close(stepwise(learner), expected)
    rows = {row.path: row for row in learner.graph.parameters}
    for name in names:
        assert rows[f"['{name}']"].exactness == "instantaneous"
        assert not rows[f"['{name}']"].sites
        assert jnp.abs(expected[name] - plain[name]).max() > 1e-3, (
            "control: with a trace it is another number"
        )
    others = [k for k in PARAMS if k not in names]
    assert_close({k: expected[k] for k in others}, {k: plain[k] for k in others})
    assert checks.check_gradients(
        learner, PARAMS, learner.init(PARAMS, ZERO), xs, ys, loss_fn=sample_loss
    ).ok


@pytest.mark.parametrize(
    "options", [{"exclude": ["u"]}, {"trainable": ["w", "u", "out"]}], ids=["exclude", "trainable"]
)
def test_with_masks_and_resets(options):
    """Samples that are reset, and losses that do not count, against the oracle of a step that
    starts from the marks.
    """
    xs, ys = data()
    marks = jnp.zeros((T, B), bool).at[3, 1].set(True).at[5].set(True)
    mask = jnp.arange(T)[:, None] < jnp.array([7, 4, 5, 6])
    plain = oracle(options.get("exclude", []))
    first = ZERO + 0.3

    def total(p):
        afresh = lambda h, at: plain(p, jnp.where(at[1][:, None], first, h), at[0])
        outs = lax.scan(afresh, first, (xs, marks))[1]
        return jnp.sum(jax.vmap(sample_loss)(outs, ys) * mask)

    expected = jax.grad(total)(PARAMS)
    learner = compiled(carry=first, **options)
    for window in WINDOWS:
        found, *_ = learner.etrace_grad(
            PARAMS,
            learner.init(PARAMS, first),
            xs,
            ys,
            loss_fn=sample_loss,
            window=window,
            reduction="sum",
            reset=marks,
            mask=mask,
        )
        trained = [k for k, v in found.items() if v is not None]
        assert len(trained) == (5 if "exclude" in options else 3)
        assert_close({k: found[k] for k in trained}, {k: expected[k] for k in trained})


def test_what_is_excluded_costs_no_trace():
    size = lambda learner: sum(v.size for v in jax.tree.leaves(learner.init(PARAMS, ZERO).traces))
    assert size(compiled()) - size(compiled(exclude="u")) == B * N * N
    assert size(compiled(exclude=["u", "w", "a"])) == 0
    assert size(compiled()) - size(compiled(trainable=["w", "a", "out", "b"])) == B * N * N


@pytest.mark.parametrize("algorithm", ["pp_prop", "eprop", "ostl_recurrent", "rflo", "ottt"])
def test_windows_agree_with_steps_under_other_rules(algorithm):
    """Instantaneous by definition: with no later loss than the first the gradient is that of the
    first step, trace or not.
    """
    options = {
        "pp_prop": {"decay_or_rank": 0.9},
        "ottt": {"leak": 0.9},
        "rflo": {"random_feedback_key": 0},
    }.get(algorithm, {})
    learner, plain = (
        compiled(algorithm=algorithm, exclude="w", **options),
        compiled(algorithm=algorithm, **options),
    )
    found = [gradient(learner, window) for window in WINDOWS]
    assert_close(found[0], found[1])
    assert_close(found[0], found[2])
    assert jnp.abs(found[0]["w"] - gradient(plain, 1)["w"]).max() > 1e-3
    for name in ("u", "a", "out", "b"):
        np.testing.assert_allclose(found[0][name], gradient(plain, 1)[name], rtol=1e-10, atol=1e-12)
    xs, ys = data()
    of_step = jnp.zeros_like(
        PARAMS["w"]
    )  # the sum of the gradients of each step's loss alone, from a state without a trace
    state = plain.init(PARAMS, ZERO)
    for t in range(T):
        part = slice(t, t + 1)
        state = plain.init(PARAMS, state.carry)
        one, state, _ = plain.etrace_grad(
            PARAMS, state, xs[part], ys[part], loss_fn=sample_loss, reduction="sum"
        )
        of_step += one["w"]
    if algorithm in (
        "pp_prop",
        "ostl_recurrent",
    ):  # the others filter or project what comes from earlier steps
        np.testing.assert_allclose(found[0]["w"], of_step, rtol=1e-9, atol=1e-12)


def test_a_weight_made_of_both_kinds_is_refused():
    cell = lambda p, h, x: (0.9 * h + x @ (p["w"] * p["g"]), h)
    params = weights(w=(IN, N), g=(N,))
    with pytest.raises(CompilationError, match=r"got:      \[\"\['g'\]\", \"\['w'\]\"\]"):
        compiled(cell, params, exclude="g")
    assert str(compiled(cell, params, trainable="w").report).count("frozen")
    assert compiled(cell, params, exclude=["w", "g"]).graph.exactness("['g']") == "instantaneous"


# trainable
# --------------------------------------------------------------------------------------------------


def test_frozen_parameters_have_no_gradient():
    xs, ys = data()
    learner = compiled(trainable=["w", "out"])
    expected = sequence_gradient(oracle([]), PARAMS, ZERO, xs, ys)
    for window in WINDOWS:
        found = gradient(learner, window)
        assert found["u"] is None and found["a"] is None and found["b"] is None
        assert_close(found["w"], expected["w"])
        assert_close(found["out"], expected["out"])
    zero = stepwise(learner)
    assert not zero["u"].any() and not zero["b"].any()
    assert_close(zero["w"], expected["w"])
    rows = {row.path: str(row.exactness) for row in learner.graph.parameters}
    assert rows == {
        "['w']": "approximate",
        "['u']": "frozen",
        "['a']": "frozen",
        "['out']": "exact",
        "['b']": "frozen",
    }
    assert "3 frozen" in str(learner.report)
    report = learner.check_gradients(
        PARAMS, learner.init(PARAMS, ZERO), xs, ys, loss_fn=sample_loss
    )
    assert [row.path for row in report.rows] == ["['out']", "['w']"] and report.ok


@pytest.mark.parametrize("mode", ["A", "O"])
def test_an_optimizer_leaves_frozen_parameters_alone(mode):
    optax = pytest.importorskip("optax")
    xs, ys = data()
    learner = compiled(trainable=["w", "out"])
    optimizer = optax.adamw(1e-2, weight_decay=0.1)
    trained = learner.trained(PARAMS)
    assert trained["u"] is None
    params, *_ = learner.etrace_fit(
        PARAMS,
        optimizer.init(trained),
        learner.init(PARAMS, ZERO),
        xs,
        ys,
        optimizer=optimizer,
        mode=mode,
        loss_fn=sample_loss,
    )
    assert all((params[k] == PARAMS[k]).all() for k in ("u", "a", "b"))
    assert all((params[k] != PARAMS[k]).all() for k in ("w", "out"))


# Patterns
# --------------------------------------------------------------------------------------------------

NESTED = {
    "cell": {"w": PARAMS["w"], "u": PARAMS["u"]},
    "layers": [PARAMS["out"]],
    "a": PARAMS["a"],
    "b": PARAMS["b"],
}


def nested(p, h, x):
    return step({**p["cell"], "a": p["a"], "b": p["b"], "out": p["layers"][0]}, h, x)


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [
        ("cell", {"['cell']['w']", "['cell']['u']"}),
        ("cell.*", {"['cell']['w']", "['cell']['u']"}),
        ("*.u", {"['cell']['u']"}),
        ("layers.0", {"['layers'][0]"}),
        ("['layers'][0]", {"['layers'][0]"}),
        ("?", {"['a']", "['b']"}),
        (["a", "*w"], {"['a']", "['cell']['w']"}),
        (lambda path, leaf: leaf.ndim == 1, {"['a']", "['b']"}),
        ((lambda path, leaf: path == "cell.u", "b"), {"['cell']['u']", "['b']"}),
    ],
)
def test_patterns(patterns, chosen):
    learner = compiled(nested, NESTED, trainable=patterns)
    trained = {row.path for row in learner.graph.parameters if row.exactness != "frozen"}
    assert trained == chosen


@pytest.mark.parametrize("option", ["trainable", "exclude"])
def test_a_pattern_that_matches_nothing(option):
    paths = r"some of \['a', 'b', 'cell.u', 'cell.w', 'layers.0'\]"
    for wrong in ("kernel", lambda path, leaf: False, ["a", "cell.v"]):
        with pytest.raises(
            UsageError, match=rf"{option} matches no parameter\.\n.*\n  expected: {paths}"
        ):
            compiled(nested, NESTED, **{option: wrong})
    with pytest.raises(UsageError, match=f"Wrong {option}"):
        compiled(nested, NESTED, **{option: [3]})


# stop_trace
# --------------------------------------------------------------------------------------------------

EDGE = weights(w=(IN, N), u=(N, N), out=(N, OUT), slow=(N, OUT))
TWO = (ZERO + 0.1, ZERO - 0.2)


def adaptive(p, carry, x, old=keep, mix=keep, edge=braintrace.stop_trace):
    """A membrane and an adaptation: the marked edge is that from adaptation to membrane."""
    v, a = carry
    v = 0.8 * v + mix(x) @ p["w"] + mix(old(jnp.tanh(v))) @ p["u"] - edge(0.5 * jnp.tanh(a))
    a = 0.9 * a + jnp.tanh(v)
    return (v, a), v @ p["out"] + a @ p["slow"]


def reset(p, carry, x, old=keep, mix=keep, edge=braintrace.stop_trace):
    """A spiking layer with a reset that no trace passes, under a leaky readout."""
    v, y = carry
    z = spike(v - 0.3)
    v = 0.9 * v + mix(x) @ p["w"] + mix(old(z)) @ p["u"] - edge(z)
    y = 0.7 * y + mix(spike(v - 0.3)) @ p["out"]
    return (v, y), y


def gated_input(p, h, x, old=keep, mix=keep, edge=braintrace.stop_trace):
    """A marked edge on the way of a parameter that came into being at the same step."""
    h = 0.8 * h + edge(jnp.tanh(x @ p["w"] + mix(old(h)) @ p["u"])) + jnp.tanh(x @ p["w"]) * 0.3
    return h, h @ p["out"]


def both_in_one(p, h, x, old=keep, mix=keep, edge=braintrace.stop_trace):
    """A marked edge that holds the old state of its own unit and what came into being at this
    step.
    """
    h = (
        0.8 * h
        + edge(jnp.tanh(0.5 * old(h) + mix(x) @ p["w"]))
        + 0.3 * jnp.tanh(mix(old(h)) @ p["u"])
    )
    return h, h @ p["out"]


def edge_oracle(marked, old_part):
    """Two evaluations. `edge`: stopped for the next carry; for the output `old_part`, the identity
    with the old state stopped in it.
    """

    def both(p, carry, x):
        new, _ = marked(p, carry, x, old=sg, mix=sg, edge=sg)
        _, out = marked(p, carry, x, old=sg, mix=keep, edge=old_part)
        return new, out

    return both


READOUT = (ZERO + 0.1, jnp.zeros((B, OUT)))
CASES = {
    # the edge holds nothing but the old state: stopped in both evaluations
    "adaptation": (adaptive, TWO, ("w", "u", "out", "slow"), edge_oracle(adaptive, sg)),
    "reset": (reset, READOUT, ("w", "u", "out"), edge_oracle(reset, sg)),
    # the edge holds what came into being at this step, and the old state through the product only,
    # which stops it already
    "both": (both_in_one, ZERO, ("w", "u", "out"), edge_oracle(both_in_one, keep)),
    "input": (gated_input, ZERO, ("w", "u", "out"), edge_oracle(gated_input, keep)),
}


@pytest.mark.parametrize("name", CASES)
def test_no_trace_passes_a_marked_edge(name):
    marked, carry, names, expected_step = CASES[name]
    params = {k: EDGE[k] for k in names}
    learner = compiled(marked, params, carry)
    open_step = lambda p, c, x: marked(p, c, x, edge=keep)
    plain = compiled(open_step, params, carry)
    xs, ys = data()
    expected = sequence_gradient(expected_step, params, carry, xs, ys)
    assert all(jnp.abs(v).max() > 1e-3 for v in jax.tree.leaves(expected))
    for window in WINDOWS:
        found = gradient(learner, window, params, carry)
        assert_close(found, expected)
        open_gradient = gradient(plain, window, params, carry)
        assert any(jnp.abs(found[k] - open_gradient[k]).max() > 1e-3 for k in params), (
            "control: the edge carried something"
        )
    assert_close(stepwise(learner, params, carry), expected)
    by_name = {row.path: row for row in learner.graph.parameters}
    assert by_name["['w']"].exactness != "exact"
    assert "braintrace.stop_trace" in {path.operation for path in by_name["['w']"].dropped}
    assert "test_leave_out.py" in next(
        p.source for p in by_name["['w']"].dropped if p.operation == "braintrace.stop_trace"
    )
    assert "braintrace.stop_trace" in str(learner.report)
    # values, BPTT and the multi-step form pass it
    out, other = (f.etrace_evolve(params, f.init(params, carry), xs)[1] for f in (learner, plain))
    np.testing.assert_array_equal(out, other)
    bptt = [sequence_gradient(f, params, carry, xs, ys) for f in (marked, open_step)]
    assert_close(*bptt)
    report = learner.check_gradients(
        params,
        learner.init(params, carry),
        xs,
        ys,
        loss_fn=sample_loss,
        multi_step=True,
        window=None,
    )
    assert all(row.relative_error < 1e-8 for row in report.rows)


def test_a_marked_edge_within_a_layer():
    """OSTL keeps what happens inside a layer, recurrent weights included, but for the marked
    edge.
    """
    params = {k: EDGE[k] for k in ("w", "u", "out", "slow")}
    learner = compiled(adaptive, params, TWO, algorithm="ostl_recurrent")
    plain = compiled(
        lambda p, c, x: adaptive(p, c, x, edge=keep), params, TWO, algorithm="ostl_recurrent"
    )
    xs, ys = data()
    expected, bptt = (
        sequence_gradient(lambda p, c, x, e=e: adaptive(p, c, x, edge=e), params, TWO, xs, ys)
        for e in (sg, keep)
    )
    for window in WINDOWS:
        assert_close(gradient(learner, window, params, TWO), expected)
        assert_close(
            gradient(plain, window, params, TWO), bptt
        )  # control: without the mark OSTL of one layer is BPTT
    assert jnp.abs(expected["w"] - bptt["w"]).max() > 1e-3
    assert (
        learner.graph.exactness("['w']") == "approximate"
        and plain.graph.exactness("['w']") == "exact"
    )


def test_a_mark_on_the_way_to_outputs_changes_nothing():
    marked = lambda p, h, x: (lambda h: (h, braintrace.stop_trace(h) @ p["out"] + p["b"]))(
        step(p, h, x)[0]
    )
    for algorithm in ("d_rtrl", "eprop", "ostl_recurrent"):
        learner, plain = compiled(marked, algorithm=algorithm), compiled(algorithm=algorithm)
        assert_close(gradient(learner, 3), gradient(plain, 3))
        assert "stop_trace" not in str(learner.report)


def test_a_marked_parameter_is_excluded():
    marked = lambda p, h, x: step({**p, "u": braintrace.stop_trace(p["u"])}, h, x)
    assert_close(gradient(compiled(marked), 3), gradient(compiled(exclude="u"), 3))
    assert compiled(marked).graph.exactness("['u']") == "instantaneous"


def test_outside_of_a_learner_it_is_the_identity():
    tree = {"x": jnp.arange(3.0), "n": jnp.arange(3), "k": jax.random.key(0)}
    for f in (braintrace.stop_trace, jax.jit(braintrace.stop_trace)):
        assert all(
            (a == b).all()
            for a, b in zip(jax.tree.leaves(f(tree)), jax.tree.leaves(tree), strict=True)
        )
    double = jax.vmap(jax.grad(lambda x: jnp.square(braintrace.stop_trace(x))))(jnp.arange(3.0))
    np.testing.assert_array_equal(double, 2 * jnp.arange(3.0))
    _, tangent = jax.jvp(braintrace.stop_trace, (jnp.ones(2),), (jnp.array([2.0, 3.0]),))
    np.testing.assert_array_equal(tangent, [2.0, 3.0])


# The other front ends
# --------------------------------------------------------------------------------------------------


class Network(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = brainstate.nn.GRUCell(IN, N)
        self.out = brainstate.nn.Linear(N, OUT)

    def update(self, x):
        return self.out(self.rnn(x))


def test_brainstate():
    xs, ys = data()
    brainstate.random.seed(0)
    model = Network()
    learners = [
        braintrace.compile(model, "d_rtrl", xs[0], batch_size=B, **options)
        for options in ({}, {"trainable": ["rnn.Wh", "out.weight.bias"]}, {"exclude": "rnn.Wrz"})
    ]
    found = []
    for learner in learners:
        braintrace_step = lambda x, y, learner=learner: sample_loss(learner(x), y)
        brainstate.nn.init_all_states(model, batch_size=B)
        learner.compile_graph(
            xs[0],
            **({}, {"trainable": ["rnn.Wh", "out.weight.bias"]}, {"exclude": "rnn.Wrz"})[
                len(found)
            ],
        )
        assert learner.check_gradients(xs, ys, step_fn=braintrace_step).ok
        found.append(learner.etrace_grad(xs, ys, step_fn=braintrace_step, return_state=False))
    plain, frozen, excluded = found
    keys = {name: next(k for k in plain if name in k) for name in ("Wh", "Wrz", "out")}
    assert set(frozen) == {keys["Wh"], keys["out"]}
    assert_close(frozen[keys["Wh"]], plain[keys["Wh"]])
    np.testing.assert_array_equal(frozen[keys["out"]]["weight"], 0)
    assert_close(frozen[keys["out"]]["bias"], plain[keys["out"]]["bias"])
    rows = {row.path: str(row.exactness) for row in learners[1].graph.parameters}
    assert [rows[f"rnn.Wrz.weight.{k}"] for k in ("weight", "bias")] == ["frozen", "frozen"]
    assert rows["out.weight.weight"] == "frozen" and rows["out.weight.bias"] == "exact"
    assert_close(excluded[keys["Wh"]], plain[keys["Wh"]])
    assert jnp.abs(excluded[keys["Wrz"]]["weight"] - plain[keys["Wrz"]]["weight"]).max() > 1e-4
    assert {
        str(learners[2].graph.exactness(f"rnn.Wrz.weight.{k}")) for k in ("weight", "bias")
    } == {"instantaneous"}
    with pytest.raises(UsageError, match="exclude matches no parameter"):
        braintrace.compile(Network(), "d_rtrl", xs[0], batch_size=B, exclude="rnn.kernel")


def test_nnx():
    nnx = pytest.importorskip("flax.nnx")
    optax = pytest.importorskip("optax")
    from .test_nnx_models import Cell

    xs, ys = data()
    model = Cell(nnx.Rngs(0))
    plain, frozen, excluded = (
        braintrace.compile(model, "d_rtrl", xs[0], carry=ZERO, **options)
        for options in ({}, {"trainable": ["w", "out.kernel"]}, {"exclude": "u.kernel"})
    )
    all_of, some, out_of = (
        f.etrace_grad(xs, ys, loss_fn=sample_loss)[0] for f in (plain, frozen, excluded)
    )
    expected = nnx.to_pure_dict(all_of)
    assert_close(
        nnx.to_pure_dict(some), {"w": expected["w"], "out": {"kernel": expected["out"]["kernel"]}}
    )
    assert str(frozen.graph.exactness("u.kernel")) == "frozen"
    optimizer = nnx.Optimizer(model, optax.adamw(1e-2, weight_decay=0.1), wrt=frozen.wrt)
    before = model.u.kernel[...], model.w.kernel[...]
    optimizer.update(model, some)
    assert (model.u.kernel[...] == before[0]).all() and (model.w.kernel[...] != before[1]).all()
    found = nnx.to_pure_dict(out_of)
    assert_close(found["w"], expected["w"])
    assert jnp.abs(found["u"]["kernel"] - expected["u"]["kernel"]).max() > 1e-4
    assert plain.wrt is nnx.Param


def test_equinox():
    eqx = pytest.importorskip("equinox")
    xs, ys = data()
    model = eqx.nn.GRUCell(IN, N, key=jax.random.key(0))
    loss = lambda out, y: sample_loss(out[..., :OUT], y)
    plain, frozen, excluded = (
        braintrace.compile(model, "d_rtrl", xs[0], carry=ZERO, vmap=True, **options)
        for options in ({}, {"trainable": "weight_*"}, {"exclude": "weight_hh"})
    )
    all_of, some, out_of = (
        f.etrace_grad(model, f.init(model, ZERO), xs, ys, loss_fn=loss)[0]
        for f in (plain, frozen, excluded)
    )
    assert some.bias is None and some.bias_n is None and frozen.trained(model).bias is None
    assert_close((some.weight_ih, some.weight_hh), (all_of.weight_ih, all_of.weight_hh))
    assert_close(out_of.weight_ih, all_of.weight_ih)
    assert jnp.abs(out_of.weight_hh - all_of.weight_hh).max() > 1e-4
    updated = eqx.apply_updates(model, jax.tree.map(lambda g: -0.1 * g, some))
    assert (updated.bias == model.bias).all() and (updated.weight_hh != model.weight_hh).any()
