"""A learner takes its own states, and refuses every other one with what differs."""

import copy
import functools
import itertools
import json
import pickle

import brainstate
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import braintrace
from braintrace import State, UsageError

from .importable import learner_of, loss, spiking, spiking_parts, xs

pytestmark = pytest.mark.usefixtures("single_precision")

_OTHER = np.full((4, 2), 0.5, np.float32)

#: Algorithms with options. Each makes states that no other one takes.
ALGORITHMS = {
    "d_rtrl": {},
    "pp_prop 0.5": {"decay_or_rank": 0.5},
    "pp_prop 0.9": {"decay_or_rank": 0.9},
    "pp_prop rank 4": {"decay_or_rank": 4},
    "pp_prop rank 8": {"decay_or_rank": 8},
    "pp_prop of two": {"decay_or_rank": (0.5, 0.9)},
    "eprop": {},
    "eprop filtered": {"kappa_filter_decay": 0.9},
    "eprop filtered less": {"kappa_filter_decay": 0.5},
    "eprop random": {"feedback": "random", "random_feedback_key": 0},
    "eprop random otherwise": {"feedback": "random", "random_feedback_key": 1},
    "eprop given": {"feedback": "random", "feedback_weights": [_OTHER]},
    "eprop given others": {"feedback": "random", "feedback_weights": [2 * _OTHER]},
    "eprop adaptive": {"feedback": "adaptive", "random_feedback_key": 0},
    "eprop with rates": {"firing_rate": (0.1, 1.0)},
    "ostl_recurrent": {},
    "ostl_feedforward": {},
    "ostl_feedforward 0.5": {"decay_or_rank": 0.5},
    "otpe": {"leak": 0.5},
    "otpe 0.9": {"leak": 0.9},
    "otpe approx": {"leak": 0.5, "mode": "approx"},
    "otpe clipped": {"leak": 0.5, "trace_clip_abs": 1.0},
    "ottt": {"leak": 0.5},
    "ottt 0.9": {"leak": 0.9},
    "ottt with biases": {"leak": 0.5, "bias_trace": True},
    "osttp": {"feedback_key": 0},
    "osttp otherwise": {"feedback_key": 1},
    "osttp exact": {"feedback_key": 0, "scope": "exact"},
    "rflo": {"random_feedback_key": 0},
    "rflo otherwise": {"random_feedback_key": 1},
}


def renamed(p, h, x):
    return spiking({"W": p["V"], "b": p["b"], "O": p["O"]}, h, x)


def in_tuples(p, h, x):
    new, out = spiking(p, {"v": h[0], "y": h[1]}, x)
    return (new["v"], new["y"]), out


def recurrent(p, h, x):
    new, out = spiking(p, h, x)
    return new | {"v": new["v"] + jnp.tanh(h["v"]) @ p["U"]}, out


def counting(p, h, x):
    new, out = spiking(p, h, x)
    return new | {"n": h["n"] + 1}, out


def other_parts(params=None, carry=None):
    """`spiking_parts` with another form of params and carry."""
    p, h, x = spiking_parts()
    return (p if params is None else params(p), h if carry is None else carry(h), x)


#: Models, sizes and dtypes: (cell, its parts).
MODELS = {
    "renamed": (renamed, other_parts(lambda p: {"V": p["W"], "b": p["b"], "O": p["O"]})),
    "in tuples": (in_tuples, other_parts(carry=lambda h: (h["v"], h["y"]))),
    "recurrent": (recurrent, other_parts(lambda p: p | {"U": 0.1 * jnp.eye(4)})),
    "counting": (counting, other_parts(carry=lambda h: h | {"n": jnp.zeros(2, jnp.int32)})),
    "samples": (spiking, spiking_parts(samples=3)),
    "inputs": (spiking, spiking_parts(inputs=5)),
    "neurons": (spiking, spiking_parts(size=6)),
    "outputs": (spiking, spiking_parts(outs=3)),
    "bfloat16": (spiking, spiking_parts(dtype=jnp.bfloat16)),
    "float16": (spiking, spiking_parts(dtype=jnp.float16)),
}
TRACED_WITH = {
    "d_rtrl bfloat16 traces": ("d_rtrl", {"trace_dtype": jnp.bfloat16}),
    "pp_prop float16 traces": ("pp_prop", {"decay_or_rank": 0.5, "trace_dtype": jnp.float16}),
    "d_rtrl without W": ("d_rtrl", {"exclude": "*W*"}),
    "d_rtrl of W": ("d_rtrl", {"trainable": "*W*"}),
}
NAMES = [
    *ALGORITHMS,
    *TRACED_WITH,
    *(f"{rule}, {model}" for rule in ("d_rtrl", "pp_prop") for model in MODELS),
]


