"""The certificate of a rule with edits says 'exact' of the parameters whose gradient is BPTT's, and
of no others.
"""

from functools import partial

import jax.numpy as jnp
import pytest

import braintrace
from braintrace import checks
from braintrace.core.analysis import Exactness
from zoo._interpret import once

from ._rules import SUM, apart, drawn, windowed
from .cells import LEAK, B, I, N, O, T, fire


def old_readout(p, h, x):
    """The readout reads the state of the step before: what moves it acts a step later."""
    return 0.8 * h + x @ p["W"], jnp.tanh(h) @ p["o"]


def beside_the_input(p, h, x):
    """The readout reads the activity beside something that no state has made."""
    h = LEAK * h + x @ p["W"]
    return h, (jnp.tanh(h) + x @ p["skip"]) @ p["o"]


def own_output(p, h, x):
    """The output is the state itself; no one else reads it."""
    h = LEAK * h + x @ p["W"]
    return h, h


def two_outputs(p, h, x):
    """One neuron's activity is read, that of the others is an output."""
    h, g = h
    h, g = LEAK * h + x @ p["W"], LEAK * g + x @ p["skip"]
    return (h, g), g[:, :O] + fire(h) @ p["o"]


CELLS = {f.__name__: f for f in (old_readout, beside_the_input, own_output, two_outputs)}
RULES = {
    "kappa": ("eprop", {"kappa_filter_decay": 0.7}),
    "random": ("eprop", {"feedback": "random", "random_feedback_key": 0}),
    "rate": ("eprop", {"firing_rate": (0.3, 0.7)}),
    "rflo": ("rflo", {"random_feedback_key": 0}),
    "otpe": ("otpe", {"leak": 0.6}),
    "f_otpe": ("otpe", {"leak": 0.6, "mode": "approx"}),
    "ottt": ("ottt", {"leak": 0.6}),
    "osttp": ("osttp", {"feedback_key": 0}),
    "osttp_exact": ("osttp", {"feedback_key": 0, "scope": "exact"}),
}
#: An edit has nothing to act on, or no derivative to average.
REFUSED = {("own_output", rule) for rule in ("random", "rate", "rflo", "osttp", "osttp_exact")}
REFUSED |= {("old_readout", "f_otpe")}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", CELLS)
def test_exact_is_bptt(name, rule):
    cell, (algorithm, options) = CELLS[name], RULES[rule]
    params = {"W": drawn(I, N), "skip": drawn(I, N, seed=1), "o": drawn(N, O)}
    used = {"own_output": "W", "old_readout": "Wo"}.get(name, "W skip o")
    params = {k: jnp.asarray(v) for k, v in params.items() if k in used}
    carry = jnp.asarray(0.3 * drawn(B, N))
    carry = (carry, -carry) if name == "two_outputs" else carry
    xs = jnp.asarray(drawn(T, B, I))
    ys = jnp.asarray(drawn(T, B, N if name == "own_output" else O))
    compiled = partial(braintrace.compile, cell, algorithm, xs[0], params=params, carry=carry)
    if (name, rule) in REFUSED:
        with pytest.raises(braintrace.CompilationError):
            compiled(**options)
        return
    this = compiled(**options)
    target = {"y_target": jnp.asarray(drawn(T, B, O))} if algorithm == "osttp" else {}

    @once
    def gradients(*given):
        right = checks.bptt_gradient(cell, *given, **SUM)[0]
        return right, [windowed(this, given, window, **target) for window in (1, 3)]

    right, found = gradients(params, carry, xs, ys)
    for got in found:
        exact = {k: distance < 1e-10 for k, distance in apart(got, right).items()}
        stated = {k: this.graph.exactness(f"['{k}']") is Exactness.EXACT for k in params}
        assert stated == exact
