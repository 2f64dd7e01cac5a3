"""The oracles have the cells' values, and their gradients are what the certificates say."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from . import APPROXIMATE, CASES, EXACT, FEATURES, INSTANTANEOUS, tolerance, total_loss
from ._interpret import run_once

T = 5
#: A gradient that is not exact differs from BPTT by more than this.
CONTROL = 1e-6


def inexact(tree):
    return [v for v in jax.tree.leaves(tree) if jnp.issubdtype(v.dtype, jnp.inexact)]


def immediate_influence(cell, params, carry, xs):
    """Gradient of a linear read of each new carry with respect to the params of the same step."""

    def read(params, carry, x):
        new, _ = cell(params, lax.stop_gradient(carry), x)
        flat = jnp.concatenate([jnp.ravel(v.real + 2 * v.imag) for v in inexact(new)])
        return new, flat @ jnp.cos(jnp.arange(flat.size))

    return jax.grad(lambda p: jnp.sum(lax.scan(lambda c, x: read(p, c, x), carry, xs)[1]))(params)


def measure(case):
    """What the case's cell and its oracle make of its data: two records."""

    def of(cell):
        def both(params, carry, xs, ys):
            gradient, (last, outs) = jax.grad(
                lambda p: total_loss(cell, p, carry, xs, ys), has_aux=True
            )(params)
            return last, outs, gradient, immediate_influence(cell, params, carry, xs)

        names = ("last", "outs", "gradient", "influence")
        return SimpleNamespace(**dict(zip(names, run_once(both, *data), strict=True)))

    data = case.make(jax.random.key(7), T, case.B)
    return data, of(case.cell), of(case.oracle)


def distance(a, b):
    """Relative distance of two arrays."""
    a, b = np.asarray(a), np.asarray(b)
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def check_values_are_the_cells(cell, oracle):
    assert jax.tree.structure(cell.last) == jax.tree.structure(oracle.last)
    for a, b in zip(
        inexact((oracle.last, oracle.outs)), inexact((cell.last, cell.outs)), strict=True
    ):
        assert a.dtype == b.dtype
        assert distance(a, b) < 1e-13


def check_gradients_are_what_the_certificate_says(case, cell, oracle):
    assert set(case.certificate) == set(cell.gradient)
    for name, kind in case.certificate.items():
        assert np.linalg.norm(oracle.gradient[name]) > CONTROL, f"{name} has a dead gradient"
        off = distance(oracle.gradient[name], cell.gradient[name])
        if kind == EXACT:
            assert off < tolerance(case), f"{name} is not exact: {off:.1e}"
        else:
            assert off > CONTROL, f"{name} is exact: {off:.1e}"


def check_instantaneous_parameters_are_those_without_a_site(case, cell, oracle):
    for name, kind in case.certificate.items():
        in_cell, in_carry_evaluation = (
            np.any(np.asarray(of.influence[name]) != 0) for of in (cell, oracle)
        )
        expected = {
            INSTANTANEOUS: (True, False),
            APPROXIMATE: (True, True),
            EXACT: (in_cell, in_cell),
        }
        assert (in_cell, in_carry_evaluation) == expected[kind], name


def check_outputs_are_alive(oracle):
    steps = np.any(np.asarray(oracle.outs) != 0, axis=-1)
    assert np.all(np.any(steps, axis=0)), "a sample never spikes"


def last_sample(case, tree, axes):
    """The last sample of a tree; `axes` is a number, or a tree of numbers and None."""

    def cut(axis, part):
        whole = axis is None
        keep = lambda v: (
            v if whole else lax.slice_in_dim(v, v.shape[axis] - 1, v.shape[axis], axis=axis)
        )
        return jax.tree.map(keep, part)

    return jax.tree.map(cut, axes, tree, is_leaf=lambda v: v is None)


def check_samples_are_independent(case, data, cell):
    """The last sample alone gives the same output."""
    params, carry, xs, _ = data
    of_carry, of_x = case.axes if isinstance(case.axes, tuple) else (case.axes, case.axes)
    if "per-sample" in case.features:
        params = params | {"U": params["U"][-1:]}
    single = lambda p, c, x: case.cell(p, c, x)[1]
    alone = run_once(
        single, params, last_sample(case, carry, of_carry), last_sample(case, xs[0], of_x)
    )
    np.testing.assert_allclose(alone, cell.outs[0, -1:], rtol=0, atol=1e-12)


def check_shapes_dtypes_and_features(case, data):
    params, carry, xs, ys = data
    new, out = jax.eval_shape(case.cell, params, carry, xs[0])
    for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(carry), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
    assert out.shape == ys[0].shape
    assert xs.shape[0] == ys.shape[0] == T
    assert case.features <= FEATURES.keys()


def check_twin(case, data, cell):
    """The twin has the values of the cell, and its gradient."""

    def gradient(params, carry, xs, ys):
        return jax.grad(lambda p: total_loss(case.twin, p, carry, xs, ys)[0])(params)

    twin = run_once(gradient, *data)
    for name, value in cell.gradient.items():
        assert distance(twin[name], value) < tolerance(case), name


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_case(case):
    """One test a case, so that its programs are traced once."""
    data, cell, oracle = measure(case)
    check_shapes_dtypes_and_features(case, data)
    check_values_are_the_cells(cell, oracle)
    check_gradients_are_what_the_certificate_says(case, cell, oracle)
    check_instantaneous_parameters_are_those_without_a_site(case, cell, oracle)
    check_outputs_are_alive(oracle)
    if case.twin is not None:
        check_twin(case, data, cell)
    if case.apart:
        check_samples_are_independent(case, data, cell)
