"""SnAp: what its masks hold, and what they cost."""

import brainevent
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import sparse
from jax.nn import sigmoid

import braintrace
from braintrace import checks
from zoo._interpret import once

from ._rules import SUM, apart, same, windowed
from .cells import EXAMPLES, data

N, T, B = 6, 7, 2
FULL = np.ones((N, N), bool)


def drawn(*shape, seed=0):
    return jnp.asarray(0.7 * np.random.default_rng([seed, *shape]).normal(size=shape))


def ring(p, h, x):
    h = 0.5 * h + jnp.tanh(p["a"] * h + p["r"] * jnp.roll(h, 1, -1) + x @ p["W"])
    return h, h @ p["o"]


def turned(p, h, x):
    """The state itself is handed round, and the new one is put together in another order."""
    moved = jnp.roll(h[:, ::-1], 2, -1)
    h = 0.5 * h + jnp.tanh(p["a"] * h + p["r"] * moved + x @ p["W"])
    return h, h @ p["o"]


PARAMS = {"a": drawn(N), "r": drawn(N, seed=1), "W": drawn(2, N), "o": drawn(N, 2)}
GIVEN = drawn(B, N), drawn(T, B, 2), drawn(T, B, 2, seed=1)


def learner(cell, params, algorithm="snap", carry=GIVEN[0], x=GIVEN[1][0], **options):
    return braintrace.compile(cell, algorithm, x, params=params, carry=carry, **options)


def gradient(cell, params, window=1, **options):
    return windowed(learner(cell, params, **options), (params, *GIVEN), window)


def masked_by(move, params, n, samples=B):
    """SnAp-n by forward mode on the state h of a cell `move(params, h, x) -> h`, read by `o`, with
    the connections of h in the step as they are at one generic point.
    """
    theta, unravel = jax.flatten_util.ravel_pytree({k: v for k, v in params.items() if k != "o"})
    step = lambda h, theta, x: move({**unravel(theta), "o": params["o"]}, h[None], x[None])[0][0]
    both = jax.jit(lambda *at: (step(*at), *jax.jacrev(step, (0, 1))(*at)))
    point = drawn(N, seed=5), theta, drawn(2, seed=6)
    by_state, by_params = (np.asarray(v) != 0 for v in both(*point)[1:])
    mask = sum(np.linalg.matrix_power(by_state.astype(int), k) @ by_params for k in range(n)) > 0
    seen = jax.jit(jax.grad(lambda h, y: SUM["loss_fn"]((h @ params["o"])[None], y[None])[0]))
    carry, xs, ys = GIVEN
    total = jnp.zeros_like(theta)
    for b in range(samples):
        h, j = carry[b], jnp.zeros(mask.shape)
        for x, y in zip(xs[:, b], ys[:, b], strict=True):
            h, d, i = both(h, theta, x)
            j = jnp.where(mask, d @ j + i, 0)
            total += seen(h, y) @ j
    return unravel(total), int(mask.sum())


@pytest.mark.parametrize("cell", [ring, turned])
def test_each_n_is_the_masked_influence_and_the_diameter_is_bptt(cell):
    """And its traces are as many numbers as the mask."""
    exact = checks.bptt_gradient(cell, PARAMS, *GIVEN, **SUM)[0]
    far = 6 if cell is ring else 2
    for n in sorted({1, 2, 3, far}):
        this = learner(cell, PARAMS, n=n)
        got = windowed(this, (PARAMS, *GIVEN), 3)
        right, size = masked_by(cell, PARAMS, n)
        same({k: got[k] for k in right}, right)
        assert this.memory_plan(T).traces == 8 * B * size + 8 * B * N  # and the outlet
        off = apart(got, exact)
        whole = n >= far
        assert (max(off.values()) < 1e-10) == whole, (n, off)
        assert this.report.counts["exact"] == (4 if whole else 1)


def dense(p, h, x):
    h = 0.5 * h + jnp.tanh(h @ p["U"] + x @ p["W"])
    return h, h @ p["o"]


DENSE = {"U": drawn(N, N), "W": drawn(2, N), "o": drawn(N, 2)}


def test_without_weights_to_itself_the_first_is_d_rtrl():
    params = {**DENSE, "U": DENSE["U"] * (1 - np.eye(N))}
    same(gradient(dense, params, n=1), gradient(dense, params, algorithm="d_rtrl"))
    off = apart(gradient(dense, DENSE, n=1), gradient(dense, DENSE, algorithm="d_rtrl"))
    assert off["U"] > 1e-3, off  # control: with them it is not


def test_dense_weights_saturate_at_two_and_the_report_says_so():
    exact = checks.bptt_gradient(dense, DENSE, *GIVEN, **SUM)[0]
    same(gradient(dense, DENSE, n=2), exact)
    rows = {row.path[2:-2]: row.warnings for row in learner(dense, DENSE, n=2).graph.parameters}
    assert "those of 'rtrl'" in rows["U"][0] and not rows["o"]
    rows = learner(dense, DENSE, n=1).graph.parameters
    assert not any(row.warnings for row in rows)


def test_states_of_one_cell_are_one_unit():
    """SnAp-1 of an LSTM has two numbers, of c and h, for each weight of a gate."""
    example, (params, carry, xs, _) = EXAMPLES["joined_lstm"], data("joined_lstm")
    this = learner(example.cell, params, carry=carry, x=xs[0], n=1)
    units = this.graph.moves.units[: this.graph.moves.size]
    assert len(units) == 2 * len(set(units.tolist()))


WIDE = 24
DENSITIES = (0.1, 0.3)


def pattern(density):
    found = np.random.default_rng(3).random((WIDE, WIDE)) < density
    return found & ~np.eye(WIDE, dtype=bool)


