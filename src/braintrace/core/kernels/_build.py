"""Building the C sources: once for each machine and version, with the machine's own compiler, at
first use.

The library is kept in the user's cache directory (`XDG_CACHE_HOME`, `~/.cache`), named by a digest
of the sources, the compiler, the processor and jaxlib. Where nothing can be built, or with
`BRAINTRACE_KERNELS=0` in the environment, the same functions run in JAX.
"""

import contextlib
import ctypes
import functools
import getpass
import hashlib
import os
import pathlib
import platform
import shutil
import subprocess
import tempfile
import warnings
from importlib import metadata

import jax

_SOURCES = ("traces.c", "traces.h")
_FLAGS = ("-O2", "-march=native", "-std=gnu11", "-shared", "-fPIC")
_SECONDS = 60


@functools.cache
def compiled() -> ctypes.CDLL | None:
    """The kernels, built if need be; None where they cannot be had."""
    if os.environ.get("BRAINTRACE_KERNELS", "1") == "0":
        return None
    names = (os.environ.get("CC"), "cc", "gcc", "clang")
    compiler = next((found for name in names if name and (found := shutil.which(name))), None)
    if compiler is None:
        return None
    try:
        return ctypes.CDLL(str(_built(compiler)))
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip() or type(error).__name__
        warnings.warn(
            "The C kernels of braintrace could not be built, so the same functions run in JAX, "
            f"more slowly.\n  got       {said.splitlines()[-1]} (from {compiler})\n"
            "  do        repair the compiler, or set BRAINTRACE_KERNELS=0 to do without",
            RuntimeWarning,
            stacklevel=2,
        )
        return None


def _built(compiler: str) -> pathlib.Path:
    here = pathlib.Path(__file__).parent
    sources = b"".join((here / name).read_bytes() for name in _SOURCES)
    run = functools.partial(subprocess.run, capture_output=True, check=True, timeout=_SECONDS)
    version = run([compiler, "--version"]).stdout
    known = repr((version, _processor(), metadata.version("jaxlib"), _FLAGS)).encode()
    path = _cache() / f"traces-{hashlib.sha256(sources + known).hexdigest()[:20]}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            made = pathlib.Path(folder) / path.name
            headers = f"-I{jax.ffi.include_dir()}"
            command = [compiler, *_FLAGS, headers, here / _SOURCES[0], "-o", made]
            run(command, text=True)
            os.replace(made, path)
    return path


def _processor() -> str:
    """What the compiler's `native` depends on."""
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return line
    return f"{platform.machine()} {platform.processor()}"


def _cache() -> pathlib.Path:
    """A directory that only this user can write to."""
    wanted = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    private = f"{tempfile.gettempdir()}/braintrace-{getpass.getuser()}"
    for folder in map(pathlib.Path, (f"{wanted}/braintrace", private)):
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            own = not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid()
            if own and os.access(folder, os.W_OK):
                return folder
    raise OSError("no directory of the user's own for the compiled kernels")
