"""Laws that hold for every cell: linearity, samples, resets and masks."""

from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo import loss

from ._front_end import QUICK, T, assert_same, data, distances, learner, summed, total, values

BATCHED = [
    "alif",
    "gru_reset_before",
    "two_recurrent_layers",
    "exponential_synapse",
    "counter",
    "delayed_product",
    "lru",
]


def sequence(name, samples=2, **options):
    """`etrace_grad` of a case, compiled, as a function of (params, carry, xs, ys); options are
    traced where arrays.
    """
    static = {k: v for k, v in options.items() if not hasattr(v, "shape")}
    arrays = {k: v for k, v in options.items() if hasattr(v, "shape")}
    static.setdefault("reduction", "sum")
    static.setdefault("loss_fn", loss)

    this = learner(name, samples)

    @partial(jax.jit, compiler_options=QUICK)
    def run(params, carry, xs, ys, arrays):
        return this.etrace_grad(params, this.init(params, carry), xs, ys, **static, **arrays)

    return lambda *given: run(*given, arrays)


def sample(tree, b):
    """The tree with one sample."""
    return jax.tree.map(lambda v: v[b : b + 1], tree)


def sample_of(batch, b):
    """Sequences with one sample: the sample axis comes second."""
    return jax.tree.map(lambda v: v[:, b : b + 1], batch)


# The loss
# --------------------------------------------------------------------------------------------------


def test_linear_in_the_loss():
    name = "alif"
    params, carry, xs, ys = data(name)
    other = lambda out, y: jnp.sum(jnp.sin(out) * y, axis=-1)
    mixed = lambda out, y: 2.0 * loss(out, y) - 0.5 * other(out, y)
    a, b, c = (sequence(name, loss_fn=f)(params, carry, xs, ys)[0] for f in (loss, other, mixed))
    assert_same(c, jax.tree.map(lambda a, b: 2.0 * a - 0.5 * b, a, b))
    assert any(d > 0.1 for d in distances(a, b).values())


def test_mean_divides_by_what_counts():
    name = "alif"
    params, carry, xs, ys = data(name)
    mask = jnp.array([[1, 0], [1, 1], [0, 1], [0, 0], [1, 1]])
    by_sum, by_mean = (
        sequence(name, mask=mask, reduction=r)(params, carry, xs, ys)[0] for r in ("sum", "mean")
    )
    assert_same(by_mean, jax.tree.map(lambda v: v / 6, by_sum))
    plain, mean = (sequence(name, reduction=r)(params, carry, xs, ys)[0] for r in ("sum", "mean"))
    assert_same(mean, jax.tree.map(lambda v: v / (T * 2), plain))
    scalar = sequence(name, loss_fn=summed, reduction="mean")(params, carry, xs, ys)[0]
    assert_same(scalar, jax.tree.map(lambda v: v / T, plain))


def test_a_mask_of_zeros_gives_zeros():
    params, carry, xs, ys = data("alif")
    gradients = sequence("alif", mask=jnp.zeros((T, 2)), reduction="mean")(params, carry, xs, ys)[0]
    assert all(np.all(np.asarray(v) == 0) for v in jax.tree.leaves(gradients))


# Samples
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BATCHED)
def test_a_batch_is_the_sum_of_its_samples(name):
    params, carry, xs, ys = data(name)
    single = sequence(name, samples=1)
    singles = [
        single(params, sample(carry, b), sample_of(xs, b), sample_of(ys, b)) for b in range(2)
    ]
    gradients, state, info = sequence(name)(params, carry, xs, ys)
    assert_same(gradients, total(s[0] for s in singles))
    for b, (_, one, alone) in enumerate(singles):
        assert_same(values(sample(state.carry, b)), values(one.carry))
        np.testing.assert_allclose(info.losses[:, b : b + 1], alone.losses, rtol=1e-10)


RESET = np.zeros((7, 2), bool)
RESET[[0, 2, 5], [0, 0, 0]] = RESET[[3, 4], [1, 1]] = (
    True  # two samples that are reset at steps of their own
)


@pytest.mark.parametrize("name", BATCHED)
def test_reset_is_running_the_pieces(name):
    params, carry, xs, ys = data(name, steps=7)
    pieces, last = [], []
    single = sequence(name, samples=1, window=2)
    for b in range(2):
        cuts = sorted({0, 7, *np.flatnonzero(RESET[:, b]).tolist()})
        for start, stop in pairwise(cuts):
            part = jax.tree.map(
                lambda v, start=start, stop=stop: v[start:stop],
                (sample_of(xs, b), sample_of(ys, b)),
            )
            pieces.append(single(params, sample(carry, b), *part))
        last.append(pieces[-1])
    expected = total(p[0] for p in pieces)
    for window in (1, 3, None):
        gradients, state, _ = sequence(name, reset=RESET, window=window)(params, carry, xs, ys)
        assert_same(gradients, expected)
        for b in range(2):
            assert_same(values(sample(state.carry, b)), values(last[b][1].carry))
    unbroken = sequence(name)(params, carry, xs, ys)[0]
    assert any(
        d > 1e-3 for d in distances(unbroken, expected).values()
    )  # control: the reset matters


