"""The kernels as targets of XLA's foreign function interface.

They are registered when this module is imported, if they are built: executables that another
process compiled find them then. An import builds nothing; the first use does. Where that cannot be,
or with `BRAINTRACE_KERNELS=0` in the environment, the same functions run in JAX.
"""

import ctypes
import functools
import os
import warnings
from importlib import metadata
from pathlib import Path

import jax

from .._errors import problem
from ._build import BuildError, Source, build, load

TARGET = "braintrace_traces"
PAIRS = "braintrace_pairs"
_HERE = Path(__file__).parent
_SOURCE = Source(
    function=TARGET,
    code=_HERE / "traces.c",
    headers=tuple(_HERE / name for name in ("traces.h", "pairs.h", "call.h", "threads.h")),
    flags=("-O2", "-march=native", "-std=gnu11"),
    include=jax.ffi.include_dir(),
    version=f"jaxlib {metadata.version('jaxlib')}",
)
#: Whose files have owners; without, it could not be known whose library is loaded.
_WANTED = os.name == "posix" and os.environ.get("BRAINTRACE_KERNELS", "1") != "0"


@functools.cache
def registered() -> bool:
    """Whether the kernels can be called; they are built if need be."""
    return _LOADED or (_WANTED and _register(_built()))


def _register(library: ctypes.CDLL | None) -> bool:
    for name in (TARGET, PAIRS) if library is not None else ():
        function = jax.ffi.pycapsule(getattr(library, name))
        jax.ffi.register_ffi_target(name, function, platform="cpu")
    return library is not None


def _built() -> ctypes.CDLL | None:
    try:
        return build(_SOURCE)
    except BuildError as error:
        message = problem(
            "The C kernel of braintrace could not be built, so the same function runs in JAX, more "
            "slowly.",
            got="\n            ".join(error.reasons),
            do="repair the compiler or the directory, or set BRAINTRACE_KERNELS=0 to do without",
        )
        warnings.warn(message, RuntimeWarning, stacklevel=2)
        return None


_LOADED = _WANTED and _register(load(_SOURCE))