@functools.cache
def made(name):
    """(learner, params, its first state) of a row of the tables."""
    rule, _, model = name.partition(", ")
    cell, (params, carry, x) = MODELS[model] if model else (spiking, spiking_parts())
    algorithm, options = TRACED_WITH.get(rule, (rule.partition(" ")[0], ALGORITHMS.get(rule)))
    options = {"decay_or_rank": 0.5} if options is None else options
    learner = braintrace.compile(cell, algorithm, x, params=params, carry=carry, **options)
    return learner, params, learner.init(params, carry)


def refusal(call):
    """The message with which a call is refused."""
    with pytest.raises(UsageError) as error:
        call()
    text = str(error.value)
    assert all(part in text for part in ("got:", "expected:", "do:")), text
    return text


@pytest.mark.parametrize("name", NAMES)
def test_the_state_of_another_learner_is_refused(name):
    learner, params, own = made(name)
    x = jax.tree.map(lambda v: jnp.zeros(v.shape, v.dtype), learner.cell.x.shapes)
    for other in NAMES:
        if other != name:
            text = refusal(lambda other=other: learner.update(params, made(other)[2], x))
            assert "The state is not one of this learner." in text
    learner.border.check(own)  # the control


def test_there_are_many_pairs():
    assert len(list(itertools.permutations(NAMES, 2))) >= 396


def test_the_fingerprint_is_what_tells_learners_of_one_layout_apart():
    learner, params, own = made("d_rtrl")
    _, _, other = made("eprop")
    refusal(lambda: learner.update(params, other, xs()[0]))
    bare = State(other.carry, other.traces, other.steps)  # as if there were none
    state, out = learner.update(params, bare, xs()[0])
    np.testing.assert_array_equal(out, learner.update(params, own, xs()[0])[1])
    assert state.fingerprint is None


@pytest.mark.parametrize(
    ("algorithm", "one", "other"),
    [
        ("pp_prop", {"decay_or_rank": 4}, {"decay_or_rank": 0.6, "trace_dtype": jnp.float32}),
        ("d_rtrl", {"exclude": "*W*"}, {"trainable": ["*b*", "*O*"]}),
        ("d_rtrl", {"max_slots": 3}, {"unroll_limit": 3, "memory_budget": 10**6}),
    ],
)
def test_what_is_the_same_is_taken(algorithm, one, other):
    params, carry, x = spiking_parts()
    given = {"params": params, "carry": carry}
    make = lambda options: braintrace.compile(spiking, algorithm, x, **given, **options)
    make(one).update(params, make(other).init(params, carry), x)


@pytest.mark.parametrize(
    ("name", "other", "pieces"),
    [
        ("d_rtrl", "eprop", ("algorithm: e-prop", "algorithm: D-RTRL")),
        ("pp_prop 0.5", "pp_prop 0.9", ("decay_or_rank: 0.9, 0.9", "decay_or_rank: 0.5, 0.5")),
        ("d_rtrl", "d_rtrl, samples", ("carry ['v']: float32[3, 4]", "carry ['v']: float32[2, 4]")),
        ("d_rtrl", "d_rtrl, renamed", ("parameter ['V']: float32[3, 4]", "parameter ['V']: none")),
        (
            "d_rtrl",
            "d_rtrl bfloat16 traces",
            ("traces of ['W'] at [0][0][0]: bfloat16[2, 3, 4]", "[0][0][0]: float32[2, 3, 4]"),
        ),
    ],
)
def test_the_message_says_what_differs(name, other, pieces):
    learner, params, _ = made(name)
    text = refusal(lambda: learner.update(params, made(other)[2], xs()[0]))
    got, expected = text.split("expected:")
    assert pieces[0] in got and pieces[1] in expected


def test_a_state_of_another_version_is_refused():
    learner, params, own = made("d_rtrl")
    told = own.fingerprint.replace('"version": "', '"version": "9.')
    old = State(own.carry, own.traces, own.steps, told)
    text = refusal(lambda: learner.update(params, old, xs()[0]))
    assert "version: 9." in text and "drops the fingerprint" in text


def test_a_fingerprint_is_read_as_json():
    learner, params, own = made("d_rtrl")
    spaced = json.dumps(json.loads(own.fingerprint), indent=1)
    learner.update(params, State(own.carry, own.traces, own.steps, spaced), xs()[0])


@pytest.mark.parametrize("fingerprint", ["", "[]", "spoilt"])
def test_a_spoilt_fingerprint_is_refused(fingerprint):
    learner, params, own = made("d_rtrl")
    spoilt = State(own.carry, own.traces, own.steps, fingerprint)
    refusal(lambda: learner.update(params, spoilt, xs()[0]))


