"""SK-RTRL: what rank 0 is, and a bound that holds at every step of every sample."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import braintrace
from braintrace.checks import bptt_gradient
from braintrace.core.engine._sequence import differentiable_prelude
from braintrace.core.step import plain_step
from braintrace.core.traces import _sketch
from zoo import CASES
from zoo._interpret import run_once

from ._rules import QUICK, SUM, apart, same
from .cells import EXAMPLES, data

#: Cells of the zoo that the bound is held against, with recurrent products, layers, several slots,
#: shared weights, complex states and what a model makes of its parameters.
BOUNDED = (
    "gru_reset_after",
    "lstm",
    "alif",
    "two_recurrent_layers",
    "conv1d_recurrent",
    "complex_layers",
    "vanilla",
    "leaky_recurrent",
    "exponential_synapse_recurrent",
    "feedback",
)
STEPS, SEEDS = 14, 12


def compiled(name, rule="sk_rtrl", **options):
    params, carry, xs, _ = data(name)
    cell = EXAMPLES[name].cell
    return braintrace.compile(cell, rule, xs[0], params=params, carry=carry, **options)


def gradient(learner, given, **options):
    params, carry, xs, ys = given
    return learner.etrace_grad(
        params, learner.init(params, carry), xs, ys, **SUM, return_state=False, **options
    )


@pytest.mark.parametrize("name", ["leaky_tanh", "gru", "three_lif", "conv_lif", "synapse"])
def test_without_a_rank_the_traces_are_those_of_d_rtrl(name):
    """And so is the gradient, where no product brings a layer's own old state into it."""
    given, this, local = data(name), compiled(name, rank=0), compiled(name, "d_rtrl")

    def both(*given):
        params, carry, xs, _ = given
        states = [x.etrace_evolve(params, x.init(params, carry), xs)[0] for x in (this, local)]
        ours = [of_site for of_site, _ in states[0].traces.sites if of_site is not None]
        return (ours, states[1].traces), [gradient(x, given)[0] for x in (this, local)]

    (ours, theirs), (got, right) = run_once(both, *given)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    if name in ("leaky_tanh", "gru"):  # which it follows through the last step
        assert max(apart(got, right).values()) > 1e-3
    else:
        same(got, right, 1e-12)
    exact = run_once(lambda *v: bptt_gradient(EXAMPLES[name].cell, *v, **SUM)[0], *given)
    if name != "synapse":  # control: there is something left out
        assert max(apart(right, exact).values()) > 1e-3


@functools.cache
def over_seeds(name, steps=STEPS):
    """The data of a case for several seeds."""
    every = [CASES[name].make(jax.random.key(k), steps, CASES[name].B) for k in range(SEEDS)]
    return jax.tree.map(lambda *v: jnp.stack([jnp.asarray(x) for x in v]), *every)


def held_against_the_truth(name, rank=1):
    """(the true error of the influence, its bound, the norm of the influence), each (seeds, steps,
    samples).
    """
    case, one = CASES[name], jax.tree.map(lambda v: v[0], over_seeds(name))
    options = {"params": one[0], "carry": one[1], **case.compiled}
    learner = braintrace.compile(case.cell, "sk_rtrl", one[2][0], rank=rank, **options)
    graph, carrier, cell = learner.graph, learner.rule.carrier, learner.cell
    weights = list(dict.fromkeys(s.weight for s in graph.sites))
    numbers = [graph.prelude_results.index(v) for v in weights]

    def flat(carry):
        return jnp.concatenate([graph.apart(k, carry[k]) for k in graph.hidden], 1)

    def rows(tree):  # (B, n, all the weights), complex ones as pairs of real numbers
        parts = [jnp.stack([v.real, v.imag], -1) if jnp.iscomplexobj(v) else v for v in tree]
        return jnp.concatenate([v.reshape(*v.shape[:2], -1) for v in parts], -1)

    def known(traces):
        """What the traces hold of the influence, element by element."""
        size = sum(map(graph.sample_size, graph.hidden))
        every = jnp.eye(graph.samples * size).reshape(-1, graph.samples, size)
        back = jax.linear_transpose(flat, list(cell.carry.apart(one[1])))
        entries = [jax.vmap(lambda u: back(u)[0])(every)[k] for k in graph.hidden]
        of_one = lambda entry: carrier.contract(
            graph, *jax.tree.map(lambda v: v[None], (traces, entry))
        )
        sites, found = jax.vmap(of_one)(entries), {}
        for site, gradient in zip(graph.sites, sites, strict=True):
            found[site.weight] = found.get(site.weight, 0) + gradient
        return rows([found[v].reshape(graph.samples, size, *v.shape) for v in weights])

    def truth(params, carry, xs):
        """The influence of the weights on the state after each step, by automatic
        differentiation of the model's own equations.
        """
        ready, _ = differentiable_prelude(graph, cell.params.flatten(params, "params"))

        def states(chosen):
            values = list(ready)
            for k, v in zip(numbers, chosen, strict=True):
                values[k] = v

            def step(carry, x):
                new, _ = plain_step(graph, values, carry, cell.x.flatten(x, "x"))
                return new, flat(new)

            return jax.lax.scan(step, cell.carry.apart(carry), xs)[1]

        return jax.vmap(rows)(jax.jacrev(states)([ready[k] for k in numbers]))

    def run(params, carry, xs, ys):
        def step(state, x):
            state, _ = learner.update(params, state, x)
            return state, (known(state.traces), state.traces.error)

        _, (ours, error) = jax.lax.scan(step, learner.init(params, carry), xs)
        right = truth(params, carry, xs)
        off = jnp.linalg.norm(ours - right, axis=(2, 3))
        return off, error, jnp.linalg.norm(right, axis=(2, 3))

    return jax.jit(jax.vmap(run), compiler_options=QUICK)(*over_seeds(name))


def violations(off, error, size):
    """How many errors are larger than their bounds, beyond rounding."""
    return int(np.sum(np.asarray(off) > np.asarray(error) * (1 + 1e-9) + 1e-11 * np.asarray(size)))


@pytest.mark.parametrize("name", BOUNDED)
def test_the_error_is_never_above_its_bound(name):
    off, error, size = held_against_the_truth(name)
    assert off.size == STEPS * SEEDS * CASES[name].B
    assert violations(off, error, size) == 0, (off / error).max()
    assert np.median(off / size) > 1e-4  # control: there is an error


def test_the_points_are_enough():
    assert sum(STEPS * SEEDS * CASES[name].B for name in BOUNDED) >= 3000


@pytest.mark.parametrize("part", ["growth", "lost"])
def test_control_a_bound_that_leaves_out_a_part_is_broken(part, monkeypatch):
    if part == "growth":
        whole = _sketch.growth
        monkeypatch.setattr(_sketch, "growth", lambda rows: whole(rows) / 2)
    else:
        monkeypatch.setattr(_sketch, "squared_norm", lambda parts: jnp.zeros(()))
    assert violations(*held_against_the_truth("leaky_recurrent")) > 20
