"""Synthetic gradients: with a true estimate BPTT, else what the estimate says, which learns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import braintrace
from braintrace import SyntheticGradient, UsageError, checks, train_synthetic_gradient
from braintrace.core.signals import by_sample, estimated
from zoo import loss
from zoo._interpret import once

from ._rules import SUM, apart, same, stepwise, windowed
from .cells import EXAMPLES, B, T, data

CELLS = ["leaky_tanh", "gru", "two_alif"]
M = SyntheticGradient(scale=0.5, seed=1)


def compiled(name, estimator=M):
    params, carry, xs, _ = data(name)
    cell = EXAMPLES[name].cell
    given = {"params": params, "carry": carry, "synthesizer": estimator}
    return braintrace.compile(cell, "dni", xs[0], **given)


def rows(learner, tree):
    """The hidden state of a carry, (B, n)."""
    flat, leaves = learner.cell.carry.apart(tree), estimated(learner.graph)
    return by_sample(learner.graph, leaves, [flat[k] for k in leaves])


def like(learner, carry, estimate):
    """A row for each sample as a tree like the carry."""
    shapes = [v.reshape(B, -1).shape[1] for v in jax.tree.leaves(carry)]
    parts = jnp.split(estimate, np.cumsum(shapes)[:-1], axis=1)
    pairs = zip(parts, jax.tree.leaves(carry), strict=True)
    return jax.tree.structure(carry).unflatten([p.reshape(v.shape) for p, v in pairs])


def fitted(state, gradient):
    """Weights of an affine map from these states to these gradients."""
    given = np.concatenate([state, np.ones((B, 1))], 1)
    found = np.linalg.lstsq(given, gradient, rcond=None)[0]
    return [jnp.asarray(found[:-1]), jnp.asarray(found[-1])]


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("size", [1, 3])
def test_with_the_true_gradients_it_is_bptt(name, size):
    this, cell = compiled(name), EXAMPLES[name].cell
    params, carry, xs, ys = data(name)

    def later(h, start):
        def run(h, at):
            h, out = cell(params, h, at[0])
            return h, loss(out, at[1]).sum()

        return jax.lax.scan(run, h, (xs[start:], ys[start:]))[1].sum()

    total = jax.tree.map(jnp.zeros_like, params)
    untrained, state = total, this.init(params, carry)
    for start in range(0, T, size):
        end = start + size
        exit = state.carry
        for t in range(start, end):
            exit = cell(params, exit, xs[t])[0]
        truth = jax.grad(later)(exit, end)
        weights = fitted(rows(this, exit), rows(this, truth))
        pinned = M.placed(state, weights)
        none = M.placed(state, [jnp.zeros_like(w) for w in weights])

        def of_chunk(params, state, part=slice(start, end)):
            new, outs = (
                this.update(params, state, xs[part][0])
                if size == 1
                else this.update_window(params, state, xs[part], full=True)
            )
            each = loss(outs, ys[part][0]) if size == 1 else jax.vmap(loss)(outs, ys[part])
            return each.sum(), new

        found, state = jax.grad(of_chunk, has_aux=True)(params, pinned)
        total = jax.tree.map(jnp.add, total, found)
        untrained = jax.tree.map(
            jnp.add, untrained, jax.grad(of_chunk, has_aux=True)(params, none)[0]
        )
    bptt = checks.bptt_gradient(cell, params, carry, xs, ys, **SUM)[0]
    same(total, bptt)
    assert max(apart(untrained, bptt).values()) > 1e-3  # control: without an estimate it is not


@pytest.mark.parametrize("name", CELLS)
def test_any_estimate_against_the_oracle(name):
    """In every window and step by step, masked and as a mean, with chunks at its exit."""
    this, cell = compiled(name), EXAMPLES[name].cell
    weights = [jnp.asarray(w) for w in M.initial(rows(this, data(name)[1]).shape[1])]

    @once
    def every_way(params, carry, xs, ys):
        given, state = (params, carry, xs, ys), this.init(params, carry)
        estimate = lambda h, scale=1.0: like(this, h, scale * M(weights, rows(this, h)))
        right = checks.dni_oracle(cell, *given, estimate=estimate, **SUM)[0]
        other = checks.instantaneous_oracle(cell, *given, **SUM)[0]
        ways = [windowed(this, given, window) for window in (1, 3, None)]
        mask = jnp.linspace(0, 1, T)  # the first step is a warm-up
        mean = lambda h: estimate(h, 1 / mask.sum() / B)
        told = {"loss_fn": loss, "mask": jnp.broadcast_to(mask[:, None], (T, B))}
        masked = [this.etrace_grad(params, state, xs, ys, window=w, **told)[0] for w in (1, 3)]
        right_masked = checks.dni_oracle(cell, *given, estimate=mean, **told)[0]

        def whole(params):
            outs = this.update_window(params, state, xs[:3], full=True)[1]
            return jax.vmap(loss)(outs, ys[:3]).sum()

        chunk = jax.grad(whole)(params)
        three = (*given[:2], xs[:3], ys[:3])
        right_chunk = checks.dni_oracle(cell, *three, estimate=estimate, chunk_size=3, **SUM)[0]
        ways.append(stepwise(this, given))
        return right, other, ways, right_masked, masked, right_chunk, chunk

    right, other, ways, right_masked, masked, right_chunk, chunk = every_way(*data(name))
    for found in ways:
        same(found, right)
    for found in masked:
        same(found, right_masked)
    same(chunk, right_chunk)
    assert max(apart(other, right).values()) > 1e-3  # control: the estimate matters


def test_fidelity_is_that_of_what_was_learned():
    this, (params, carry, xs, ys) = compiled("gru", SyntheticGradient()), data("gru")
    state, cell = this.init(params, carry), EXAMPLES["gru"].cell
    state, _ = train_synthetic_gradient(this, params, state, xs, ys, loss_fn=loss, lr=0.1, epochs=9)
    found, _, info = this.etrace_grad(params, state, xs, ys, fidelity=True, **SUM)
    bptt = checks.bptt_gradient(cell, params, carry, xs, ys, **SUM)[0]
    off = lambda g: {
        f"['{k}']": jnp.linalg.norm(g[k] - bptt[k]) / jnp.linalg.norm(bptt[k]) for k in bptt
    }
    right = off(found)
    for path, fidelity in info.fidelity.items():
        np.testing.assert_allclose(fidelity.relative_error, right[path], rtol=1e-9, atol=1e-12)
    none = this.etrace_grad(params, this.init(params, carry), xs, ys, **SUM)[0]
    assert abs(off(none)["['U']"] - right["['U']"]) > 1e-3  # control


def test_what_follows_the_last_step_that_counts_has_no_estimate():
    this, (params, carry, xs, ys) = compiled("gru"), data("gru")
    state, mask = this.init(params, carry), jnp.arange(T) < 3
    given = {"loss_fn": lambda out, y: loss(out, y).sum(), "reduction": "sum"}
    whole = this.etrace_grad(params, state, xs, ys, mask=mask, **given)[0]
    same(whole, this.etrace_grad(params, state, xs[:3], ys[:3], **given)[0])
    longer = this.etrace_grad(params, state, xs[:4], ys[:4], **given)[0]
    assert max(apart(longer, whole).values()) > 1e-3


def test_an_untrained_estimator_changes_nothing_and_the_report_says_what_it_is():
    this, (params, carry, xs, ys) = compiled("gru", SyntheticGradient()), data("gru")
    plain = checks.instantaneous_oracle(EXAMPLES["gru"].cell, params, carry, xs, ys, **SUM)[0]
    same(this.etrace_grad(params, this.init(params, carry), xs, ys, **SUM)[0], plain)
    why = "its effect on later steps is what a learned estimate says"
    assert {r.reason for r in this.graph.parameters if str(r.exactness) == "approximate"} == {why}
    state = this.init(params, carry)
    held = sum(w.nbytes for w in M.weights(state))
    n = rows(this, carry).shape[1]
    assert held == 8 * n * (n + 1) and this.memory_plan(10).traces >= held


@pytest.mark.parametrize("optimizer", [None, optax.sgd(0.1)])
def test_one_step_of_learning_by_hand(optimizer):
    """A chunk of two steps, M at its exit; one sample begins anew at its entry, one in between."""
    this, cell = compiled("leaky_tanh"), EXAMPLES["leaky_tanh"].cell
    params, carry, xs, ys = data("leaky_tanh")
    state = this.init(params, jax.tree.map(lambda v: v + 0.3, carry))
    weights = M.weights(state)
    reset = jnp.eye(2, B, dtype=bool)

    def followed(h):
        total = 0.0
        for t in range(2):
            keep = reset[t].reshape(B, 1)
            h = jax.tree.map(lambda old, now, k=keep: jnp.where(k, old, now), carry, h)
            h, out = cell(params, h, xs[t])
            total += loss(out, ys[t]).sum()
        estimate = jax.lax.stop_gradient(M(weights, rows(this, h)))
        return total + (estimate * rows(this, h)).sum()

    target = rows(this, jax.grad(followed)(state.carry))
    assert abs(target[0]).max() == 0 < abs(target[1]).max()  # nothing passes the reset
    error = lambda w: ((M(w, rows(this, state.carry)) - target) ** 2).sum() / (2 * B)
    right = [w - 0.1 * g for w, g in zip(weights, jax.grad(error)(weights), strict=True)]
    given = {"loss_fn": loss, "chunk_size": 2, "lr": 0.1, "reset": reset, "optimizer": optimizer}
    new, errors = train_synthetic_gradient(this, params, state, xs[:2], ys[:2], **given)
    for found, wanted in zip(M.weights(new), right, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)
    squared = ((M(weights, rows(this, state.carry)) - target) ** 2).mean()
    np.testing.assert_allclose(errors, [squared], rtol=1e-12)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), new.carry, state.carry))
    given = {**given, "reset": None}
    other = train_synthetic_gradient(this, params, state, xs[:2], ys[:2], **given)[0]
    assert abs(M.weights(other)[1] - right[1]).max() > 1e-6  # control: the reset matters


def test_a_linear_problem_converges():
    """h' = A h + x, L = c h: the later loss has the gradient c (A + A^2 + ...) at any state."""
    A = 0.5 * jnp.eye(3) + 0.1 * jnp.ones((3, 3))
    c, random = jnp.array([1.0, -1.0, 2.0]), np.random.default_rng(0)
    cell = lambda p, h, x: ((h := h @ p["A"] + x @ p["w"]), h)
    params, h = {"A": A, "w": jnp.eye(3)}, jnp.zeros((2, 3))
    xs = jnp.asarray(random.normal(size=(60, 2, 3)))
    this = braintrace.compile(cell, "dni", xs[0], params=params, carry=h)
    state, given = this.init(params, h), {"loss_fn": lambda out: out @ c, "lr": 0.05}
    state, errors = train_synthetic_gradient(this, params, state, xs, epochs=200, **given)
    truth = A @ jnp.linalg.solve(jnp.eye(3) - A, c)
    matrix, bias = SyntheticGradient.weights(state)
    np.testing.assert_allclose(bias, truth, rtol=1e-6)
    np.testing.assert_allclose(matrix, 0, atol=1e-6)
    assert errors[-1] < 1e-12 < errors[0]
    # and the gradient is that of BPTT, of a sequence that goes on in silence
    start = SyntheticGradient.placed(this.init(params, h), SyntheticGradient.weights(state))
    found = this.etrace_grad(params, start, xs[:5], loss_fn=given["loss_fn"], reduction="sum")[0]

    def total(live):
        go_on = lambda p: lambda h, x: cell(p, h, x)
        end, outs = jax.lax.scan(go_on(live), h, xs[:5])
        return (outs @ c).sum() + (
            jax.lax.scan(go_on(params), end, jnp.zeros((400, 2, 3)))[1] @ c
        ).sum()

    assert max(apart(found, jax.grad(total)(params)).values()) < 1e-6


