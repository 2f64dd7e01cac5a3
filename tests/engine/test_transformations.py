"""Laws that hold for every cell: the transformations of JAX, and where a run may be cut."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo import CASES, loss

from ._front_end import assert_same, data, distances, learner, stepwise, summed, total


def test_scan_loop_and_jit_agree():
    name = "alif"
    params, carry, xs, ys = data(name)
    this = learner(name)
    state = this.init(params, carry)
    loop, added = state, []
    for x, y in zip(xs, ys, strict=True):

        def objective(params, loop=loop, x=x, y=y):
            new, out = this(params, loop, x)
            return summed(out, y), new

        gradients, loop = jax.grad(objective, has_aux=True)(params)
        added.append(gradients)
    scanned, end = stepwise(this, params, state, xs, ys)
    compiled, end_compiled = jax.jit(partial(stepwise, this))(params, state, xs, ys)
    eager = this.etrace_grad(params, state, xs, ys, loss_fn=loss, reduction="sum", window=2)[0]
    nested = jax.jit(lambda *a: jax.jit(partial(stepwise, this))(*a))(params, state, xs, ys)[0]
    for other in (scanned, compiled, eager, nested):
        assert_same(other, total(added))
    assert_same(end, loop)
    assert_same(end_compiled, loop)


@pytest.mark.parametrize("name", ["gru_reset_before", "alif"])
def test_a_split_run_is_one_run(name):
    params, carry, xs, ys = data(name)
    this = learner(name)
    whole, end, info = this.etrace_grad(
        params, this.init(params, carry), xs, ys, loss_fn=loss, reduction="sum"
    )
    for untraced in (False, True):
        state = this.init(params, carry, traces=not untraced)
        first, state, one = this.etrace_grad(
            params, state, xs[:2], ys[:2], loss_fn=loss, reduction="sum"
        )
        second, state, two = this.etrace_grad(
            params, state, xs[2:], ys[2:], loss_fn=loss, reduction="sum", window=2
        )
        assert_same(total([first, second]), whole)
        assert_same(state, end)
        np.testing.assert_allclose(np.concatenate([one.losses, two.losses]), info.losses)
    fresh = this.init(params, state.carry)
    forgetful = this.etrace_grad(params, fresh, xs[2:], ys[2:], loss_fn=loss, reduction="sum")[0]
    assert any(
        d > 1e-3 for d in distances(forgetful, second).values()
    )  # control: the traces matter


def test_two_calls_inside_one_grad_add_up():
    name = "alif"
    params, carry, xs, ys = data(name)
    this = learner(name)

    def objective(params):
        state, first = this.update_window(params, this.init(params, carry), xs[:2])
        _, second = this.update(params, state, xs[2])
        return jnp.sum(jax.vmap(summed)(first, ys[:2])) + summed(second, ys[2])

    expected = this.etrace_grad(
        params, this.init(params, carry), xs[:3], ys[:3], loss_fn=loss, reduction="sum"
    )[0]
    assert_same(jax.grad(objective)(params), expected)


def test_the_state_is_a_carry_of_the_users_scan():
    name = "gru_reset_before"
    params, carry, xs, ys = data(name, steps=6)
    this = learner(name)

    def episode(state, at):
        gradients, state, _ = this.etrace_grad(
            params, state, *at, loss_fn=loss, reduction="sum", window=2
        )
        return state, gradients

    chunks = jax.tree.map(lambda v: v.reshape(2, 3, *v.shape[1:]), (xs, ys))
    state, gradients = jax.lax.scan(episode, this.init(params, carry), chunks)
    whole, end, _ = this.etrace_grad(
        params, this.init(params, carry), xs, ys, loss_fn=loss, reduction="sum"
    )
    assert_same(jax.tree.map(lambda v: v.sum(0), gradients), whole)
    assert_same(state, end)
    assert state.steps == 6


def test_the_gradient_of_mapped_updates_is_the_sum():
    """Streams mapped with shared parameters, or parameters mapped over one stream, under one
    gradient.
    """
    name = "gru_reset_before"
    params, carry, xs, ys = data(name, steps=3)
    this = learner(name)
    scales = jnp.array([1.0, 0.6, -1.4])

    def total(params, scale):
        state, value = this.init(params, carry), 0.0
        for x, y in zip(xs, ys, strict=True):
            state, out = this.update(params, state, jax.tree.map(lambda v: v * scale, x))
            value = value + summed(out, y)
        return value

    together = jax.grad(lambda p: jax.vmap(total, in_axes=(None, 0))(p, scales).sum())(params)
    alone = [jax.grad(total)(params, scale) for scale in scales]
    assert_same(together, jax.tree.map(lambda *v: sum(v), *alone))
    many = jax.tree.map(lambda v: jnp.stack([v, 0.7 * v]), params)
    found = jax.grad(lambda p: jax.vmap(total, in_axes=(0, None))(p, 1.0).sum())(many)
    for k in range(2):
        assert_same(
            jax.tree.map(lambda v, k=k: v[k], found),
            jax.grad(total)(jax.tree.map(lambda v, k=k: v[k], many), 1.0),
        )


def test_commutes_with_vmap_over_seeds():
    name = "alif"
    params, carry, xs, ys = data(name)
    this = learner(name)
    seeds = jax.tree.map(lambda v: jnp.stack([v, 0.7 * v, 1.3 * v]), params)

    def run(params):
        return this.etrace_grad(params, this.init(params, carry), xs, ys, loss_fn=loss, window=2)

    def online(params):
        return stepwise(this, params, this.init(params, carry), xs, ys)

    for way in (run, online):
        together = jax.vmap(way)(seeds)
        for k in range(3):
            alone = way(jax.tree.map(lambda v, k=k: v[k], seeds))
            assert_same(jax.tree.map(lambda v, k=k: v[k], together), alone)


def test_remat_changes_nothing():
    name = "gru_reset_before"
    params, carry, xs, ys = data(name)
    this = learner(name)
    state = this.init(params, carry)

    def objective(params, state, x, y):
        new, out = this.update(params, state, x)
        return summed(out, y), new

    def of(way):
        now, added = state, []
        for x, y in zip(xs[:3], ys[:3], strict=True):
            gradients, now = jax.grad(way, has_aux=True)(params, now, x, y)
            added.append(gradients)
        return total(added)

    assert_same(of(jax.checkpoint(objective)), of(objective))


def test_networks_in_front_of_the_learner_train():
    """The cotangent of x is the ordinary one of its step."""
    name = "two_recurrent_layers"
    params, carry, xs, ys = data(name)
    this, oracle = learner(name), CASES[name].oracle
    front = 0.1 * jnp.ones((xs.shape[-1],) * 2) + jnp.eye(xs.shape[-1])
    state = this.etrace_grad(params, this.init(params, carry), xs, ys, loss_fn=loss)[1]
    got = jax.grad(lambda f: summed(this.update(params, state, xs[0] @ f)[1], ys[0]))(front)
    expected = jax.grad(lambda f: summed(oracle(params, state.carry, xs[0] @ f)[1], ys[0]))(front)
    assert distances([got], [expected])["[0]"] < 1e-10
    assert np.linalg.norm(got) > 1e-3


def test_a_loss_of_the_new_state_counts():
    """L = sum of squares of the new carry: BPTT with the carry cut between steps, plus the
    traces.
    """
    name = "gru_reset_after"
    case, (params, carry, xs, _) = CASES[name], data(name)
    this = learner(name)
    state, added = this.init(params, carry), []
    for x in xs:

        def objective(params, state=state, x=x):
            new, _ = this.update(params, state, x)
            return jnp.sum(jnp.square(new.carry)), new

        gradients, state = jax.grad(objective, has_aux=True)(params)
        added.append(gradients)

    def oracle_loss(params):
        def step(c, x):
            new, _ = case.oracle(params, c, x)
            return new, jnp.sum(jnp.square(new))

        return jnp.sum(jax.lax.scan(step, carry, xs)[1])

    expected = jax.grad(oracle_loss)(params)
    assert_same(total(added), expected)
