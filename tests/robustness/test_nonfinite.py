"""What is not finite stays where it came up: resets and masks select, and multiply nothing.

Samples 0 and 2 are well; sample 1 meets NaN, or overflows. Each program is compared with the same
program on clean data.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import braintrace

T, B, IN, N, OUT = 7, 3, 2, 4, 2
ILL = 1  # the sample
OVERFLOWS = 1e3  # exp of it is infinite

RULES = {
    "d_rtrl": {},
    "pp_prop": {"decay_or_rank": (0.9, 0.7)},
    "eprop": {"kappa_filter_decay": 0.7},
    "eprop_feedback": {
        "feedback": "random",
        "random_feedback_key": 0,
        "firing_rate": (0.1, 2.0),
    },
    "ostl_recurrent": {},
    "ostl_feedforward": {},
    "ottt": {"leak": 0.8},
    "otpe": {"leak": 0.8},
    "f_otpe": {"leak": 0.8, "mode": "approx"},
    "osttp": {"feedback_key": 0, "scope": "exact"},
    "rflo": {"random_feedback_key": 0},
}
NAMES = {"eprop_feedback": "eprop", "f_otpe": "otpe"}
windows = pytest.mark.parametrize("window", [1, 3, None])
rules = pytest.mark.parametrize("rule", RULES)


def leaky(p, s, x):
    """Two slots at each position, recurrence, a bias, a readout of its own."""
    v, a = s
    x = jnp.exp(x)
    v = 0.8 * v - 0.3 * a + x @ p["W"] + jnp.tanh(v) @ p["U"] + p["b"]
    a = 0.7 * a + 0.2 * v
    return (v, a), v @ p["o"]


def forgetful(p, h, x):
    """No state is carried over in its position: traces are products of the last step."""
    h = jnp.tanh(jnp.exp(x) @ p["W"] + h @ p["U"] + p["b"])
    return h, h @ p["o"]


SHAPES = {"W": (IN, N), "U": (N, N), "b": (N,), "o": (N, OUT)}
CELLS = {leaky: (jnp.full((B, N), 0.1), jnp.zeros((B, N))), forgetful: jnp.full((B, N), 0.1)}


@functools.cache
def data():
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(0.3 * rng.normal(size=shape))
    return {k: draw(*v) for k, v in SHAPES.items()}, draw(T, B, IN), draw(T, B, OUT)


class Program:
    """One compiled program of a rule, a cell and a window, for all that happens here."""

    def __init__(self, cell, rule, window, loss_of=braintrace.compile):
        self.params, self.xs, self.ys = data()
        self.carry, name = CELLS[cell], NAMES.get(rule, rule)
        self.learner = braintrace.compile(
            cell, name, self.xs[0], params=self.params, carry=self.carry, **RULES[rule]
        )
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


def cases():
    for rule in RULES:
        for window in (1, 3, None):
            yield leaky, rule, window
    for rule in ("d_rtrl", "ostl_recurrent", "pp_prop"):
        yield forgetful, rule, 3


every = pytest.mark.parametrize(
    ("cell", "rule", "window"), list(cases()), ids=lambda v: getattr(v, "__name__", str(v))
)


@every
def test_a_reset_cures(cell, rule, window):
    run = program(cell, rule, window)
    ill = run.xs.at[3, ILL].set(jnp.nan)
    # in the next call
    (gradient, bad), (_, good) = run(xs=ill), run()
    assert not is_finite(gradient)
    assert not is_finite(bad)
    assert_same(run(bad, reset=marks(0)), run(good, reset=marks(0)))
    assert not is_finite(run(bad)[0])  # control
    # later in the next call, where the steps before it do not count
    late, mask = marks(2), ~marks(0, 1)
    assert_same(run(bad, mask=mask, reset=late), run(good, mask=mask, reset=late))
    # in the same call: what is counted is not finite, but what is kept is
    gradient, after = run(xs=ill, reset=marks(5))
    assert not is_finite(gradient)
    assert_same(after, run(reset=marks(5))[1])
    # a step that overflows, in one window with the reset
    mask = ~marks(3, 4)
    huge = run.xs.at[3, ILL].set(OVERFLOWS)
    found, expected = run(xs=huge, mask=mask, reset=marks(5)), run(mask=mask, reset=marks(5))
    assert_same(found[1], expected[1])
    of_readout, of_rest = ({k: g[k] for k in ks} for ks in ("o", "WUb") for g in (found[0],))
    assert_same(of_rest, {k: expected[0][k] for k in "WUb"})


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
    start = run.start
    for value in (jnp.inf, jnp.nan):
        fill = lambda v, value=value: jnp.full_like(v, value) if v.dtype.kind == "f" else v
        exploded = braintrace.State(
            jax.tree.map(fill, start.carry), jax.tree.map(fill, start.traces), start.steps
        )
        if "feedback" in rule or rule == "osttp":  # a feedback weight is no trace
            exploded.traces["extra"] = start.traces["extra"]
        everything = jnp.zeros((T, B), bool).at[0].set(True)
        assert_same(run(exploded, reset=everything), run(reset=everything))
        assert not is_finite(run(exploded)[0])  # control