def test_the_end_of_a_sequence():
    """With `ends` M learns zero where nothing follows; a mask of zeros leaves losses out."""
    cell = lambda w, h, x: ((h := 0.0 * h + x * w), h)
    w, h, xs = jnp.ones(1), jnp.zeros((1, 1)), jnp.ones((1, 1, 1))
    this = braintrace.compile(cell, "dni", xs[0], params=w, carry=h)
    state = SyntheticGradient.placed(this.init(w, h), [jnp.zeros((1, 1)), jnp.ones(1)])
    given = {"loss_fn": lambda out: out.sum(-1), "lr": 0.5}
    ended = train_synthetic_gradient(this, w, state, xs, ends=True, **given)[0]
    # at the entry, 0, and at the end, 1, where the matrix moves too: 1 -> 1/2 -> 1/4
    assert [v.item() for v in SyntheticGradient.weights(ended)] == [-0.25, 0.25]
    goes_on = train_synthetic_gradient(this, w, state, xs, **given)[0]
    assert [v.item() for v in SyntheticGradient.weights(goes_on)] == [0, 0.5]
    again = train_synthetic_gradient(
        this,
        w,
        ended,
        xs,
        reset=True,
        mask=jnp.zeros(1),
        **{**given, "loss_fn": lambda out: out.sum()},
    )[0]
    assert SyntheticGradient.weights(again)[1].item() == 0.125