# Every entrance of the pure front ends
# --------------------------------------------------------------------------------------------------

ENTRANCES = {
    "call": lambda L, p, s: L(p, s, xs()[0]),
    "update": lambda L, p, s: L.update(p, s, xs()[0]),
    "update_window": lambda L, p, s: L.update_window(p, s, xs()),
    "update_window in full": lambda L, p, s: L.update_window(p, s, xs(), full=True),
    "etrace_grad": lambda L, p, s: L.etrace_grad(p, s, xs(), loss_fn=loss),
    "etrace_grad of a step": lambda L, p, s: L.etrace_grad(
        p, s, xs(), step_fn=lambda p, call, x: loss(call(x))
    ),
    "etrace_evolve": lambda L, p, s: L.etrace_evolve(p, s, xs()),
    "etrace_evolve without traces": lambda L, p, s: L.etrace_evolve(p, s, xs(), traces=False),
    "etrace_fit A": lambda L, p, s: fitted(L, p, s, "A"),
    "etrace_fit O": lambda L, p, s: fitted(L, p, s, "O"),
    "check_gradients": lambda L, p, s: L.check_gradients(p, s, xs(), loss_fn=loss),
    "checks.check_gradients": lambda L, p, s: braintrace.checks.check_gradients(
        L, p, s, xs(), loss_fn=loss
    ),
    "inside jit": lambda L, p, s: eqx.filter_jit(L.update)(p, s, xs()[0]),
}


def fitted(learner, params, state, mode):
    optimizer = optax.sgd(0.1)
    start = params, optimizer.init(learner.trained(params)), state
    return learner.etrace_fit(*start, xs(), optimizer=optimizer, loss_fn=loss, mode=mode)


narrow = lambda tree: jax.tree.map(lambda v: v.astype(jnp.bfloat16), tree)
longer = lambda tree: jax.tree.map(lambda v: jnp.zeros((*v.shape, 1), v.dtype), tree)
BAD_STATES = {
    "None": lambda s: None,
    "a bare carry": lambda s: s.carry,
    "a tuple": lambda s: (s.carry, s.traces, s.steps),
    "narrow traces": lambda s: State(s.carry, narrow(s.traces), s.steps),
    "longer traces": lambda s: State(s.carry, longer(s.traces), s.steps, s.fingerprint),
    "a carry as traces": lambda s: State(s.carry, s.carry, s.steps),
    "a narrow carry": lambda s: State(narrow(s.carry), s.traces, s.steps, s.fingerprint),
    "no carry": lambda s: State(None, s.traces, s.steps),
    "a longer carry": lambda s: State(longer(s.carry), s.traces, s.steps),
    "steps of a float": lambda s: State(s.carry, s.traces, jnp.zeros(())),
    "many steps": lambda s: State(s.carry, s.traces, jnp.zeros(3, jnp.int32)),
    "a text": lambda s: State(s.carry, "traces", s.steps),
    "shapes": lambda s: State(s.carry, [object()], s.steps),
}


@functools.cache
def of_front_end(front_end):
    return learner_of(front_end)


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("front_end", ["function", "equinox"])
def test_what_is_no_state_is_refused_at_every_entrance(front_end, entrance):
    learner, model, carry = of_front_end(front_end)
    own = learner.init(model, carry)
    for make in BAD_STATES.values():
        refusal(lambda make=make: ENTRANCES[entrance](learner, model, make(own)))
    other = "equinox" if front_end == "function" else "function"
    foreign, its_model, its_carry = of_front_end(other)
    refusal(lambda: ENTRANCES[entrance](learner, model, foreign.init(its_model, its_carry)))


# The states of NNX and brainstate learners are their own; values of others can be put into them
# --------------------------------------------------------------------------------------------------

OWN_ENTRANCES = {
    "nnx": {
        "call": lambda L: L(xs()[0]),
        "value_and_grad": lambda L: L.value_and_grad(xs()[0], loss_fn=loss),
        "etrace_grad": lambda L: L.etrace_grad(xs(), loss_fn=loss),
        "etrace_evolve": lambda L: L.etrace_evolve(xs()),
        "etrace_evolve without traces": lambda L: L.etrace_evolve(xs(), traces=False),
        "check_gradients": lambda L: L.check_gradients(xs(), loss_fn=loss),
    },
    "brainstate": {
        "call": lambda L: L(xs()[0]),
        "etrace_grad": lambda L: L.etrace_grad(xs(), step_fn=lambda x: loss(L(x))),
        "etrace_evolve": lambda L: L.etrace_evolve(xs()),
        "etrace_evolve without traces": lambda L: L.etrace_evolve(xs(), traces=False),
        "check_gradients": lambda L: L.check_gradients(xs(), step_fn=lambda x: loss(L(x))),
        "twice in a step": lambda L: L.etrace_grad(xs(), step_fn=lambda x: loss(L(x) + L(x))),
    },
}


