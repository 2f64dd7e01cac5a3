"""A Python for each side: this one, and virtual environments with the PyPI package braintrace."""

import importlib.metadata
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

from .plan import OLD_PEER, OURS, PEER


def pythons(folder: Path, sides: Collection[str]) -> dict[str, Path | str]:
    """The interpreter of each side, or why there is none. The peers get our version of JAX, so that
    compilers are equal, and of jaxtyping, which annotates the cells that all sides share.
    """
    found: dict[str, Path | str] = {OURS: Path(sys.executable)}
    for version in (v for v in (PEER, OLD_PEER) if v in sides):
        print(f"environment of the PyPI package braintrace {version} ...", flush=True)
        found[version] = _environment(folder / f"peer-{version}", version)
    return found


def _environment(folder: Path, version: str) -> Path | str:
    python, ready = folder / "bin" / "python", folder / ".ready"
    wanted = [
        f"braintrace=={version}",
        *(f"{name}=={importlib.metadata.version(name)}" for name in ("jax", "jaxlib", "jaxtyping")),
    ]
    if ready.exists() and ready.read_text() == " ".join(wanted):
        return python
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return f"not installed: {(done.stderr.strip() or 'no message').splitlines()[-1]}"
    ready.write_text(" ".join(wanted))
    return python
