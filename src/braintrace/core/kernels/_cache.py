"""Where compiled libraries are kept: in directories of the user's own.

A library is code that will run with the user's rights. So a directory and a file are taken only if
they belong to the user (by number, names may be missing) and nobody else can write to them. The
name of a file ends in the digest of what it holds: it is known to be whole before it is loaded, as
a mapped file that was cut off ends the process.
"""

import contextlib
import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def places() -> list[Path]:
    """The directories, the best first, whether they are there or not."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    cache = named if os.path.isabs(named) else os.path.expanduser("~/.cache")
    found = [Path(cache, "braintrace")] if os.path.isabs(cache) else []  # "~": without a home
    with contextlib.suppress(OSError):  # there is none that can be written to
        found.append(Path(tempfile.gettempdir(), f"braintrace-{os.geteuid()}"))
    return found


def verified(folder: Path) -> Path:
    """The directory without symbolic links; OSError where others could put something into it."""
    for part in (folder, *folder.parents):
        owner = part.lstat().st_uid
        if part.is_symlink() and owner not in (0, os.geteuid()):
            raise PermissionError(f"{part} is a link of user {owner}")
    folder = folder.resolve(strict=True)
    _require_own(folder)
    for part in folder.parents:
        mode = part.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise PermissionError(f"others can write to {part}")
    return folder


def whole(folder: Path, stem: str) -> Iterator[Path]:
    """The libraries of that name, in a directory that was verified."""
    for path in sorted(folder.glob(f"{stem}-*.so")):
        with contextlib.suppress(OSError):
            _require_own(path)
            if path.name == file_name(stem, path.read_bytes()):
                yield path


def file_name(stem: str, content: bytes) -> str:
    return f"{stem}-{hashlib.sha256(content).hexdigest()[:32]}.so"


def _require_own(path: Path) -> None:
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise PermissionError(f"{path} is a link")
    if found.st_uid != os.geteuid():
        raise PermissionError(f"{path} belongs to user {found.st_uid}")
    if found.st_mode & _OTHERS:
        raise PermissionError(f"others can write to {path}")


@contextlib.contextmanager
def alone(folder: Path, seconds: float) -> Iterator[None]:
    """One process at a time.

    Only to spare the others the work: where the file system has no locks, or after `seconds`, this
    goes on without. The lock ends with its process; the file stays.
    """
    import fcntl  # not on Windows

    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
            descriptor = os.open(folder / "lock", flags, mode=0o600)
            held.callback(os.close, descriptor)
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(0.05)
        yield
