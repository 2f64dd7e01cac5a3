"""The operators against NumPy, with transforms, biases and units; and as weights of a learner."""

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import sparse

import braintrace
from braintrace.checks import bptt_gradient

RANDOM = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(RANDOM.standard_normal(shape))


X, W, BIAS = normal(5, 3), normal(3, 4), normal(4)
MATRIX = sparse.BCOO.fromdense(jnp.where(jnp.arange(12).reshape(3, 4) % 3 == 0, 1.0, 0.0))
STORED = normal(MATRIX.nse)
DENSE = sparse.BCOO((STORED**2, MATRIX.indices), shape=MATRIX.shape).todense()
KERNEL = normal(3, 3, 2)  # width, channel of x, channel of y
LAYOUT = ("NWC", "WIO", "NWC")
square = jnp.square


def conv(kernel, bias=None, x=None, **options):
    x = normal_x if x is None else x
    return braintrace.conv(x, kernel, bias, dimension_numbers=LAYOUT, **options)


normal_x = normal(2, 6, 3)

#: name -> (what the operator gives, what it must be)
VALUES = {
    "matmul": lambda: (braintrace.matmul(X, W), X @ W),
    "matmul, one sample": (lambda: (braintrace.matmul(X[0], W, BIAS), X[0] @ W + BIAS)),
    "matmul, transforms": lambda: (
        braintrace.matmul(X, W, BIAS, weight_fn=square, bias_fn=jnp.exp),
        X @ W**2 + jnp.exp(BIAS),
    ),
    "matmul, two batch axes": lambda: (braintrace.matmul(X[None], W), (X @ W)[None]),
    "grouped_matmul": lambda: (
        braintrace.grouped_matmul(
            normal_x[:, :3, :1], W[:, None], W, weight_fn=square, bias_fn=jnp.exp
        ),
        normal_x[:, :3, :1] * W**2 + jnp.exp(W),
    ),
    "einsum": lambda: (braintrace.einsum("bi,io->bo", X, W, weight_fn=square), X @ W**2),
    "embedding": lambda: (
        braintrace.embedding(jnp.array([[2, 0]]), W, weight_fn=square),
        (W**2)[jnp.array([[2, 0]])],
    ),
    "embedding, one index": lambda: (braintrace.embedding(1, W), W[1]),
    "element_wise": lambda: (braintrace.element_wise(W, weight_fn=jnp.tanh), jnp.tanh(W)),
    "element_wise, as it is": lambda: (braintrace.element_wise(W), W),
    "conv": lambda: (
        conv(KERNEL, BIAS[:2], kernel_fn=square, bias_fn=jnp.exp),
        jax.lax.conv_general_dilated(normal_x, KERNEL**2, (1,), "SAME", dimension_numbers=LAYOUT)
        + jnp.exp(BIAS[:2]),
    ),
    "conv, channels first, one stride for two axes": lambda: (
        braintrace.conv(
            jnp.ones((1, 1, 4, 4)),
            jnp.ones((1, 1, 2, 2)),
            jnp.ones(1),
            strides=(2,),
            padding="VALID",
        ),
        jnp.full((1, 1, 2, 2), 5.0),
    ),
    "sparse_matmul": lambda: (
        braintrace.sparse_matmul(
            X, STORED, sparse_mat=MATRIX, bias=BIAS, weight_fn=square, bias_fn=jnp.exp
        ),
        X @ DENSE + jnp.exp(BIAS),
    ),
    "lora_matmul": lambda: (
        braintrace.lora_matmul(
            X, W, W.T, alpha=0.5, bias=X[0], b_fn=square, a_fn=jnp.abs, bias_fn=jnp.exp
        ),
        0.5 * X @ W**2 @ jnp.abs(W.T) + jnp.exp(X[0]),
    ),
}


@pytest.mark.parametrize("name", VALUES)
def test_values(name):
    got, wanted = VALUES[name]()
    np.testing.assert_allclose(got, wanted, rtol=1e-12)


WITH_UNITS = {
    "matmul": lambda: braintrace.matmul(
        X * u.mV, W * u.siemens, BIAS * (u.mV * u.siemens), weight_fn=square
    ),
    "grouped_matmul": lambda: braintrace.grouped_matmul(
        X[:, :, None] * u.mV, W[:, None] * u.siemens
    ),
    "einsum": lambda: braintrace.einsum("bi,io->bo", X * u.mV, W * u.siemens),
    "conv": lambda: conv(KERNEL * u.siemens, BIAS[:2] * (u.mV * u.siemens), normal_x * u.mV),
    "sparse_matmul": lambda: (
        braintrace.sparse_matmul(X, STORED * u.siemens, sparse_mat=MATRIX) * u.mV
    ),
    "lora_matmul": lambda: braintrace.lora_matmul(X * u.mV, W * u.siemens, W.T),
    "embedding": lambda: braintrace.embedding(jnp.array([0]), W * (u.mV * u.siemens)),
    "element_wise": lambda: braintrace.element_wise(W * (u.mV * u.siemens), weight_fn=square),
}


