"""The rules that draw: the same draws give the oracle's gradient, the mean over keys is BPTT."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax.nn import sigmoid
from jax.scipy.special import logit

import braintrace
from braintrace import checks
from zoo._interpret import run_once

from ._rules import SUM, apart, norm, oracle, same, stepwise, windowed
from .cells import EXAMPLES, SIX, B, T, data

KEY = 5
#: Parameters that meet the state through a sigmoid.
SQUASHED = {"leaky_tanh": ["tau"], "two_alif": ["rho1", "rho2"], "synapse": ["alpha"]}


def weights_of(name, params):
    """What the engine keeps traces of: the values that meet data in a step."""
    new = {k: sigmoid(params[k]) for k in SQUASHED.get(name, ())}
    if name == "conv_lif":  # a bias of a channel has a value for each place
        new["b"] = jnp.broadcast_to(params["b"], (4, 2))
    return params | new


def of_weights(name):
    """The example as a cell of these."""

    def cell(weights, carry, x):
        squashed = {k: logit(weights[k]) for k in SQUASHED.get(name, ())}
        return EXAMPLES[name].cell(weights | squashed, carry, x)

    return cell


@functools.cache
def learner(algorithm, name, **options):
    params, carry, xs, _ = data(name)
    cell = EXAMPLES[name].cell
    return braintrace.compile(cell, algorithm, xs[0], params=params, carry=carry, **options)


def keyed(this, key):
    """The learner whose states have a key."""

    class Keyed:
        etrace_grad, update = this.etrace_grad, this.update
        init = staticmethod(lambda params, carry: this.init(params, carry, key=key))

    return Keyed


def state_size(carry):
    return sum(v[0].size for v in jax.tree.leaves(carry))


#: Drives of a layer, a leaky readout included, with more inputs than terms.
DRIVES = {"leaky_tanh": 1, "gru": 2, "two_alif": 3, "three_lif": 4, "conv_lif": 2, "synapse": 2}
RANK = 2


def by_uoro(name, *given, key=KEY):
    signs = checks.drawn_signs(key, T, B, state_size(given[1]))
    weights = functools.partial(weights_of, name)
    return checks.uoro_oracle(of_weights(name), *given, signs=signs, weights=weights, **SUM)[0]


def by_kf(name, *given, key=KEY):
    signs = checks.drawn_signs(key, T, B, 2 * DRIVES[name])
    return checks.kf_rtrl_oracle(EXAMPLES[name].cell, *given, signs=signs, **SUM)[0]


def by_ok(name, *given, key=KEY):
    signs = checks.drawn_signs(key, T, B, (RANK + 1) * DRIVES[name])
    return checks.ok_rtrl_oracle(EXAMPLES[name].cell, *given, signs=signs, rank=RANK, **SUM)[0]


RULES = {"uoro": (by_uoro, {}), "kf_rtrl": (by_kf, {}), "ok_rtrl": (by_ok, {"rank": RANK})}


@pytest.mark.parametrize(("name", "rule"), [(n, r) for r in RULES for n in SIX])
def test_equals_its_oracle(rule, name):
    by_oracle, options = RULES[rule]
    by_oracle = functools.partial(by_oracle, name)
    given, this = data(name), keyed(learner(rule, name, **options), KEY)
    right = run_once(by_oracle, *given)
    assert min(norm(right).values()) > 1e-3, norm(right)  # not dead

    got = run_once(functools.partial(windowed, this, window=3), given)
    same(got, right)
    other = run_once(functools.partial(by_oracle, key=KEY + 1), *given)
    for different in (other, oracle("bptt", name)):  # controls
        assert max(apart(different, right).values()) > 1e-3


@pytest.mark.parametrize("rule", RULES)
def test_steps_are_windows(rule):
    """One draw for each step, whatever is done at once."""
    given, this = data("two_alif"), keyed(learner(rule, "two_alif", **RULES[rule][1]), KEY)

    def every_way(*given):
        return [windowed(this, given, k) for k in (1, 4, None)] + [stepwise(this, given)]

    first, *others = run_once(every_way, *given)
    for got in others:
        same(got, first, 1e-12)
