"""What runs once on NumPy is what JAX computes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from . import CASES, bptt, loss, run_once
from ._algorithms import by_sequence
from .algorithms import ALGORITHMS
from .test_matrix import example

#: Loops, branches, convolutions, gathers, keys, complex numbers, solves and transforms.
PROGRAMS = [
    "conv2d_recurrent",
    "cond",
    "switch",
    "embedding",
    "noise",
    "lru",
    "substeps",
    "cumulative_sum",
    "whitened_input",
    "fourier_drive",
    "layer_norm",
    "shift_register",
    "cast_weights",
]


def assert_close(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert np.asarray(x).dtype == y.dtype
        np.testing.assert_allclose(x, y, rtol=1e-6 if y.dtype == np.float32 else 1e-11, atol=1e-13)


@pytest.mark.parametrize("name", PROGRAMS)
def test_bptt(name):
    function = functools.partial(bptt, CASES[name])
    given = example(name, "d_rtrl")[:4]
    assert_close(run_once(function, *given), jax.jit(function)(*given))


@pytest.mark.parametrize("algorithm", ["d_rtrl", "pp_prop"])
def test_a_sequence(algorithm):
    given = example("alif", algorithm)
    learner = ALGORITHMS[algorithm].learner(CASES["alif"], *given[:2], given[2][0])
    gradient = functools.partial(sequence, learner)
    assert_close(by_sequence(learner, given, 3)(*given), jax.jit(gradient)(*given[:4]))


def sequence(learner, params, carry, xs, ys):
    state = learner.init(params, carry)
    return learner.etrace_grad(params, state, xs, ys, loss_fn=loss, reduction="sum", window=3)[0]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: jax.lax.while_loop(lambda c: c[0] < 5, lambda c: (c[0] + 1, c[1] * x), (0, x)),
        lambda x: jax.lax.scan(lambda c, v: (c * v, c + v), x[0], x, reverse=True),
        lambda x: jnp.pad(x, (2, 1), mode="constant", constant_values=3.0),
        lambda x: (x > 0, x.astype(int) // 2, jnp.sort(x), jnp.argmax(x), x**3, x**-2),
        lambda x: jax.lax.dynamic_slice(x, (jnp.array(2),), (3,)),
        lambda x: jax.lax.dynamic_update_slice(x, x[:2] * 0, (jnp.array(9),)),
        lambda x: (x + 1j).astype(complex).real.astype(jnp.float32),
        lambda x: (x > 0) & ~(x < 1) | (x == 0),
        lambda x: (jax.lax.reduce_precision(x, 5, 10), jax.lax.reduce_precision(x, 11, 52)),
        lambda x: (jnp.split(x, [1, 3]), jnp.unstack(x), jnp.stack([x, x], 1)),
    ],
)
def test_pieces(function):
    x = jnp.asarray(np.random.default_rng(0).normal(size=4))
    assert_close(run_once(function, x), function(x))


#: Some outside of an axis of five.
WHERE = jnp.array([[0, 4], [7, 2], [-9, 2]])


@pytest.mark.parametrize("mode", ["clip", "fill", "promise_in_bounds"])
@pytest.mark.parametrize(
    "function",
    [
        lambda x, k, mode: x.at[k].get(mode=mode),
        lambda x, k, mode: x.at[:, k[0]].get(mode=mode),
        lambda x, k, mode: x.at[k, k].get(mode=mode),
        lambda x, k, mode: x.astype(int).at[k].get(mode=mode),
        lambda x, k, mode: x[0, 0].at[k[0, 0]].get(mode=mode),
        lambda x, k, mode: x.at[k[0]].set(x[:2], mode=mode),
        lambda x, k, mode: x.at[:, k, 1].add(2.5, mode=mode),
        lambda x, k, mode: jax.vmap(lambda x, k: x.at[k].get(mode=mode))(x[:3], k),
        lambda x, k, mode: jax.vmap(lambda x, k: x.at[k].add(x[0], mode=mode))(x[:3], k),
        lambda x, k, mode: jax.grad(lambda x: (x.at[k].get(mode=mode) ** 2).sum())(x),
    ],
)
def test_places(function, mode):
    where = WHERE % 5 if mode == "promise_in_bounds" else WHERE
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 5, 3)))
    function = functools.partial(function, mode=mode)
    assert_close(run_once(function, x, where), jax.jit(function)(x, where))


@pytest.mark.parametrize(
    "options",
    [
        {"padding": "SAME", "window_strides": (1, 1)},
        {"padding": ((2, -1), (0, 3)), "window_strides": (2, 1), "rhs_dilation": (1, 2)},
        {"padding": ((1, 1), (0, 2)), "window_strides": (1, 2), "lhs_dilation": (2, 3)},
        {"padding": "SAME", "window_strides": (1, 1), "feature_group_count": 2},
    ],
)
def test_convolutions(options):
    random = np.random.default_rng(0)
    layout = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    x, kernel = random.normal(size=(2, 6, 5, 4)), random.normal(size=(2, 3, 4, 6))
    kernel = kernel[:, :, : 4 // options.get("feature_group_count", 1)]

    def function(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, **options, **layout)

    def of_each(x, kernel):  # in groups of samples and of features
        loss = lambda x, kernel: (function(x[None], kernel) ** 2).sum()
        return jax.vmap(jax.grad(loss, (0, 1)), (0, None))(x, kernel)

    every = lambda *given: (function(*given), of_each(*given))
    assert_close(run_once(every, x, kernel), jax.jit(every)(x, kernel))
