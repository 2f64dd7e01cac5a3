"""What is not finite stays where it came up: resets and masks select, and multiply nothing.

Samples 0 and 2 are well; sample 1 meets NaN, or overflows. Each program is compared with the same
program on clean data.
"""

import dataclasses
import functools

import brainstate
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import braintrace
from braintrace.cell import _user_step
from braintrace.core.engine import Rule, _records
from braintrace.core.kernels import _traces, advance_and_contract
from braintrace.core.traces import PerParameter
from braintrace.learner import FunctionLearner
from engine.test_kernels import operands

T, B, IN, N, OUT = 7, 3, 2, 4, 2
ILL = 1  # the sample
OVERFLOWS = 1e3  # exp of it is infinite

RULES = {
    "d_rtrl": {},
    "pp_prop": {"decay_or_rank": (0.9, 0.7)},
    "eprop": {"kappa_filter_decay": 0.7},
    "eprop_feedback": {"feedback": "random", "random_feedback_key": 0, "firing_rate": (0.1, 2.0)},
    "ostl_recurrent": {},
    "ostl_feedforward": {},
    "ottt": {"leak": 0.8},
    "otpe": {"leak": 0.8},
    "f_otpe": {"leak": 0.8, "mode": "approx"},
    "osttp": {"feedback_key": 0, "scope": "exact"},
    "rtrl": {},
    "snap": {},
    "random_rtrl": {"k": 1},
    "rflo": {"random_feedback_key": 0},
}
NAMES = {"eprop_feedback": "eprop", "f_otpe": "otpe"}


def leaky(p, s, x):
    """Two slots at each position, recurrence, parameters of neurons, a readout of its own."""
    v, a = s
    v = jax.nn.sigmoid(p["tau"]) * v - 0.3 * a + jnp.exp(x) @ p["W"] + jnp.tanh(v) @ p["U"] + p["b"]
    a = 0.7 * a + 0.2 * v
    return (v, a), v @ p["o"]


def forgetful(p, h, x):
    """No state is carried over in its position: traces are products of the last step."""
    h = jnp.tanh(jnp.exp(x) @ p["W"] + h @ p["U"] + p["b"])
    return h, h @ p["o"]


