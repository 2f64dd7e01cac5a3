"""The compiled trace kernel against the same function in JAX, and what happens where it cannot be
built.
"""

import dataclasses
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from braintrace.core.kernels import Operands, _build, _traces, advance_and_contract

# slots, samples, outputs, inputs, steps: below, at and above the kernel's tiles, with remainders;
# more chunks than one
SIZES = [
    (1, 1, 1, 1, 1),
    (1, 3, 7, 5, 1),
    (2, 2, 13, 97, 3),
    (3, 4, 130, 200, 5),
    (4, 2, 6, 64, 2),
    (1, 2, 700, 192, 1),
]

built = pytest.mark.skipif(_build.compiled() is None, reason="no C compiler here")


def operands(slots, samples, outputs, inputs, steps, dtype, across=False, moves=True):
    random = np.random.default_rng(slots + outputs)
    draw = lambda *shape: jnp.asarray(random.normal(size=shape), dtype)
    matrix = (inputs, outputs) if across else (outputs, inputs)
    some = lambda there: draw(samples, outputs) if there else None
    return Operands(
        gradient=draw(*matrix),
        x=draw(samples, steps, inputs),
        now=draw(samples, outputs) if steps == 1 else None,
        signal=tuple(draw(samples, outputs) for _ in range(slots)),
        old=tuple(draw(samples, *matrix) for _ in range(slots)),
        rows=tuple(tuple(some(q <= s) for q in range(slots)) for s in range(slots))
        if moves
        else (),
        drive=tuple(None if s == 2 else draw(samples, steps, outputs) for s in range(slots))
        if moves
        else (),
    )


def by_hand(across, of):
    """The definition, in numpy."""
    old = np.stack(of.old)
    old = np.swapaxes(old, 2, 3) if across else old
    gradient = np.einsum("sbo,sboi->oi", np.stack(of.signal), old)
    if of.now is not None:
        gradient += np.einsum("bo,bi->oi", of.now, of.x[:, 0])
    new = [
        sum(
            (row[..., None] * old[q] for q, row in enumerate(reached) if row is not None),
            np.zeros(old[0].shape),
        )
        + (0 if drive is None else np.einsum("bko,bki->boi", drive, of.x))
        for reached, drive in zip(of.rows, of.drive, strict=True)
    ]
    turned = lambda v: np.swapaxes(v, -1, -2) if across else v
    return of.gradient + turned(gradient), [turned(v) for v in new]


def distance(got, wanted):
    pairs = zip((got[0], *got[1]), (wanted[0], *wanted[1]), strict=True)
    return max(float(np.abs(np.asarray(a) - b).max()) for a, b in pairs)


layouts = pytest.mark.parametrize("across", [False, True])


@built
@layouts
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", SIZES)
def test_kernel_is_its_definition(size, dtype, across):
    of = operands(*size, dtype, across)
    wanted = by_hand(across, of)
    tolerance = 1e-4 if dtype == np.float32 else 1e-12
    assert distance(jax.jit(advance_and_contract, static_argnums=0)(across, of), wanted) < tolerance
    still = operands(*size, dtype, across, moves=False)
    assert distance(advance_and_contract(across, still), by_hand(across, still)) < tolerance
    without_data = dataclasses.replace(still, x=still.x[:, :0], now=None)
    assert (
        distance(advance_and_contract(across, without_data), by_hand(across, without_data))
        < tolerance
    )
    alone = dataclasses.replace(of, rows=tuple((None,) * size[0] for _ in range(size[0])))
    assert distance(by_hand(across, alone), wanted) > 1e-3  # control: nothing is carried over


@layouts
@pytest.mark.parametrize("size", SIZES[:4])
def test_jax_form_is_the_same(size, across):
    of = operands(*size, np.float64, across)
    assert distance(_traces.in_jax(across, of), by_hand(across, of)) < 1e-12
    assert (
        distance(_traces.in_jax(across, of, _traces._sample_by_sample), by_hand(across, of)) < 1e-12
    )


@built
def test_the_kernel_is_what_runs_here():
    program = (
        jax.jit(advance_and_contract, static_argnums=0)
        .lower(False, operands(*SIZES[1], np.float32))
        .as_text()
    )
    assert "braintrace_traces" in program


@layouts
def test_it_maps_and_differentiates(across):
    of = operands(*SIZES[1], np.float64, across)
    mapped = jax.vmap(lambda v: advance_and_contract(across, v))(
        jax.tree.map(lambda v: jnp.stack([v, 2 * v]), of)
    )
    for k, scale in enumerate((1, 2)):
        wanted = by_hand(across, jax.tree.map(lambda v, scale=scale: scale * v, of))
        assert distance(jax.tree.map(lambda v, k=k: v[k], mapped), wanted) < 1e-12
    total = lambda f: lambda of: sum((v**2).sum() for v in jax.tree.leaves(f(across, of)))
    got, wanted = (jax.grad(total(f))(of) for f in (advance_and_contract, _traces.in_jax))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10)


PROGRAM = """
import warnings
warnings.simplefilter("error" if {quiet} else "always")
from braintrace.core.kernels import _build
print(_build.compiled())
"""


def compiled_in(quiet, **environment):
    """What a new process says of the library, and what it warns of."""
    known = {k: v for k, v in os.environ.items() if k not in ("CC", "PATH")}
    where = {"PATH": os.environ["PATH"], **known, **environment}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(quiet=quiet)],
        capture_output=True,
        text=True,
        env=where,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


def test_it_can_be_switched_off():
    assert compiled_in(True, BRAINTRACE_KERNELS="0")[0] == "None"


def test_without_a_compiler_nothing_is_said(tmp_path):
    assert compiled_in(True, PATH=str(tmp_path))[0] == "None"


def test_a_compiler_that_fails_is_reported(tmp_path):
    fake = tmp_path / "cc"
    fake.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && exec echo fake 1.0\necho "traces.c:1: no such luck" '
        ">&2\nexit 1\n"
    )
    fake.chmod(0o755)
    said, warned = compiled_in(False, CC=str(fake), XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert said == "None"
    assert (
        "RuntimeWarning" in warned and "no such luck" in warned and "BRAINTRACE_KERNELS=0" in warned
    )
    assert not list((tmp_path / "cache").rglob("*.so"))


@built
def test_it_is_built_once(tmp_path):
    for _ in range(2):
        said, _ = compiled_in(True, XDG_CACHE_HOME=str(tmp_path))
        assert said != "None"
    assert len(list(pathlib.Path(tmp_path).rglob("*.so"))) == 1
