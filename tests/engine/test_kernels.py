"""The compiled trace kernel against the same function in JAX, and what happens where it cannot be built."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from braintrace._kernels import _build, _traces

# slots, lanes, outputs, inputs, steps: below, at and above the kernel's tiles, with remainders; more chunks than one
SIZES = [(1, 1, 1, 1, 1), (1, 3, 7, 5, 1), (2, 2, 13, 97, 3), (3, 4, 130, 200, 5), (4, 2, 6, 64, 2), (1, 2, 700, 192, 1)]

built = pytest.mark.skipif(_build.compiled() is None, reason="no C compiler here")


def operands(slots, lanes, outputs, inputs, steps, dtype):
    random = np.random.default_rng(slots + outputs)
    draw = lambda *shape: jnp.asarray(random.normal(size=shape), dtype)  # noqa: E731
    coupling = np.tril(np.ones((slots, slots), bool))
    rows = draw(slots, slots, lanes, outputs)
    traces = tuple(draw(lanes, outputs, inputs) for _ in range(slots))
    return coupling, (rows, draw(slots, lanes, steps, outputs), draw(lanes, steps, inputs), draw(slots, lanes, outputs), traces)


def by_hand(coupling, rows, drive, x, signal, old):
    """The definition, in numpy."""
    old = np.stack(old)
    gradient = np.einsum("sbo,sboi->oi", signal, old)
    return gradient, np.einsum("sqbo,qboi->sboi", rows * coupling[..., None, None], old) + np.einsum("sbko,bki->sboi", drive, x)


def distance(got, wanted):
    return max(float(np.abs(np.asarray(a) - b).max()) for a, b in zip((got[0], *got[1]), (wanted[0], *wanted[1]), strict=True))


@built
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", SIZES)
def test_kernel_is_its_definition(size, dtype):
    coupling, values = operands(*size, dtype)
    got, wanted = (
        jax.jit(_traces.advance_and_contract, static_argnums=0)(_hashable(coupling), *values),
        by_hand(coupling, *values),
    )
    tolerance = 1e-4 if dtype == np.float32 else 1e-12
    assert distance(got, wanted) < tolerance
    np.testing.assert_allclose(_traces.contract(values[3], values[4]), wanted[0], atol=tolerance)
    assert distance(got, by_hand(np.zeros_like(coupling), *values)) > 1e-3  # control: nothing is carried over


def _hashable(coupling):
    return tuple(map(tuple, coupling.tolist()))


@pytest.mark.parametrize("size", SIZES[:4])
def test_jax_form_is_the_same(size):
    coupling, values = operands(*size, np.float64)
    assert distance(_traces._in_jax(_hashable(coupling), *values), by_hand(coupling, *values)) < 1e-12


@built
def test_the_kernel_is_what_runs_here():
    coupling, values = operands(*SIZES[1], np.float32)
    program = jax.jit(_traces.advance_and_contract, static_argnums=0).lower(_hashable(coupling), *values).as_text()
    assert "braintrace_traces" in program


def test_it_maps_and_differentiates():
    coupling, values = operands(*SIZES[1], np.float64)
    both = jax.tree.map(lambda v: jnp.stack([v, 2 * v]), values)
    mapped = jax.vmap(lambda *v: _traces.advance_and_contract(coupling, *v))(*both)
    for k, scale in enumerate((1, 2)):
        wanted = by_hand(coupling, *jax.tree.map(lambda v, scale=scale: scale * v, values))
        assert distance(jax.tree.map(lambda v, k=k: v[k], mapped), wanted) < 1e-12
    loss = lambda f: lambda signal: (f(signal) ** 2).sum()  # noqa: E731
    derivative = jax.grad(loss(lambda signal: _traces.contract(signal, values[4])))(values[3])
    wanted = jax.grad(loss(lambda signal: jnp.einsum("sbo,sboi->oi", signal, jnp.stack(values[4]))))(values[3])
    np.testing.assert_allclose(derivative, wanted, atol=1e-12)
    advanced = lambda f: lambda rows: sum((v**2).sum() for v in f(rows)[1])  # noqa: E731
    got = jax.grad(advanced(lambda rows: _traces.advance_and_contract(coupling, rows, *values[1:])))(values[0])
    wanted = jax.grad(advanced(lambda rows: _traces._in_jax(_hashable(coupling), rows, *values[1:])))(values[0])
    np.testing.assert_allclose(got, wanted, atol=1e-12)


PROGRAM = """
import warnings
warnings.simplefilter("error" if {quiet} else "always")
from braintrace._kernels import _build
print(_build.compiled())
"""


def compiled_in(quiet, **environment):
    """What a new process says of the library, and what it warns of."""
    known = {k: v for k, v in os.environ.items() if k not in ("CC", "PATH")}
    where = {"PATH": os.environ["PATH"], **known, **environment}
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(quiet=quiet)], capture_output=True, text=True, env=where)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


def test_it_can_be_switched_off():
    assert compiled_in(True, BRAINTRACE_KERNELS="0")[0] == "None"


def test_without_a_compiler_nothing_is_said(tmp_path):
    assert compiled_in(True, PATH=str(tmp_path))[0] == "None"


def test_a_compiler_that_fails_is_reported(tmp_path):
    fake = tmp_path / "cc"
    fake.write_text('#!/bin/sh\n[ "$1" = --version ] && exec echo fake 1.0\necho "traces.c:1: no such luck" >&2\nexit 1\n')
    fake.chmod(0o755)
    said, warned = compiled_in(False, CC=str(fake), XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert said == "None"
    assert "RuntimeWarning" in warned and "no such luck" in warned and "BRAINTRACE_KERNELS=0" in warned
    assert not list((tmp_path / "cache").rglob("*.so"))


@built
def test_it_is_built_once(tmp_path):
    for _ in range(2):
        said, _ = compiled_in(True, XDG_CACHE_HOME=str(tmp_path))
        assert said != "None"
    assert len(list(pathlib.Path(tmp_path).rglob("*.so"))) == 1