@pytest.mark.parametrize("front_end", OWN_ENTRANCES)
def test_values_of_others_are_refused(front_end):
    learner, *_ = learner_of(front_end)
    traces = learner.traces if front_end == "nnx" else learner.etrace
    read = traces.get_value if front_end == "nnx" else lambda: traces.value
    write = traces.set_value if front_end == "nnx" else lambda v: setattr(traces, "value", v)
    own = read()
    values = {"narrow": narrow(own), "longer": longer(own), "another tree": {"a": own}}
    for value, (entrance, call) in itertools.product(
        values.values(), OWN_ENTRANCES[front_end].items()
    ):
        write(value)
        assert "traces" in refusal(lambda call=call: call(learner)), entrance
        assert list(map(id, jax.tree.leaves(read()))) == list(map(id, jax.tree.leaves(value)))
    learner.reset_state()  # which makes it whole
    OWN_ENTRANCES[front_end]["call"](learner)


@pytest.mark.parametrize("algorithm", ["eprop", "ostl_feedforward"])
def test_the_states_of_another_nnx_learner_are_refused(algorithm):
    learner, other = learner_of("nnx")[0], learner_of("nnx", algorithm)[0]
    nnx.update(learner, nnx.state(other))
    for call in OWN_ENTRANCES["nnx"].values():
        assert "algorithm" in refusal(lambda call=call: call(learner))


@pytest.mark.parametrize("algorithm", ["eprop", "ostl_feedforward"])
def test_the_states_of_another_brainstate_learner_are_refused(algorithm):
    learner, other = learner_of("brainstate")[0], learner_of("brainstate", algorithm)[0]
    graphdef, _ = brainstate.graph.treefy_split(learner)
    merged = brainstate.graph.treefy_merge(graphdef, brainstate.graph.treefy_states(other))
    brainstate.graph.update_states(learner, brainstate.graph.treefy_states(other))
    for call in OWN_ENTRANCES["brainstate"].values():
        assert "algorithm" in refusal(lambda call=call: call(learner))
        assert "algorithm" in refusal(lambda call=call: call(merged))


# The learner's own state, wherever it went
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["d_rtrl", "pp_prop 0.5", "eprop filtered", "ostl_recurrent"])
def test_the_right_state_is_taken_wherever_it_went(name):
    learner, params, start = made(name)
    x, step = xs()[0], lambda s: learner.update(params, s, xs()[0])
    after, out = step(start)
    states = {
        "jit": jax.jit(lambda s: s)(start),
        "jit of a step": jax.jit(step)(start)[0],
        "scan": jax.lax.scan(lambda s, x: learner.update(params, s, x), start, xs())[0],
        "tree.map": jax.tree.map(lambda a, b: a + b, start, start),
        "flatten": jax.tree.unflatten(jax.tree.structure(start), jax.tree.leaves(start)),
        "pickle": pickle.loads(pickle.dumps(start)),
        "copy": copy.deepcopy(start),
        "device_get": jax.device_get(start),
        "an unformed one": learner.init(params, start.carry, traces=False),
        "without a fingerprint": State(start.carry, start.traces, start.steps),
        "with a number of steps": State(start.carry, start.traces, 0),
        "of wide NumPy": State(
            jax.tree.map(lambda v: np.zeros(v.shape), start.carry), start.traces, start.steps
        ),
    }
    for where, state in states.items():
        new, _ = step(state)
        if state.fingerprint is not None and state.traces is not None:
            assert jax.tree.structure(new) == jax.tree.structure(start), where
    stacked = jax.tree.map(lambda v: jnp.stack([v, v]), start)
    mapped, outs = jax.vmap(step)(stacked)
    np.testing.assert_allclose(outs[1], out, rtol=1e-5)
    assert mapped.fingerprint == after.fingerprint == start.fingerprint
    one = jax.tree.map(lambda v: v[0], mapped)
    learner.etrace_grad(params, one, xs(), loss_fn=loss) if name == "d_rtrl" else step(one)
    # a stack outside of vmap is no state
    refusal(lambda: learner.update(params, stacked, x))


def test_the_check_costs_nothing_at_run_time():
    learner, params, start = made("d_rtrl")
    bare = State(start.carry, start.traces, start.steps)
    program = lambda s: str(jax.make_jaxpr(learner.update)(params, s, xs()[0]))
    assert program(start) == program(bare)
    seen = []

    @jax.jit
    def step(state, x):
        seen.append(x)
        return learner.update(params, state, x)[0]

    step(step(step(start, xs()[0]), xs()[1]), xs()[2])
    assert len(seen) == 1
