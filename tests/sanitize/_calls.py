"""Compiling `calls.c` with AddressSanitizer and UBSan, and running it."""

import subprocess
from pathlib import Path

import jax

import braintrace.core.kernels as kernels

HERE = Path(__file__).parent
SANITIZED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
#: At higher levels the kernel takes several times as long to compile.
FLAGS = ("-O0", "-g", "-std=gnu11", "-pthread", "-Wall", "-Wno-maybe-uninitialized")


def compiled(folder: Path, *more: str) -> Path:
    """The program; `more` options of gcc."""
    program = folder / "calls"
    places = (f"-I{jax.ffi.include_dir()}", f"-I{Path(kernels.__file__).parent}")
    command = ["gcc", *FLAGS, *SANITIZED, *more, *places, HERE / "calls.c", "-o", program, "-lm"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or done.stderr:
        raise RuntimeError(done.stderr)
    return program


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=300)


def missing(folder: Path) -> str:
    """Why this cannot be here; "" where it can."""
    code = folder / "nothing.c"
    code.write_text("int main(void) { return 0; }")
    try:
        command = ["gcc", *SANITIZED, code, "-o", folder / "nothing"]
        done = subprocess.run(command, capture_output=True, text=True)
        said = done.stderr or run(folder / "nothing").stderr
    except OSError as error:
        said = str(error)
    return said and f"no gcc with sanitizers: {said.splitlines()[-1]}"
