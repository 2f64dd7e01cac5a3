"""Every cell of the zoo: step by step, in windows of several steps, over a sequence and without
traces, the gradient is that of the two-evaluation oracle, and so is the state.

Windows of a sequence, and certificates against BPTT, are in the matrix of the zoo.
"""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from zoo import CASES, bptt, loss, run_once, tolerance

from ._front_end import assert_same, data, distances, learner_for, stepwise, values, windowed

#: `compile` is told more of the others, and the matrix of the zoo has them.
PLAIN = {name: case for name, case in CASES.items() if not case.compiled}
WAYS = ("update", "window of 3", "sequence", "no traces")


def measure(case):
    """The learner of a case, and its gradients by every way, with BPTT through the cell and through
    the oracle.
    """
    params, carry, xs, ys = data(case.name)
    learner = learner_for(case.cell, params, carry, xs[0])

    def every_way(params, carry, xs, ys):
        state = learner.init(params, carry)
        sequence = partial(
            learner.etrace_grad, params, state, xs, ys, loss_fn=loss, reduction="sum"
        )
        default = sequence()
        untraced = learner.init(params, carry, traces=False)
        bare = learner.etrace_grad(
            params, untraced, xs, ys, loss_fn=loss, reduction="sum", return_state=False
        )
        step, window = (
            stepwise(learner, params, state, xs, ys),
            windowed(learner, params, state, xs, ys, 3),
        )
        gradients = [step[0], window[0], default[0], bare[0]]
        states = [step[1], window[1], default[1]]
        whole = windowed(learner, params, state, xs, ys, xs.shape[0], full=True)[0]
        truth = {
            "oracle": bptt(case.oracle, params, carry, xs, ys),
            "bptt": bptt(case.cell, params, carry, xs, ys),
        }
        losses = default[2].losses, jax.vmap(loss)(learner.etrace_evolve(params, state, xs)[1], ys)
        return dict(zip(WAYS, gradients, strict=True)), states, whole, truth, losses

    names = ("gradients", "states", "whole", "truth", "losses")
    got = dict(zip(names, run_once(every_way, params, carry, xs, ys), strict=True))
    return SimpleNamespace(case=case, learner=learner, **got)


def check_gradients_are_the_oracles(measured):
    for way, gradients in measured.gradients.items():
        off = distances(gradients, measured.truth["oracle"])
        assert all(d < tolerance(measured.case) for d in off.values()), f"{way}: {off}"


def check_certificate_is_the_cases(measured):
    said = {row.path[2:-2]: str(row.exactness) for row in measured.learner.graph.parameters}
    assert said == measured.case.certificate


def check_dropped_paths_are_stated_iff_not_exact(measured):
    for row in measured.learner.graph.parameters:
        assert bool(row.dropped) == (row.exactness != "exact"), row
        assert all(path.source or path.kind == "carried" for path in row.dropped), row


def check_states_do_not_depend_on_the_way(measured):
    first, *others = measured.states
    assert first.steps == 5
    for state in others:
        assert_same(values(state.carry), values(first.carry), 1e-12)
        assert_same(state.traces, first.traces, tolerance(measured.case))
        assert state.steps == 5


def check_full_window_over_the_whole_sequence_is_bptt(measured):
    off = distances(measured.whole, measured.truth["bptt"])
    assert all(d < tolerance(measured.case) for d in off.values()), off


def check_losses_are_those_of_the_cell(measured):
    assert_same(*measured.losses, 1e-12)
    assert jnp.all(measured.losses[0] > 0)


@pytest.mark.parametrize("case", PLAIN.values(), ids=PLAIN.keys())
def test_case(case):
    """One test a case, so that its programs are traced once wherever it runs."""
    measured = measure(case)
    check_gradients_are_the_oracles(measured)
    check_certificate_is_the_cases(measured)
    check_dropped_paths_are_stated_iff_not_exact(measured)
    check_states_do_not_depend_on_the_way(measured)
    check_full_window_over_the_whole_sequence_is_bptt(measured)
    check_losses_are_those_of_the_cell(measured)


def window_oracle(case, params, carry, xs, ys, window):
    """BPTT inside each window from the entry state `sg(h) + <J, p - sg(p)>`, J the two-evaluation
    influence at its entry.
    """
    cell, oracle = case.cell, case.oracle
    total = jax.tree.map(jnp.zeros_like, params)
    for start in range(0, xs.shape[0], window):

        def entry(params, start=start):
            return jax.lax.scan(lambda c, x: oracle(params, c, x), carry, xs[:start])[0]

        h, influence = entry(params), jax.jacfwd(entry)(params)

        def objective(live, start=start, h=h, influence=influence):
            off = jax.tree.leaves(jax.tree.map(jnp.subtract, live, params))
            moved = [
                a
                + sum(
                    jnp.tensordot(j, o, o.ndim)
                    for j, o in zip(jax.tree.leaves(js), off, strict=True)
                )
                for a, js in zip(
                    jax.tree.leaves(h), jax.tree.structure(h).flatten_up_to(influence), strict=True
                )
            ]
            part = slice(start, start + window)
            step = lambda c, x: cell(live, c, x)
            _, outs = jax.lax.scan(step, jax.tree.unflatten(jax.tree.structure(h), moved), xs[part])
            return jnp.sum(jax.vmap(loss)(outs, ys[part]))

        total = jax.tree.map(jnp.add, total, jax.grad(objective)(params))
    return total


@pytest.mark.parametrize("name", ["alif", "gru_reset_before"])
def test_full_windows_are_bptt_inside_plus_the_trace_at_the_entry(name):
    case, (params, carry, xs, ys) = CASES[name], data(name, steps=7)
    learner = learner_for(case.cell, params, carry, xs[0])
    full = windowed(learner, params, learner.init(params, carry), xs, ys, 3, full=True)[0]
    assert_same(full, window_oracle(case, params, carry, xs, ys, 3))
    for other in (bptt(case.cell, params, carry, xs, ys), bptt(case.oracle, params, carry, xs, ys)):
        assert any(
            d > 1e-3 for d in distances(full, other).values()
        )  # control: it is a third gradient