def test_refresh_says_when_the_target_has_the_new_weights():
    cell = lambda w, h, x: ((h := 0.5 * h + x * w), h)
    w, h, xs = jnp.ones(1), jnp.zeros((1, 1)), jnp.zeros((2, 1, 1))
    this = braintrace.compile(cell, "dni", xs[0], params=w, carry=h)
    start = SyntheticGradient.placed(this.init(w, h), [jnp.zeros((1, 1)), jnp.ones(1)])
    found = {}
    for refresh in (1, 2):
        given = {"loss_fn": lambda out: 0 * out.sum(-1), "lr": 1.0, "refresh": refresh}
        new = train_synthetic_gradient(this, w, start, xs, **given)[0]
        found[refresh] = SyntheticGradient.weights(new)[1].item()
    assert found == {1: 0.25, 2: 0.5}  # half of the copy at each step: 1/2 of 1/2, or 1/2 of 1


def test_a_hidden_layer():
    wide = SyntheticGradient(hidden_width=5)
    cell = lambda w, h, x: ((h := 0.5 * h + x @ w), h)
    w, h, xs = jnp.ones((2, 3)), jnp.zeros((1, 3)), jnp.ones((20, 1, 2))
    this = braintrace.compile(cell, "dni", xs[0], params=w, carry=h, synthesizer=wide)
    state = this.init(w, h)
    assert [v.shape for v in wide.weights(state)] == [(3, 5), (5,), (5, 3), (3,)]
    given = {"loss_fn": lambda out: out.sum(-1), "lr": 0.05, "epochs": 60}
    _, errors = train_synthetic_gradient(this, w, state, xs, **given)
    assert errors[-1] < 0.05 * errors[0]


