"""How the tests compile, set when this is imported, before JAX is: with little optimisation. And
how often they collect garbage.
"""

import gc
import importlib.metadata
import os

LESS = "JAX_DISABLE_MOST_OPTIMIZATIONS"
#: Of JAX 0.10, whose default is the slower one of two ways to make kernels. Later versions have one
#: way only.
KERNELS = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"


def _ask() -> None:
    os.environ.setdefault(LESS, "1")
    flags = os.environ.get("XLA_FLAGS", "")
    if importlib.metadata.version("jaxlib").startswith("0.10.") and KERNELS not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {KERNELS}"


def collect_seldom() -> None:
    """Look for garbage less often, when everything is imported: what is imported stays, and tracing
    makes many objects. It took a tenth and a fifth of the time.
    """
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


def as_found() -> dict[str, str]:
    """The environment without that."""
    found = {k: v for k, v in os.environ.items() if k not in (LESS, "XLA_FLAGS")}
    flags = os.environ.get("XLA_FLAGS", "").replace(KERNELS, "").strip()
    return {**found, "XLA_FLAGS": flags} if flags else found


_ask()
