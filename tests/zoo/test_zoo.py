"""The oracles have the cells' values, and their gradients are what the certificates say."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from . import APPROXIMATE, CASES, EXACT, FEATURES, INSTANTANEOUS, tolerance, total_loss

T, B = 5, 2
#: A gradient that is not exact differs from BPTT by more than this.
CONTROL = 1e-6
#: These programs are compiled once and run once.
QUICK = {"xla_backend_optimization_level": 0}


def inexact(tree):
    return [v for v in jax.tree.leaves(tree) if jnp.issubdtype(v.dtype, jnp.inexact)]


def immediate_influence(cell, params, carry, xs):
    """Gradient of a linear read of each new carry with respect to the params of the same step."""

    def read(params, carry, x):
        new, _ = cell(params, lax.stop_gradient(carry), x)
        flat = jnp.concatenate([jnp.ravel(v.real + 2 * v.imag) for v in inexact(new)])
        return new, flat @ jnp.cos(jnp.arange(flat.size))

    return jax.grad(lambda p: jnp.sum(lax.scan(lambda c, x: read(p, c, x), carry, xs)[1]))(params)


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES.keys())
def measured(request):
    """The case, its data, and what its cell and its oracle make of them."""
    case = request.param
    data = case.make(jax.random.key(7), T, B)

    @partial(jax.jit, compiler_options=QUICK)
    def measure(params, carry, xs, ys):
        def of(cell):
            gradient, (last, outs) = jax.grad(
                lambda p: total_loss(cell, p, carry, xs, ys), has_aux=True
            )(params)
            return last, outs, gradient, immediate_influence(cell, params, carry, xs)

        last_lane = jax.tree.map(lambda leaf: leaf[-1:], carry)
        return of(case.cell), of(case.oracle), case.cell(params, last_lane, xs[0, -1:])[1]

    cell, oracle, single = measure(*data)
    names = ("last", "outs", "gradient", "influence")
    cell, oracle = (SimpleNamespace(**dict(zip(names, of, strict=True))) for of in (cell, oracle))
    return SimpleNamespace(case=case, data=data, cell=cell, oracle=oracle, single=single)


def distance(a, b):
    """Relative distance of two arrays."""
    a, b = np.asarray(a), np.asarray(b)
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def test_values_are_the_cells(measured):
    cell, oracle = ((of.last, of.outs) for of in (measured.cell, measured.oracle))
    assert jax.tree.structure(cell) == jax.tree.structure(oracle)
    for a, b in zip(inexact(oracle), inexact(cell), strict=True):
        assert a.dtype == b.dtype
        assert distance(a, b) < 1e-13


def test_gradients_are_what_the_certificate_says(measured):
    case, cell, oracle = measured.case, measured.cell.gradient, measured.oracle.gradient
    assert set(case.certificate) == set(cell)
    for name, kind in case.certificate.items():
        assert np.linalg.norm(oracle[name]) > CONTROL, f"{name} has a dead gradient"
        off = distance(oracle[name], cell[name])
        if kind == EXACT:
            assert off < tolerance(case), f"{name} is not exact: {off:.1e}"
        else:
            assert off > CONTROL, f"{name} is exact: {off:.1e}"


def test_instantaneous_parameters_are_those_without_a_site(measured):
    for name, kind in measured.case.certificate.items():
        in_cell, in_carry_lane = (
            np.any(np.asarray(of.influence[name]) != 0) for of in (measured.cell, measured.oracle)
        )
        expected = {
            INSTANTANEOUS: (True, False),
            APPROXIMATE: (True, True),
            EXACT: (in_cell, in_cell),
        }
        assert (in_cell, in_carry_lane) == expected[kind], name


def test_outputs_are_alive(measured):
    steps = np.any(np.asarray(measured.oracle.outs) != 0, axis=-1)
    assert np.all(np.any(steps, axis=0)), "a lane never spikes"


def test_lanes_are_independent(measured):
    np.testing.assert_allclose(measured.single, measured.cell.outs[0, -1:], rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_shapes_dtypes_and_features(case):
    params, carry, xs, ys = case.make(jax.random.key(0), 3, 4)
    new, out = jax.eval_shape(case.cell, params, carry, xs[0])
    for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(carry), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
    assert all(leaf.shape[0] == 4 for leaf in jax.tree.leaves((carry, out)))
    assert xs.shape[:2] == ys.shape[:2] == (3, 4)
    assert out.shape == ys[0].shape
    assert case.features <= FEATURES.keys()