def test_reset_of_the_traces_alone_is_seen():
    """Control: clearing the carry and keeping the traces is another gradient."""
    name = "alif"
    params, carry, xs, ys = data(name)
    this = learner(name)
    state = this.etrace_grad(params, this.init(params, carry), xs, ys, loss_fn=loss)[1]
    clean = this.init(params, carry)
    dirty = type(state)(carry, state.traces, state.steps)
    reset = jnp.zeros((T, 2), bool).at[0].set(True)

    def gradient(state, **options):
        return this.etrace_grad(params, state, xs, ys, loss_fn=loss, **options)[0]

    assert_same(gradient(state, reset=reset), gradient(clean))
    assert any(d > 1e-3 for d in distances(gradient(dirty), gradient(clean)).values())


def test_a_reset_between_calls_is_a_reset_inside_one():
    params, carry, xs, ys = data("gru_reset_before", steps=6)
    this = learner("gru_reset_before")
    reset = jnp.zeros((6, 2), bool).at[3, 1].set(True)
    whole, end, _ = this.etrace_grad(
        params, this.init(params, carry), xs, ys, loss_fn=loss, reduction="sum", reset=reset
    )
    parts, state = [], this.init(params, carry)
    for part in (slice(0, 3), slice(3, 6)):
        gradients, state, _ = this.etrace_grad(
            params, state, xs[part], ys[part], loss_fn=loss, reduction="sum", reset=reset[part]
        )
        parts.append(gradients)
    assert_same(whole, total(parts))
    assert_same(state, end)


# Masks
# --------------------------------------------------------------------------------------------------


def test_a_mask_of_steps_is_leaving_their_losses_out():
    name = "gru_reset_before"
    params, carry, xs, ys = data(name)
    mask = jnp.array([1.0, 0.0, 1.0, 0.0, 0.0])
    masked = sequence(name, mask=mask, loss_fn=summed, window=2)(params, carry, xs, ys)[0]
    weighted = lambda out, y, m: m * summed(out, y)
    this = learner(name)
    by_hand = this.etrace_grad(
        params, this.init(params, carry), xs, ys, mask, loss_fn=weighted, reduction="sum"
    )[0]
    assert_same(masked, by_hand)
    head = sequence(name)(params, carry, xs[:1], ys[:1])[0]
    both = [
        sequence(name, mask=jnp.array([float(t == k) for t in range(T)]), loss_fn=summed)
        for k in (0, 2)
    ]
    assert_same(both[0](params, carry, xs, ys)[0], head)  # a tail without loss is no tail
    assert_same(masked, total(f(params, carry, xs, ys)[0] for f in both))


def test_a_mask_of_samples_is_slicing():
    """Ragged sequences: sample 0 ends after 3 steps, sample 1 after 5."""
    name = "alif"
    params, carry, xs, ys = data(name)
    lengths = (3, 5)
    mask = jnp.arange(T)[:, None] < jnp.array(lengths)
    ragged = sequence(name, mask=mask, window=2)(params, carry, xs, ys)[0]
    single = sequence(name, samples=1)
    cut = [
        single(params, sample(carry, b), sample_of(xs, b)[:n], sample_of(ys, b)[:n])[0]
        for b, n in enumerate(lengths)
    ]
    assert_same(ragged, total(cut))


def test_a_masked_loss_that_is_nan_does_not_poison():
    name = "alif"
    params, carry, xs, ys = data(name)
    mask = jnp.ones((T, 2)).at[1, 0].set(0).at[3, 1].set(0)
    spoiled = jnp.where(mask[..., None] == 0, jnp.nan, ys)
    this = learner(name)
    given = {"loss_fn": loss, "mask": mask}
    clean, state, _ = this.etrace_grad(params, this.init(params, carry), xs, ys, **given)
    gradients, after, info = this.etrace_grad(
        params, this.init(params, carry), xs, spoiled, **given
    )
    assert np.isnan(info.losses[1, 0]) and np.isnan(info.losses[3, 1])
    assert_same(gradients, clean)
    assert_same(after, state)


def test_a_nan_derivative_of_a_masked_loss_does_not_poison():
    """The loss is finite where it is masked out, and its derivative is not: sqrt at 0."""
    name = "alif"
    params, carry, xs, ys = data(name)
    root = lambda out, y: jnp.sqrt(jnp.sum(jnp.square(out - y), -1))
    this = learner(name)
    outs = this.etrace_evolve(params, this.init(params, carry), xs)[1]
    mask = jnp.ones((T, 2)).at[2, 1].set(0)
    touching = jnp.where(mask[..., None] == 0, outs, ys)
    clean = this.etrace_grad(params, this.init(params, carry), xs, ys, loss_fn=root, mask=mask)[0]
    gradients = this.etrace_grad(
        params, this.init(params, carry), xs, touching, loss_fn=root, mask=mask
    )[0]
    assert_same(gradients, clean)