def with_mask(found):
    return lambda p, h: h @ (p["U"] * found), np.array(drawn(WIDE, WIDE) * found)


def with_bcoo(found):
    at = jnp.asarray(np.stack(np.nonzero(found), -1))
    matrix = lambda p: sparse.BCOO((p["U"], at), shape=found.shape)
    return lambda p, h: h @ matrix(p), drawn(WIDE, WIDE)[np.nonzero(found)]


def with_csr(found):
    known = brainevent.CSR.fromdense(jnp.asarray(found, float))
    matrix = lambda p: brainevent.CSR((p["U"], known.indices, known.indptr), shape=found.shape)
    return lambda p, h: h @ matrix(p), drawn(WIDE, WIDE)[np.nonzero(found)]


def with_segments(found):
    """Gather, multiply, add up."""
    source, target = np.nonzero(found)

    def product(p, h):
        return jnp.zeros(h.shape).at[:, target].add(h[:, source] * p["U"])

    return product, drawn(WIDE, WIDE)[source, target]


SPARSE = {"mask": with_mask, "BCOO": with_bcoo, "CSR": with_csr, "segments": with_segments}


def pairs(found, n):
    """Elements of the mask of the stored weights i -> j: what j reaches in n - 1 steps."""
    moves = found.T | np.eye(WIDE, dtype=bool)
    reached = np.linalg.matrix_power(moves.astype(int), n - 1) > 0
    return int(reached.sum(0)[np.nonzero(found)[1]].sum())


@pytest.mark.parametrize("form", SPARSE)
def test_sparse_weights_save_memory(form):
    h0, xs = drawn(B, WIDE), drawn(3, B, 2)
    found = {}
    for density in DENSITIES:
        product, weights = SPARSE[form](pattern(density))

        def cell(p, h, x, product=product):
            h = sigmoid(p["b"]) * h + jnp.tanh(product(p, h) + x @ p["W"])
            return h, h.sum(-1, keepdims=True)

        params = {"U": jnp.asarray(weights), "W": drawn(2, WIDE), "b": drawn(WIDE)}
        for n in (1, 2):
            this = learner(cell, params, carry=h0, x=xs[0], n=n)
            [bytes_of_u] = [r.traces for r in this.memory_plan(3).parameters if "U" in r.path]
            assert bytes_of_u == 8 * B * pairs(pattern(density), n)
            found[density, n] = bytes_of_u
    assert found[0.3, 1] < WIDE * WIDE * 8 * B / 2  # a third of the dense trace
    whole = learner(cell, params, "rtrl", carry=h0, x=xs[0]).memory_plan(3).parameters
    assert 8 * found[0.1, 2] < next(r.traces for r in whole if "U" in r.path) * (
        1 if form == "mask" else 8
    )


@pytest.mark.parametrize("form", ["BCOO", "CSR", "segments"])
def test_sparse_weights_have_the_gradient_of_the_mask(form):
    mask = pattern(0.1)
    h0, xs, ys = drawn(B, WIDE), drawn(4, B, 2), drawn(4, B, 1)

    def gradient_of(form):
        product, weights = SPARSE[form](mask)

        def cell(p, h, x):
            h = 0.5 * h + jnp.tanh(product(p, h) + x @ p["W"])
            return h, h.sum(-1, keepdims=True)

        params = {"U": jnp.asarray(weights), "W": drawn(2, WIDE)}
        this = learner(cell, params, carry=h0, x=xs[0], n=2)
        return once(lambda *given: windowed(this, given, 1))(params, h0, xs, ys), params, cell

    right, params, cell = gradient_of("mask")
    right["U"] = right["U"][np.nonzero(mask)]
    got, _, _ = gradient_of(form)
    same(got, right)
    exact = checks.bptt_gradient(cell, params, h0, xs, ys, **SUM)[0]
    assert apart(right, {**exact, "U": exact["U"][np.nonzero(mask)]})["U"] > 1e-4  # control


def test_indices_that_are_no_constants_are_said():
    at = jnp.asarray(np.stack(np.nonzero(np.eye(N)), -1))

    def cell(p, h, x):
        h = 0.5 * h + jnp.tanh(h @ sparse.BCOO((p["U"], p["at"]), shape=(N, N)) + x @ p["W"])
        return h, h @ p["o"]

    params = {"U": drawn(N), "at": at, "W": drawn(2, N), "o": drawn(N, 2)}
    this = learner(cell, params, n=1)
    [row] = [row for row in this.graph.parameters if "U" in row.path]
    assert "not known" in row.warnings[0]
    got = windowed(this, (params, *GIVEN), 1)["U"]
    right = checks.bptt_gradient(cell, params, *GIVEN, **SUM)[0]["U"]
    assert jnp.linalg.norm(got - right) < 1e-10 * jnp.linalg.norm(right)


def test_random_rtrl_is_drawn_by_its_key_and_all_units_are_rtrl():
    exact = checks.bptt_gradient(dense, DENSE, *GIVEN, **SUM)[0]
    same(gradient(dense, DENSE, algorithm="random_rtrl", k=N - 1), exact)
    first, again, other = (
        gradient(dense, DENSE, algorithm="random_rtrl", k=2, mask_key=key) for key in (0, 0, 1)
    )
    same(first, again, 0)
    assert apart(first, other)["U"] > 1e-3
    assert apart(first, exact)["U"] > 1e-3
    this = learner(dense, DENSE, "random_rtrl", k=2)
    kept = this.rule.carrier.mask(this.graph.moves)
    assert (kept.sum(1) == 3).all() and kept.diagonal().all()
