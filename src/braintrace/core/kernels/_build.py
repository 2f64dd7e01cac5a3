"""Compiling C sources with the machine's own compiler: once for each machine and version.

The result is known by the sources and by what they are compiled for, not by the compiler: once it
is built, none is needed.
"""

import contextlib
import ctypes
import dataclasses
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from . import _cache

_SECONDS = 120  # that a build may take, and that others wait for it
_LEFT_OVER = 3600  # seconds after which nobody is at work any more


class BuildError(Exception):
    """Every attempt failed; `reasons` says why, one for each."""

    def __init__(self, reasons: list[str]):
        self.reasons = reasons
        super().__init__("; ".join(reasons))


@dataclasses.dataclass(frozen=True)
class Source:
    """A library to be: `function` is what is called in it. `headers` are found in `include`, a
    directory; what is there is known by `version`.
    """

    function: str
    code: Path
    headers: tuple[Path, ...] = ()
    flags: tuple[str, ...] = ("-O2",)
    include: str = "."
    version: str = ""

    @functools.cached_property
    def stem(self) -> str:
        """What the names of its files begin with."""
        libc = "CS_GNU_LIBC_VERSION"
        system = os.confstr(libc) if libc in os.confstr_names else platform.system()
        target = (self.flags, self.version, platform.machine(), _processor(), system)
        texts = b"\0".join(path.read_bytes() for path in (self.code, *self.headers))
        digest = hashlib.sha256(texts + repr(target).encode()).hexdigest()
        return f"{self.function}-{digest[:16]}"


def load(source: Source) -> ctypes.CDLL | None:
    """The library, if it is built."""
    for place in _cache.places():
        with contextlib.suppress(OSError):
            for path in _cache.whole(_cache.verified(place), source.stem):
                with contextlib.suppress(OSError):
                    return ctypes.CDLL(str(path))
    return None


def build(source: Source) -> ctypes.CDLL | None:
    """The library; None where there is no compiler."""
    compilers = _compilers()
    reasons = []
    for place in _cache.places() if compilers else ():
        try:
            for folder in (place.parent, place):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder = _cache.verified(place)
            with _cache.alone(folder, _SECONDS):
                if library := load(source):  # by another process, meanwhile
                    return library
                _clean(folder, source)
                for compiler in compilers:
                    try:
                        return _compile(source, compiler, folder)
                    except (AttributeError, subprocess.CalledProcessError, OSError) as error:
                        said = (getattr(error, "stderr", None) or str(error)).strip()
                        last = (said.splitlines() or [type(error).__name__])[-1]
                        reasons.append(f"{last} (from {shlex.join(compiler)})")
        except subprocess.TimeoutExpired as error:
            raise BuildError([*reasons, str(error)]) from error
        except OSError as error:
            reasons.append(str(error))
    if compilers:
        raise BuildError(reasons)
    return None


def _compilers() -> list[tuple[str, ...]]:
    """Commands whose program there is; the user's own choice may have arguments, or be no use."""
    chosen = os.environ.get("CC", "")
    commands: list[tuple[str, ...]] = [(chosen,)]
    with contextlib.suppress(ValueError):  # an open quotation mark
        commands.append(tuple(shlex.split(chosen)))
    commands += [("cc",), ("gcc",), ("clang",)]
    return [words for words in dict.fromkeys(commands) if words and shutil.which(words[0])]


def _compile(source: Source, compiler: tuple[str, ...], folder: Path) -> ctypes.CDLL:
    """Compiled and loaded out of sight, and only then put where others find it."""
    with tempfile.TemporaryDirectory(
        prefix="building-", dir=folder, ignore_cleanup_errors=True
    ) as work:
        made = Path(work, "library.so")
        options = [*source.flags, "-shared", "-fPIC", f"-I{source.include}"]
        subprocess.run(
            [*compiler, *options, source.code, "-o", made],
            check=True,
            timeout=_SECONDS,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        library = ctypes.CDLL(str(made))
        getattr(library, source.function)
        made.chmod(0o700)
        made.replace(folder / _cache.file_name(source.stem, made.read_bytes()))
        return library


def _clean(folder: Path, source: Source) -> None:
    """What a process that was ended left behind, and libraries that cannot be loaded."""
    for path in folder.glob(f"{source.stem}-*.so"):
        with contextlib.suppress(OSError):
            path.unlink()
    for path in folder.glob("building-*"):
        with contextlib.suppress(OSError):
            if time.time() - path.lstat().st_mtime > _LEFT_OVER:
                shutil.rmtree(path)


def _processor() -> str:
    """What the compiler's `native` depends on."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith(("flags", "Features")):
                return line
    return platform.processor()
