"""Layers and names of `braintrace.nn`."""

import importlib
import pkgutil
import subprocess
import sys

import brainevent
import brainstate
import brainunit
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import sparse

import braintrace
from braintrace import nn

X = jnp.asarray(np.random.default_rng(0).standard_normal((5, 3)))
PACKAGES = (nn, braintrace.operators)
MODULES = [m.name for p in PACKAGES for m in pkgutil.walk_packages(p.__path__, p.__name__ + ".")]
OPERATORS = (
    "matmul",
    "grouped_matmul",
    "einsum",
    "embedding",
    "element_wise",
    "conv",
    "sparse_matmul",
    "lora_matmul",
)
RUN = """
import doctest, importlib, sys
for name in sys.argv[1:]:
    print(name, *doctest.testmod(importlib.import_module(name)))
"""


def test_examples_of_docstrings():
    """In one process of their own, as a user types them: in float32."""
    command = [sys.executable, "-c", RUN, *MODULES]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    counts = {words[0]: words[1:] for words in lines if words and words[0] in MODULES}
    for module in MODULES:
        failed, attempted = map(int, counts[module])
        found = vars(importlib.import_module(module))
        names = (*nn.__all__, *OPERATORS)
        public = [n for n in names if getattr(found.get(n), "__module__", "") == module]
        assert failed == 0, done.stdout
        assert attempted >= len(public), module  # an example each, at least


@pytest.mark.parametrize("name", nn.__all__)
def test_every_layer_has_a_docstring(name):
    assert getattr(nn, name).__doc__


def test_every_name_of_brainstate_resolves():
    from braintrace.nn import LayerNorm, ReLU

    assert (LayerNorm, ReLU, nn.Linear) == (
        brainstate.nn.LayerNorm,
        brainstate.nn.ReLU,
        brainstate.nn.Linear,
    )
    assert set(nn.__all__) <= set(dir(nn)) and {"Dropout", "BatchNorm1d"} <= set(dir(nn))
    with pytest.raises(
        AttributeError, match=r"neither braintrace\.nn nor brainstate\.nn has .Nonesuch"
    ):
        nn.Nonesuch  # noqa: B018


MATRIX = np.array([[0.0, 1.0, 0.0, 2.0], [3.0, 0.0, 0.0, 0.0], [0.0, 4.0, 0.0, 0.0]])


FORMATS = {
    "brainevent.CSR": lambda: brainevent.CSR.fromdense(MATRIX),
    "brainevent.CSC": lambda: brainevent.CSC.fromdense(MATRIX),
    "BCOO": lambda: sparse.BCOO.fromdense(jnp.asarray(MATRIX)),
    "brainunit.CSR": lambda: brainunit.sparse.CSR.fromdense(jnp.asarray(MATRIX)),
    "brainunit.COO": lambda: brainunit.sparse.COO.fromdense(jnp.asarray(MATRIX)),
}


@pytest.mark.parametrize("name", FORMATS)
def test_sparse_linear(name):
    matrix = FORMATS[name]()  # here: in the precision of the test
    layer = nn.SparseLinear(matrix, b_init=jnp.arange(4.0))
    np.testing.assert_allclose(layer(X), X @ MATRIX + jnp.arange(4.0), rtol=1e-12)
    assert layer.weight.value["weight"].shape == (4,)
    assert (layer.in_size, layer.out_size) == ((3,), (4,))
    with pytest.raises(braintrace.UsageError, match="in_size"):
        nn.SparseLinear(matrix, in_size=(7,))


def test_lora():
    base = nn.Linear(3, 4)
    layer = nn.LoRA(3, 2, 4, base_module=base)
    factors = layer.weight.value
    np.testing.assert_allclose(
        layer(X), base(X) + X @ factors["lora_a"] @ factors["lora_b"] / 2, rtol=1e-12
    )


def test_grouped_linear():
    layer = nn.GroupedLinear(2, 3, 4, b_init=jnp.ones((2, 4)))
    x = jnp.stack([X, 2 * X], axis=1)
    W = layer.weight.value["weight"]
    np.testing.assert_allclose(
        layer(x), jnp.stack([X @ W[0], 2 * X @ W[1]], axis=1) + 1, rtol=1e-12
    )
    assert "bias" not in nn.GroupedLinear(2, 3, 4, b_init=None).weight.value
