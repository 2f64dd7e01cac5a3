"""Rules whose layers learn by themselves: ETLP at events, DECOLLE on the neuron of its paper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import braintrace
from braintrace import BrainTraceError, checks
from braintrace.core.signals import RandomEvents
from zoo import loss
from zoo._case import spike
from zoo._interpret import once

from ._rules import (
    REGULARISED,
    SUM,
    apart,
    drawn,
    norm,
    projections,
    same,
    smooth_l1,
    split_projections,
    stepwise,
    target_of,
    voltage,
    windowed,
)
from .cells import EXAMPLES, B, I, M, N, O, T, data

sg = jax.lax.stop_gradient


def compiled(name, algorithm, **options):
    params, carry, xs, _ = data(name)
    cell = EXAMPLES[name].cell
    return braintrace.compile(cell, algorithm, xs[0], params=params, carry=carry, **options)


# Events


def etlp_oracle(name, *given, events, **more):
    given = EXAMPLES[name].cell, *given
    options = {"y_target": target_of(), "B_list": projections(name), **more, **SUM}
    return checks.etlp_oracle(*given, events=events, **options)[0]


def test_events_that_are_drawn():
    """In every window, step by step, with the regulariser."""
    name, y = "recurrent_lif", {"y_target": target_of()}
    given = {"B_list": split_projections(name), "event_rate": 0.4, **REGULARISED}
    this = compiled(name, "etlp", event_key=1, **given)
    events = [jnp.asarray(RandomEvents(0.4, key).chosen[:T]) for key in (1, 2)]
    assert 0 < events[0].sum() < T

    @once
    def every_way(*given):
        of = {"voltage": (0.5, 0.1, voltage)}
        right, other = (etlp_oracle(name, *given, events=e, **of) for e in events)
        ways = [windowed(this, given, window, **y) for window in (1, 3, None)]
        return right, [*ways, stepwise(this, given, **y)], other

    right, ways, other = every_way(*data(name))
    assert min(norm(right).values()) > 1e-3
    for got in ways:
        same(got, right)
    assert min(apart(other, right).values()) > 1e-3  # control: the events matter


def test_events_that_the_mask_says():
    """Sample by sample; targets, errors and regulariser count at events alone."""
    name = "two_alif"
    names = {"voltages": ["[0]['V']", "[1]['V']"], **REGULARISED}
    this = compiled(name, "etlp", B_list=split_projections(name), **names)
    mask = jnp.asarray(np.random.default_rng(0).random((T, B)) > 0.6, float)
    y, wrong = target_of(), target_of().at[jnp.where(mask == 0)].set(7.0)

    @once
    def every_way(*given):
        of = {"voltage": (0.5, 0.1, voltage), "mask": mask, "events": None}
        ways = [windowed(this, given, 3, mask=mask, y_target=t) for t in (y, wrong)]
        return etlp_oracle(name, *given, **of), ways, windowed(this, given, 3, y_target=y)

    right, ways, always = every_way(*data(name))
    for got in ways:
        same(got, right)
    assert min(apart(always, right).values()) > 1e-3  # control


def test_without_events_and_regulariser_it_is_osttp():
    name = "two_alif"
    given, y = data(name), {"y_target": target_of()}
    both = [compiled(name, rule, B_list=split_projections(name)) for rule in ("etlp", "osttp")]
    one, other = once(lambda *given: [windowed(this, given, 3, **y) for this in both])(*given)
    same(one, other)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "got:      a group of the states [0]['V'], [0]['a']"),
        ({"voltages": "V"}, "expected: of [0]['V'], [0]['a'], [1]['V'], [1]['a']"),
    ],
)
def test_the_voltage_is_not_guessed(options, words):
    with pytest.raises(BrainTraceError) as error:
        compiled("two_alif", "etlp", feedback_key=0, **REGULARISED, **options)
    assert words in str(error.value), str(error.value)


def test_no_signal_is_left_of_a_step_before():
    """Nor a weight that a driver set."""
    params, carry, xs, ys = data("recurrent_lif")
    late = compiled("recurrent_lif", "osttp", feedback_key=0, target_timing="sequence-end")
    local = compiled("recurrent_lif", "decolle", readout_key=0)

    def hidden(this, state, **signals):
        value = lambda p: loss(this.update(p, state, xs[0], **signals)[1], ys[0]).sum()
        return jax.grad(value)(params)["W"]

    state, _ = late.update(params, late.init(params, carry), xs[0], y_target=ys[0])
    assert np.abs(hidden(late, state, y_target=ys[0])).max() > 0
    assert not hidden(late, state).any()
    start = local.init(params, carry)
    given = {"mask": jnp.full((T, B), 3.0), "y_target": ys, **SUM}
    weighed = local.etrace_grad(params, start, xs, ys, **given)[1]
    same_carry = local.etrace_evolve(params, start, xs, return_outputs=False)[0]
    np.testing.assert_allclose(
        hidden(local, weighed, y_target=ys[0]), hidden(local, same_carry, y_target=ys[0]), 1e-10
    )


# The neuron of DECOLLE

ALPHA, BETA, REFRACTORY = 0.95, 0.9, 0.65
SIZES = (I, N, M)


def as_published(p, carry, x):
    """Filters of the input, whose weighted sum is the potential beside a detached refractory
    current; the filter of the current input is read one step later.
    """
    new, z = [], x
    for k, (P, Q, R) in enumerate(carry):
        P, Q = ALPHA * P + (1 - ALPHA) * Q, BETA * Q + (1 - BETA) * z
        s = spike(P @ p[f"W{k}"] + R)
        new.append((P, Q, REFRACTORY * R - (1 - REFRACTORY) * sg(s)))
        z = s
    return tuple(new), z @ p["o"]


def with_currents(p, carry, x):
    """The same numbers with the weights in front of the filters."""
    new, z = [], x
    for k, (V, J, R) in enumerate(carry):
        V, J = ALPHA * V + (1 - ALPHA) * J, BETA * J + (1 - BETA) * (z @ p[f"W{k}"])
        s = spike(V + R)
        new.append((V, J, REFRACTORY * R - (1 - REFRACTORY) * sg(s)))
        z = s
    return tuple(new), z @ p["o"]


def local_losses(params, xs, ys, G_list, stopped=True):
    """The sum of the local losses of the published network, by plain steps."""
    stop = sg if stopped else lambda v: v
    sizes = ((I, I, N), (N, N, M))
    states = [tuple(jnp.zeros((B, n)) for n in of) for of in sizes]
    total = 0.0
    for x, y in zip(xs, ys, strict=True):
        z = x
        for k, (P, Q, R) in enumerate(states):
            P, Q = ALPHA * P + (1 - ALPHA) * Q, BETA * Q + (1 - BETA) * stop(z)
            z = spike(P @ params[f"W{k}"] + R)
            states[k] = P, Q, REFRACTORY * R - (1 - REFRACTORY) * sg(z)
            total += smooth_l1(z @ G_list[k], y).sum()
    return total


def test_the_neuron_of_the_paper():
    """The local gradient is that of BPTT of the local losses, and the traces are the filtered
    inputs.
    """
    params = {f"W{k}": 3 * jnp.asarray(drawn(*SIZES[k : k + 2])) for k in range(2)}
    params["o"] = jnp.asarray(drawn(M, O))
    xs, ys = jnp.asarray(2 * drawn(9, B, I)), jnp.asarray(drawn(9, B, O, seed=2))
    G_list = [jnp.asarray(drawn(n, O, seed=3)) for n in SIZES[1:]]
    carry = tuple((jnp.zeros((B, n)),) * 3 for n in SIZES[1:])
    learner = braintrace.compile(
        with_currents, "decolle", xs[0], params=params, carry=carry, G_list=G_list
    )
    given = {"loss_fn": loss, "y_target": ys, "reduction": "sum"}
    found, state, _ = learner.etrace_grad(params, learner.init(params, carry), xs, ys, **given)
    right = jax.grad(local_losses)(params, xs, ys, G_list)
    hidden = ("W0", "W1")
    same({k: found[k] for k in hidden}, {k: right[k] for k in hidden})
    through = jax.grad(local_losses)(params, xs, ys, G_list, stopped=False)
    assert apart(through, right)["W0"] > 1e-3  # control: with a gradient between the layers
    P = Q = jnp.zeros((B, I))
    for x in xs:
        P, Q = ALPHA * P + (1 - ALPHA) * Q, BETA * Q + (1 - BETA) * x
    row = next(r for r in learner.graph.parameters if r.path == "['W0']")
    traces = learner.rule.carrier.of_site(state.traces["carrier"], row.sites[0])
    potential = jax.tree.leaves(traces)[0]  # the first slot's: V
    np.testing.assert_allclose(potential, jnp.broadcast_to(P[:, :, None], (B, I, N)), 1e-10)


def test_both_forms_of_the_neuron_have_the_same_outputs():
    params = {f"W{k}": 3 * jnp.asarray(drawn(*SIZES[k : k + 2])) for k in range(2)}
    params["o"] = jnp.asarray(drawn(M, O))
    pairs = [tuple(jnp.zeros((B, n)) for n in sizes) for sizes in ((I, I, N), (N, N, M))]
    states = [tuple(pairs), tuple((jnp.zeros((B, n)),) * 3 for n in SIZES[1:])]
    spikes = 0
    for x in jnp.asarray(2 * drawn(9, B, I)):
        outs = []
        for k, cell in enumerate((as_published, with_currents)):
            states[k], out = cell(params, states[k], x)
            outs.append(out)
        np.testing.assert_allclose(*outs, 1e-9, 1e-12)
        spikes += int((outs[0] != 0).sum())
    assert spikes
