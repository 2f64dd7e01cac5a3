"""The compiled trace kernel against the same function in JAX, and what happens where it cannot be
built.
"""

import dataclasses
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from braintrace.core.kernels import Operands, _traces, advance_and_contract, registered

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

built = pytest.mark.skipif(not registered(), reason="no C compiler here")


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
    return max(float(np.abs(np.asarray(a) - b).max(initial=0)) for a, b in pairs)


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


PLAN = np.array([0, 1, 0, 1, 0, 0], np.int32)  # now, and one slot that does not move
FITTING = (PLAN, (3, 2), (4, 1, 2), (4, 3), (4, 3), (4, 3, 2))


def called(*shapes, dtype=np.float32, aliases=True):
    """As `advance_and_contract` calls it, with operands that need not fit."""
    given = [v if isinstance(v, np.ndarray) else np.ones(v, dtype) for v in shapes]
    return jax.ffi.ffi_call(
        "braintrace_traces",
        jax.ShapeDtypeStruct(given[1].shape, dtype),
        input_output_aliases={1: 0} if aliases else {},
    )(*given)


def with_operand(k, value):
    return [value if n == k else v for n, v in enumerate(FITTING)]


@built
def test_what_does_not_fit_is_refused_before_it_is_read():
    np.testing.assert_array_equal(called(*FITTING), np.full((3, 2), 9))  # control
    for said, shapes in {
        "operand 5, a trace.*none.*f32\\[4, 3, 2\\]": FITTING[:-1],
        "numbers of operands.*7, 1.*6, 1": (*FITTING, (4, 3)),
        "operand 2, x.*f32\\[4, 2, 2\\].*f32\\[any, 1, 2\\]": with_operand(2, (4, 2, 2)),
        "operand 3, now.*f32\\[4, 2\\].*f32\\[4, 3\\]": with_operand(3, (4, 2)),
        "operand 4, a signal.*f32\\[3\\]": with_operand(4, (3,)),
        "plan.*3 values": with_operand(0, PLAN[:3]),
        "plan.*S = 5": with_operand(0, np.array([0, 1, 0, 5, 0, 0], np.int32)),
        "plan.*2 at 0": with_operand(0, np.array([2, 1, 0, 1, 0, 0], np.int32)),
        "operand 0, the plan.*dtype 5": with_operand(0, PLAN.astype(np.int64)),
    }.items():
        with pytest.raises(Exception, match=f"(?s)INVALID_ARGUMENT: Invalid {said}"):
            called(*shapes)
    with pytest.raises(Exception, match=r"(?s)the gradient.*dtype 10.*f32 or f64"):
        called(*FITTING, dtype=np.float16)
    with pytest.raises(Exception, match=r"(?s)the gradient.*memory of its own"):
        called(*FITTING, aliases=False)


@built
@layouts
@pytest.mark.parametrize("empty", range(3))
def test_of_nothing_comes_nothing(empty, across):
    size = [2, 4, 5]
    size[empty] = 0
    of = operands(1, *size, 1, np.float32, across)
    assert distance(advance_and_contract(across, of), by_hand(across, of)) == 0


PROGRAM = """
import warnings
warnings.simplefilter("error" if {quiet} else "always")
from braintrace.core.kernels import registered
print(registered(), registered())
"""


def registered_in(folder, quiet=True, **environment):
    """What a new process says, with a cache of its own, and what it warns of."""
    known = {k: v for k, v in os.environ.items() if k != "CC"}
    places = {"XDG_CACHE_HOME": str(folder / "cache"), "TMPDIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(quiet=quiet)],
        capture_output=True,
        text=True,
        env={**known, **places, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


def test_it_can_be_switched_off(tmp_path):
    assert registered_in(tmp_path, BRAINTRACE_KERNELS="0")[0] == "False False"


def test_without_a_compiler_nothing_is_said(tmp_path):
    assert registered_in(tmp_path, PATH=str(tmp_path))[0] == "False False"
    assert not list(tmp_path.iterdir())


def test_a_compiler_that_fails_is_reported_once(tmp_path):
    fake = tmp_path / "fake"
    fake.write_text("#!/bin/sh\necho 'traces.c:1: no such luck' >&2\nexit 1\n")
    fake.chmod(0o755)
    said, warned = registered_in(tmp_path, False, CC=str(fake), PATH=str(tmp_path))
    assert said == "False False"
    assert warned.count("RuntimeWarning") == 1
    assert f"got:      traces.c:1: no such luck (from {fake})" in warned
    assert "BRAINTRACE_KERNELS=0" in warned
    assert not list(tmp_path.rglob("*.so"))


@built
def test_it_is_built_at_first_use_and_once(tmp_path):
    for _ in range(2):
        assert registered_in(tmp_path)[0] == "True True"
        assert len(list(tmp_path.rglob("*.so"))) == 1