@pytest.mark.parametrize("name", WITH_UNITS)
def test_units_multiply(name):
    assert u.get_unit(WITH_UNITS[name]()) == u.mV * u.siemens


def test_a_bias_of_another_unit_is_refused():
    with pytest.raises(Exception, match=r"(?i)unit"):
        braintrace.matmul(X * u.mV, W, BIAS * u.siemens)


WRONG = {
    "matmul": (lambda: braintrace.matmul(X, W.T), r"x \(5, 3\), weight \(4, 3\)"),
    "grouped_matmul": (lambda: braintrace.grouped_matmul(X, W), "weight"),
    "einsum": (lambda: braintrace.einsum("bi,io,o->bo", X, W), "one weight"),
    "embedding": (lambda: braintrace.embedding(jnp.array([0]), BIAS), "rows"),
    "conv": (lambda: braintrace.conv(X, KERNEL), "batch"),
    "sparse_matmul": (
        lambda: braintrace.sparse_matmul(X.T, STORED, sparse_mat=MATRIX),
        "sparse_mat",
    ),
    "lora_matmul": (lambda: braintrace.lora_matmul(X, W, W), r"A \(3, 4\)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_shapes_that_do_not_fit(name):
    wrong, message = WRONG[name]
    with pytest.raises(braintrace.UsageError, match=message):
        wrong()


def test_types_that_do_not_fit():
    with pytest.raises(braintrace.UsageError, match="integers"):
        braintrace.embedding(jnp.array([0.5]), W)
    for value in (W, object()):
        with pytest.raises(braintrace.UsageError, match="Not a sparse matrix"):
            braintrace.sparse_matmul(X, W, sparse_mat=value)


#: name -> (shape of the weight, operator as the drive of a leaky layer of four neurons, from (B,
#: 3))
DRIVES = {
    "matmul": ((3, 4), lambda w, x: braintrace.matmul(x, w, weight_fn=square)),
    "grouped_matmul": (
        (1, 3, 4),
        lambda w, x: braintrace.grouped_matmul(x[:, None], w, weight_fn=jnp.tanh)[:, 0],
    ),
    "einsum": ((3, 2, 2), lambda w, x: braintrace.einsum("bi,ipq->bpq", x, w).reshape(-1, 4)),
    "embedding": (
        (5, 4),
        lambda w, x: braintrace.embedding((x[:, 0] > 0).astype(int), w, weight_fn=square),
    ),
    "element_wise": (
        (4,),
        lambda w, x: braintrace.element_wise(w, weight_fn=jnp.exp) * x.sum(-1, keepdims=True),
    ),
    "conv": (
        (2, 1, 2),
        lambda w, x: conv(w, None, x[:, :, None], padding="VALID", kernel_fn=square).reshape(-1, 4),
    ),
    "sparse_matmul": (
        (MATRIX.nse,),
        lambda w, x: braintrace.sparse_matmul(x, w, sparse_mat=MATRIX, weight_fn=square),
    ),
}


@pytest.mark.parametrize("name", DRIVES)
def test_gradients_in_a_layer_without_mixing_are_those_of_bptt(name):
    shape, drive = DRIVES[name]

    def cell(params, h, x):
        h = 0.8 * h + jnp.tanh(drive(params["w"], x))
        return h, h

    params, h, xs, ys = {"w": normal(*shape)}, normal(2, 4), normal(6, 2, 3), normal(6, 2, 4)
    learner = braintrace.compile(cell, "d_rtrl", xs[0], params=params, carry=h)
    options = {"loss_fn": lambda out, y: jnp.sum((out - y) ** 2), "reduction": "sum"}
    right = bptt_gradient(cell, params, h, xs, ys, **options)[0]["w"]
    for window in (1, 3):
        got = learner.etrace_grad(
            params, learner.init(params, h), xs, ys, window=window, return_state=False, **options
        )[0]["w"]
        np.testing.assert_allclose(got, right, rtol=1e-10, atol=1e-12)
    assert "exact" in str(learner.report)
    instant = bptt_gradient(
        lambda p, h, x: cell(p, jax.lax.stop_gradient(h), x), params, h, xs, ys, **options
    )[0]["w"]
    assert float(jnp.abs(instant - right).max()) > 1e-3  # control: the trace matters