def convolved(p, h, x):
    """A trace that the kernel does not move."""
    image = jnp.exp(x).reshape(B, 1, IN, 1)
    image = jax.lax.conv_general_dilated(
        image, p["k"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    h = jax.nn.sigmoid(p["tau"]) * h + image.reshape(B, N) + p["b"]
    return h, h @ p["o"]


def samples_last(p, h, x):
    """The batch is axis 1 of the state."""
    h = 0.8 * h + p["W"].T @ jnp.exp(x).T + p["U"] @ jnp.tanh(h)
    return h, h.T @ p["o"]


SHAPES = {"W": (IN, N), "U": (N, N), "tau": (N,), "b": (N,), "o": (N, OUT), "k": (1, 2, 1, 2)}
START = np.full((B, N), 0.1)  # as wide as JAX is when it is used
CELLS = {
    leaky: (START, np.zeros((B, N))),
    forgetful: START,
    convolved: START,
    samples_last: START.T,
}
SAID = {samples_last: {"batch_axes": (1, 0)}}


@functools.cache
def data():
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(0.3 * rng.normal(size=shape))
    return {k: draw(*v) for k, v in SHAPES.items()}, draw(T, B, IN), draw(T, B, OUT)


class Program:
    """One compiled program of a rule, a cell and a window, for all that happens here."""

    def __init__(self, cell, rule, window):
        self.params, self.xs, self.ys = data()
        self.carry, name = CELLS[cell], NAMES.get(rule, rule)
        given = {"params": self.params, "carry": self.carry, **RULES[rule], **SAID.get(cell, {})}
        self.learner = braintrace.compile(cell, name, self.xs[0], **given)
        loss = lambda out, y: ((out - y) ** 2).mean(-1)
        targets = self.ys if name == "osttp" else None

        @jax.jit
        def gradient(state, xs, ys, mask, reset):
            y_target = None if targets is None else ys
            return self.learner.etrace_grad(
                self.params,
                state,
                xs,
                ys,
                loss_fn=loss,
                window=window,
                mask=mask,
                reset=reset,
                y_target=y_target,
            )[:2]

        self._gradient = gradient

    @property
    def start(self):
        return self.learner.init(self.params, self.carry)

    def __call__(self, state=None, xs=None, ys=None, mask=None, reset=None):
        given = [self.xs if xs is None else xs, self.ys if ys is None else ys]
        mask = jnp.ones((T, B)) if mask is None else mask
        reset = jnp.zeros((T, B), bool) if reset is None else reset
        return self._gradient(self.start if state is None else state, *given, mask, reset)


program = functools.cache(Program)


def assert_same(found, expected):
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def is_finite(tree):
    return all(bool(jnp.isfinite(v).all()) for v in jax.tree.leaves(tree))


def marks(*steps):
    """(T, B): the ill sample at these steps."""
    return jnp.zeros((T, B), bool).at[jnp.array(steps), ILL].set(True)


CASES = [
    *((leaky, rule, window) for rule in RULES for window in (1, 3, None)),
    *((cell, rule, 3) for cell in CELLS if cell is not leaky for rule in ("d_rtrl", "pp_prop")),
    (forgetful, "ostl_recurrent", 3),
    (samples_last, "ostl_recurrent", 3),
]
every = pytest.mark.parametrize(
    ("cell", "rule", "window"), CASES, ids=lambda v: getattr(v, "__name__", str(v))
)


@every
def test_a_reset_lets_nothing_pass(cell, rule, window):
    run = program(cell, rule, window)
    ill = run.xs.at[3, ILL].set(jnp.nan)
    (gradient, bad), (_, good) = run(xs=ill), run()
    assert not is_finite(gradient)
    assert not is_finite(bad)
    # in the next call
    assert_same(run(bad, reset=marks(0)), run(good, reset=marks(0)))
    assert not is_finite(run(bad)[0])  # control
    # later in the next call, where the steps before it do not count
    late, mask = marks(2), ~marks(0, 1)
    found, expected = (run(state, mask=mask, reset=late) for state in (bad, good))
    if rule == "eprop_feedback":  # the mean firing rate is of all samples, also before the reset
        assert is_finite(found)
    else:
        assert_same(found, expected)
    # in the same call: what counts is not finite, what is kept is
    gradient, after = run(xs=ill, reset=marks(5))
    assert not is_finite(gradient)
    assert_same(after, run(reset=marks(5))[1])


@every
def test_a_step_on_which_nothing_depends_may_overflow(cell, rule, window):
    run = program(cell, rule, window)
    huge, mask, reset = run.xs.at[3, ILL].set(OVERFLOWS), ~marks(3, 4), marks(5)
    (found, after), (expected, clean) = (
        run(xs=xs, mask=mask, reset=reset) for xs in (huge, run.xs)
    )
    assert_same(after, clean)
    if rule not in ("eprop_feedback", "osttp"):  # as above; targets are the samples' together
        without_readout = lambda g: {k: v for k, v in g.items() if k != "o"}
        assert_same(without_readout(found), without_readout(expected))
    assert not is_finite(run(xs=huge, mask=mask)[1])  # control


@every
def test_padding_may_be_anything(cell, rule, window):
    run = program(cell, rule, window)
    padding = marks(0, 1, 4, 5, 6)
    fill = lambda v, value: jnp.where(padding[..., None], value, v)
    given = lambda value: {"xs": fill(run.xs, value), "ys": fill(run.ys, value)}
    expected = run(**given(0.0), mask=~padding)
    for value in (jnp.nan, jnp.inf):
        assert_same(run(**given(value), mask=~padding), expected)
    assert not is_finite(run(**given(jnp.nan))[0])  # control


@every
def test_exploded_traces_are_reset(cell, rule, window):
    run = program(cell, rule, window)
    start, everything = run.start, jnp.zeros((T, B), bool).at[0].set(True)
    for value in (jnp.inf, jnp.nan):
        fill = lambda v, value=value: jnp.full_like(v, value)
        exploded = braintrace.State(*jax.tree.map(fill, (start.carry, start.traces)), start.steps)
        if run.learner.graph.extra:  # a feedback weight is no trace
            exploded.traces["extra"] = start.traces["extra"]
        assert_same(run(exploded, reset=everything), run(reset=everything))
        assert not is_finite(run(exploded)[0])  # control


def test_without_the_selections_the_tests_above_fail(monkeypatch):
    unread = staticmethod(lambda *_: None)
    for owner, name, test in (
        (_records.Steps, "unread", test_a_reset_lets_nothing_pass),
        (_records.Problem, "dead", test_a_step_on_which_nothing_depends_may_overflow),
        (_user_step, "without_padding", test_padding_may_be_anything),
    ):
        with monkeypatch.context() as patch:
            gone = property(lambda _: None) if name == "unread" else unread
            gone = (lambda values, *_: values) if owner is _user_step else gone
            patch.setattr(owner, name, gone)
            patch.setitem(globals(), "program", Program)
            with pytest.raises(AssertionError):
                test(leaky, "d_rtrl", None)


def test_what_a_reset_leaves_as_it_is_keeps_its_derivative(monkeypatch):
    """A lasting state goes on over a reset, and so does the influence of the steps before it."""

    def cell(p, s, x):
        h, lasting = s
        h = 0.5 * h + x @ p["W"]
        lasting = 0.9 * lasting + h
        return (h, lasting), lasting

    params, xs, _ = data()
    carry, mask = (START, START), ~marks(0, 1, 2, 3)

    def gradient(window):
        rule = Rule("D_RTRL", PerParameter())
        learner = FunctionLearner(cell, rule, params, carry, xs[0], resets=(True, False))
        given = {"window": window, "mask": mask, "reset": marks(2), "loss_fn": lambda o: o.sum(-1)}
        return learner.etrace_grad(params, learner.init(params, carry), xs, **given)[0]["W"]

    expected = gradient(1)
    for window in (3, None):
        assert_same(gradient(window), expected)
    monkeypatch.setattr(_records.Problem, "resets_whole", True)
    with pytest.raises(AssertionError):  # control
        assert_same(gradient(3), expected)


@pytest.mark.parametrize("across", [False, True])
def test_the_kernel_and_its_form_in_jax_read_no_trace_whose_factor_is_zero(across):
    for size in ((2, 2, 13, 97, 3), (2, 2, 13, 97, 1), (1, 2, 6, 64, 1)):
        of = operands(*size, jnp.float64, across)
        still = lambda v: v.at[1].set(0.0)
        bad = lambda v: v.at[1].set(jnp.nan).at[1, 0].set(jnp.inf)
        of = dataclasses.replace(
            of, signal=(*map(still, of.signal),), rows=jax.tree.map(still, of.rows)
        )
        ill = dataclasses.replace(of, old=(*map(bad, of.old),))
        for form in (advance_and_contract, _traces.in_jax):
            assert_same(form(across, ill), form(across, of))
        assert_same(advance_and_contract(across, ill), _traces.in_jax(across, ill))
        unlike = dataclasses.replace(ill, signal=operands(*size, jnp.float64, across).signal)
        assert not is_finite(advance_and_contract(across, unlike))  # control


def test_a_step_of_the_users_own_reads_no_padding():
    """Its own parameters have no NaN from targets that do not count."""
    params, xs, ys = data()
    learner = program(leaky, "d_rtrl", 3).learner
    step = lambda p, call, x, y: ((call(x) @ p["o"].T @ p["o"] - y) ** 2).mean(-1)
    start, mask = learner.init(params, CELLS[leaky]), ~marks(4, 5, 6)
    fill = lambda v, value: jnp.where(mask[..., None], v, value)

    def run(value, mask=mask):
        given = fill(xs, value), fill(ys, value)
        return learner.etrace_grad(params, start, *given, step_fn=step, mask=mask)[:2]

    assert_same(run(jnp.nan), run(0.0))
    of_step = jnp.zeros(T).at[:4].set(1)
    total = lambda p, call, x, y: step(p, call, x, y).sum()
    given = jnp.where(of_step[:, None, None] > 0, xs, jnp.nan), jnp.where(True, ys, 0)
    found = learner.etrace_grad(params, start, *given, step_fn=total, mask=of_step)[:2]
    assert is_finite(found)


# What eager calls refuse
# --------------------------------------------------------------------------------------------------


def refused(call, *said):
    with pytest.raises(braintrace.UsageError) as error:
        call()
    text = str(error.value)
    assert all(part in text for part in ("not finite", "got:", "expected:", "do:", *said)), text


def copies(tree):
    return [np.array(v) for v in jax.tree.leaves(tree)]


SPOILED = "step 3, sample 1"


def test_eager_calls_name_what_is_not_finite():
    params, xs, ys = data()
    learner = program(leaky, "d_rtrl", 3).learner
    start, ill = learner.init(params, CELLS[leaky]), xs.at[3, ILL].set(jnp.nan)
    count = lambda out, y: jnp.nansum(out, -1)
    refused(lambda: learner.update(params, start, ill[3]), "nan in [0], sample 1")
    refused(lambda: learner.update_window(params, start, ill), SPOILED, "nan in [0], sample 1")
    refused(lambda: learner.etrace_evolve(params, start, ill), SPOILED)
    refused(lambda: learner.etrace_evolve(params, start, ill, traces=False), SPOILED)
    run = lambda **given: learner.etrace_grad(params, start, ill, ys, loss_fn=count, **given)
    refused(run, SPOILED, "The gradient", "nan in [")
    refused(lambda: run(window=1), SPOILED)
    assert is_finite(run(mask=~marks(3))[:2])  # control
    for mode in ("A", "O"):
        optimizer = optax.adam(0.1)
        fit = lambda xs, mode=mode, optimizer=optimizer: learner.etrace_fit(
            params,
            optimizer.init(params),
            start,
            xs,
            ys,
            optimizer=optimizer,
            mode=mode,
            loss_fn=count,
        )
        refused(functools.partial(fit, ill))
        fit(xs)  # control
    under_jit, _ = jax.jit(learner.update)(params, start, ill[3])
    assert not is_finite(under_jit.carry)  # nothing is checked


def test_a_trace_without_a_finite_derivative_is_refused():
    """The values are finite, and the slope of sqrt at 0 is not."""

    def cell(p, h, x):
        h = jnp.sqrt(h) + x @ p
        return h, h

    w, xs, h = jnp.ones((2, 3)), jnp.zeros((T, B, 2)), jnp.zeros((B, 3))
    learner = braintrace.compile(cell, "d_rtrl", xs[0], params=w, carry=h)
    start = learner.init(w, h)
    refused(lambda: learner.update_window(w, start, xs), "eligibility trace")
    learner.update_window(w, learner.init(w, h + 1), xs)  # control


def test_infinity_is_a_start_like_any_other():
    """A running maximum, and a last input that is missing."""

    def cell(p, s, x):
        h, most, _ = s
        h = 0.5 * h + jnp.nan_to_num(x) @ p
        return (h, jnp.maximum(most, h), x), h

    w, xs = jnp.ones((2, 3)), jnp.ones((T, B, 2)).at[3, ILL].set(jnp.nan)
    start = jnp.zeros((B, 3)), jnp.full((B, 3), -jnp.inf), xs[0]
    learner = braintrace.compile(cell, "d_rtrl", xs[0], params=w, carry=start)
    state = learner.init(w, start)
    for x in xs[:4]:
        state, _ = learner.update(w, state, x)
    assert not is_finite(state.carry[2])


# The other front ends
# --------------------------------------------------------------------------------------------------


def padded(value):
    _, xs, ys = data()
    return [jnp.where(marks(4, 5, 6)[..., None], value, v) for v in (xs, ys)]


MASK = ~marks(4, 5, 6)


def test_equinox():
    _, xs, ys = data()
    model = eqx.nn.GRUCell(IN, OUT, key=jax.random.key(0))
    h = jnp.zeros((B, OUT))
    learner = braintrace.compile(model, "pp_prop", xs[0], carry=h, vmap=True, decay_or_rank=0.9)
    start, loss = learner.init(model, h), lambda out, y: ((out - y) ** 2).mean(-1)
    run = lambda xs, ys, **given: learner.etrace_grad(model, start, xs, ys, loss_fn=loss, **given)
    assert_same(run(*padded(jnp.nan), mask=MASK)[:2], run(*padded(0.0), mask=MASK)[:2])
    refused(lambda: learner.update(model, start, xs[0].at[ILL].set(jnp.nan)), "sample 1")
    optimizer = optax.adam(0.1)
    opt_state = optimizer.init(learner.trained(model))
    for mode in ("A", "O"):
        fit = lambda xs, mode=mode: learner.etrace_fit(
            model, opt_state, start, xs, ys, loss_fn=loss, optimizer=optimizer, mode=mode
        )
        refused(functools.partial(fit, padded(jnp.nan)[0]))
        fit(xs)  # control


def test_nnx():
    _, xs, ys = data()
    model = nnx.GRUCell(IN, OUT, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(0.1), wrt=nnx.Param)
    learner = braintrace.compile(model, "d_rtrl", xs[0], carry=jnp.zeros((B, OUT)))
    loss = lambda out, y: ((out - y) ** 2).mean(-1)
    everything = lambda: copies((nnx.state(learner), nnx.state(optimizer)))
    found = []
    for value in (0.0, jnp.nan):
        learner.reset_state(model=True)
        found.append(learner.etrace_grad(*padded(value), loss_fn=loss, mask=MASK)[0])
        found.append(learner.carry.get_value())
    assert_same(found[2:], found[:2])
    before, ill = everything(), xs.at[3, ILL].set(jnp.nan)
    ignoring = lambda out, y: jnp.nansum(out, -1)
    refused(lambda: learner(ill[3]), "sample 1")
    refused(lambda: learner.etrace_evolve(ill), SPOILED)
    refused(lambda: learner.etrace_grad(ill, ys, loss_fn=ignoring), SPOILED)
    for mode in ("A", "O"):
        fit = lambda xs, mode=mode: learner.etrace_fit(
            xs, ys, loss_fn=ignoring, optimizer=optimizer, mode=mode
        )
        refused(functools.partial(fit, ill))
        np.testing.assert_equal(everything(), before)
    fit(xs)
    assert not all(map(np.array_equal, everything(), before))  # control


class Optimizer:
    """Momentum, in brainstate's states."""

    def __init__(self, states):
        self.states = states
        self.moments = {
            k: brainstate.State(jax.tree.map(jnp.zeros_like, s.value)) for k, s in states.items()
        }

    def update(self, gradients):
        for k, state in self.states.items():
            moment = self.moments[k]
            moment.value = jax.tree.map(lambda m, g: 0.9 * m + g, moment.value, gradients[k])
            state.value = jax.tree.map(lambda p, m: p - 0.1 * m, state.value, moment.value)


def test_brainstate():
    _, xs, ys = data()
    xs, ys = xs.astype(jnp.float32), ys.astype(jnp.float32)
    model = brainstate.nn.GRUCell(IN, OUT)
    brainstate.nn.init_all_states(model, B)
    learner = braintrace.compile(model, "d_rtrl", xs[0], batch_size=B)
    optimizer = Optimizer(model.states(brainstate.ParamState))
    states = [*model.states().values(), *optimizer.moments.values()]
    states += [learner.etrace, learner.running_index]
    everything = lambda: copies([s.value for s in states])
    step = lambda x, y: ((learner(x) - y) ** 2).mean(-1)
    found = []
    for value in (0.0, jnp.nan):
        learner.reset_state(model=True)
        given = [v.astype(jnp.float32) for v in padded(value)]
        found.append(learner.etrace_grad(*given, step_fn=step, mask=MASK))
        found.append(model.h.value)
    assert_same(found[2:], found[:2])
    before, ill = everything(), xs.at[3, ILL].set(jnp.nan)
    ignoring = lambda x, y: jnp.nansum(learner(x), -1)
    refused(lambda: learner(ill[3]), "sample 1")
    refused(lambda: learner.etrace_evolve(ill), SPOILED)
    refused(lambda: learner.etrace_evolve(ill, traces=False), SPOILED)
    refused(lambda: learner.etrace_grad(ill, ys, step_fn=ignoring), "step 3")
    for mode in ("A", "O"):
        fit = lambda xs, mode=mode: learner.etrace_fit(
            xs, ys, step_fn=ignoring, optimizer=optimizer, mode=mode
        )
        refused(functools.partial(fit, ill))
        np.testing.assert_equal(everything(), before)
    fit(xs)
    assert not all(map(np.array_equal, everything(), before))  # control