WRONG = [
    ({"chunk_size": 4}, "do not fill the sequence"),
    ({"chunk_size": 0}, "Invalid chunk_size"),
    ({"lr": 0}, "Invalid lr"),
    ({"epochs": 0}, "Invalid epochs"),
    ({"refresh": 1.5}, "Invalid refresh"),
    ({"ends": 1}, "Invalid ends"),
    ({"batch_size": 7}, "Invalid batch_size"),
    ({"loss_fn": 3}, "loss_fn"),
    ({"optimizer": 3}, "Invalid optimizer"),
    ({"mask": jnp.ones((T, B + 1))}, "mask"),
    ({"reset": jnp.zeros((T, B + 1), bool)}, "reset"),
]


@pytest.mark.parametrize(("given", "says"), WRONG, ids=lambda v: str(v)[:20])
def test_what_does_not_fit(given, says):
    this, (params, carry, xs, ys) = compiled("gru"), data("gru")
    with pytest.raises(UsageError, match=says):
        train_synthetic_gradient(
            this, params, this.init(params, carry), xs, ys, **{"loss_fn": loss, **given}
        )


def test_learners_without_an_estimator_and_weights_that_do_not_fit():
    params, carry, xs, ys = data("gru")
    cell = EXAMPLES["gru"].cell
    other = braintrace.compile(cell, "d_rtrl", xs[0], params=params, carry=carry)
    state = other.init(params, carry)
    with pytest.raises(UsageError, match="no estimator"):
        train_synthetic_gradient(other, params, state, xs, ys, loss_fn=loss)
    with pytest.raises(UsageError, match="no estimator"):
        SyntheticGradient.weights(state)
    this = compiled("gru")
    with pytest.raises(UsageError, match="do not fit"):
        M.placed(this.init(params, carry), [jnp.zeros((2, 2)), jnp.zeros(2)])
    with pytest.raises(UsageError, match="Invalid synthesizer"):
        braintrace.compile(cell, "dni", xs[0], params=params, carry=carry, synthesizer=3)
