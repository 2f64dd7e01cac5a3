"""What a process does that checks many seeds."""

import quick_compilation  # isort: skip  (first: JAX reads its settings)

from precision import set_bits

from ._check import Modest, check

#: Programs of so many seeds stay compiled, then the process ends.
TOGETHER = 50


def settings():
    """Of a process."""
    set_bits(64)
    quick_compilation.collect_seldom()


def reason(seed):
    """What is wrong with a seed, '' for nothing, or None where a certificate could be better."""
    try:
        check(seed)
    except Modest:
        return None
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return ""
