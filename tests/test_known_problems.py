"""Each known problem is still one, and what is said to be right in spite of it is."""

import re
import subprocess
import sys
import warnings
from pathlib import Path

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import braintrace
from zoo._interpret import run_once

PAGE = (Path(__file__).parents[1] / "docs" / "known_problems.md").read_text()
PROBLEMS = re.findall(r"^\*\*(.*?)\.?\*\*", PAGE, re.MULTILINE)
TESTS = {}
OF_JAX_0_10 = jax.__version_info__[:2] == (0, 10)


def problem(title):
    def register(test):
        TESTS[title] = test
        return test

    return register


def test_every_problem_has_a_test():
    assert set(PROBLEMS) == set(TESTS) and len(PROBLEMS) == len(set(PROBLEMS))


@pytest.mark.parametrize("title", PROBLEMS)
def test_problem(title):
    TESTS[title]()


def normal(*shape):
    return jnp.asarray(0.6 * np.random.default_rng(shape).standard_normal(shape))


@problem("A wrong value from JAX 0.10.2's CPU compiler")
def compiled_rightly():
    """The gradient as JAX compiles it by default, beside its program run on NumPy."""
    n, samples, steps = 5, 4, 4

    def lstm(p, carry, x):
        h, c = carry
        product = jnp.concatenate([x, h], -1) @ p["W"] + p["b"]
        i, g, f, o = jnp.split(product, 4, axis=-1)
        c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h @ p["o"]

    params = {"W": normal(3 + n, 4 * n), "b": normal(4 * n), "o": normal(n, 2)}
    carry, xs, ys = (
        (jnp.zeros((samples, n)),) * 2,
        normal(steps, samples, 3),
        normal(steps, samples, 2),
    )
    learner = braintrace.compile(lstm, "d_rtrl", xs[0], params=params, carry=carry)
    loss = lambda out, y: jnp.sum((out - y) ** 2)
    run = lambda p: learner.etrace_grad(p, learner.init(p, carry), xs, ys, loss_fn=loss, window=3)[
        0
    ]
    lowered = jax.jit(run).lower(params)
    default = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
    if OF_JAX_0_10:  # later versions have no other way
        default["xla_cpu_use_fusion_emitters"] = True
    found, right = lowered.compile(compiler_options=default)(params), run_once(run, params)
    for name in params:
        np.testing.assert_allclose(found[name], right[name], rtol=1e-10, atol=1e-12)


@problem("Importing brainstate turns JAX's 64-bit mode off")
def precision_after_an_import():
    code = """
import jax
jax.config.update("jax_enable_x64", True)
import brainstate, braintrace
print(jax.config.jax_enable_x64)
jax.config.update("jax_enable_x64", True)
braintrace.D_RTRL
print(jax.config.jax_enable_x64)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    turns_it_off = brainstate.__version_info__ < (0, 6)
    assert done.stdout.split() == [str(not turns_it_off), "True"]


@problem("JAX 0.10's gradient of a transposed CSR or COO product is wrong")
def transposed_sparse_products():
    sparse = pytest.importorskip("brainunit").sparse
    dense = jnp.array([[0.0, 1, 0, 2], [3, 0, 0, 0], [0, 4, 0, 5]])
    step = 1e-6 * jnp.eye(5)

    def is_wrong(kind, transposed):
        matrix, x = getattr(sparse, kind).fromdense(dense), normal(3 if transposed else 4)

        def total(data):
            m = matrix.with_data(data)
            return jnp.sum(jnp.sin(x @ m if transposed else m @ x))

        run = jax.jit(total)
        numbers = jnp.stack([(run(matrix.data + d) - run(matrix.data - d)) / 2e-6 for d in step])
        return not np.allclose(jax.grad(total)(matrix.data), numbers, atol=1e-6)

    every = [(kind, transposed) for kind in ("CSR", "COO", "CSC") for transposed in (True, False)]
    old = {("CSR", True), ("COO", True), ("CSC", False)} if OF_JAX_0_10 else set()
    assert {case for case in every if is_wrong(*case)} == old

    matrix, (rows, columns) = sparse.CSR.fromdense(dense), np.nonzero(np.asarray(dense))
    cell = lambda w, h, x: ((h := 0.5 * h + x @ w(), jnp.tanh(h)))
    stored = lambda data, h, x: cell(lambda: matrix.with_data(data), h, x)
    filled = lambda data, h, x: cell(
        lambda: jnp.zeros(dense.shape).at[rows, columns].set(data), h, x
    )
    xs, h, data = normal(3, 3), jnp.zeros(4), matrix.data
    learner = braintrace.compile(stored, "d_rtrl", xs[0], params=data, carry=h)
    found, *_ = learner.etrace_grad(
        data, learner.init(data, h), xs, loss_fn=jnp.sum, reduction="sum", window=1
    )
    bptt = lambda step: jax.grad(
        lambda data: jnp.sum(jax.lax.scan(lambda h, x: step(data, h, x), h, xs)[1])
    )(data)
    np.testing.assert_allclose(found, bptt(filled), rtol=1e-10)
    assert np.allclose(found, bptt(stored), rtol=1e-3) != OF_JAX_0_10  # what the page says of BPTT


def leaky_learner():
    cell = lambda p, h, x: ((h := 0.5 * h + x @ p["w"]), h @ p["o"])
    params, h, xs = {"w": normal(3, 4), "o": normal(4, 2)}, jnp.zeros((2, 4)), normal(5, 2, 3)
    learner = braintrace.compile(cell, "d_rtrl", xs[0], params=params, carry=h)
    return learner, params, learner.init(params, h), xs


@problem("A loss function made anew for each call compiles again")
def a_new_loss_at_each_call():
    learner, params, state, xs = leaky_learner()
    traced = []

    def run(loss):
        learner.etrace_grad(params, state, xs, loss_fn=loss, window=1)
        return len(traced)

    def new():
        return lambda out: (traced.append(out), jnp.sum(out**2))[1]

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kept = new()
        once, again = run(kept), run(kept)
        counts = [run(new()) for _ in range(10)]
    assert once == again < counts[0] < counts[1] < counts[-1]
    [warning] = [w for w in caught if "new function at each call" in str(w.message)]
    assert "test_known_problems.py" in str(warning.message)


@problem("Strict settings of JAX and other libraries")
def strict_settings():
    from brainstate import nn

    learner, params, state, xs = leaky_learner()
    loss = lambda out: jnp.sum(out**2, -1)
    optimizer = optax.sgd(0.1)
    fit = lambda p, kept, s: learner.etrace_fit(p, kept, s, xs, loss_fn=loss, optimizer=optimizer)
    given, compiled = (params, optimizer.init(params), state), jax.jit(fit)
    compiled(*given)
    with jax.transfer_guard("disallow"), jax.numpy_rank_promotion("raise"):
        learner.etrace_grad(params, state, xs, loss_fn=loss)
        compiled(*given)
        with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
            fit(*given)
    for layer in (nn.Linear, nn.GRUCell):
        with jax.numpy_rank_promotion("raise"), pytest.raises(ValueError, match="rank_promotion"):
            model = layer(3, 4)
            nn.init_all_states(model, batch_size=2)
            model(jnp.ones((2, 3)))
