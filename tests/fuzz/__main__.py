"""`python -m fuzz -n 1000`: many seeds; `python -m fuzz --seed 17`: one, with its traceback."""

import quick_compilation  # isort: skip  # noqa: F401  (first: JAX reads its settings)

import argparse
import gc
import sys
import time
import traceback

import jax

jax.config.update("jax_enable_x64", True)
gc.freeze()  # collecting what is imported takes a tenth of the time

from ._check import Modest, check  # noqa: E402

#: Programs of so many seeds stay compiled.
TOGETHER = 50


def one(seed, modest):
    """What is wrong with a seed, or ''; one whose certificate could be better joins `modest`."""
    try:
        check(seed)
    except Modest:
        modest.append(seed)
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return ""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=100, help="how many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="this one alone")
    chosen = parser.parse_args()
    if chosen.seed is not None:
        try:
            check(chosen.seed)
        except Exception:
            traceback.print_exc()
            return 1
        print(f"seed {chosen.seed}: right")
        return 0
    start, failed, modest = time.perf_counter(), [], []
    for seed in range(chosen.first, chosen.first + chosen.n):
        if reason := one(seed, modest):
            failed.append(seed)
            print(f"seed {seed}: {reason}", flush=True)
        if seed % TOGETHER == TOGETHER - 1:
            jax.clear_caches()
    seconds = time.perf_counter() - start
    print(f"{chosen.n} seeds in {seconds:.0f} s, {len(failed)} with a fault: {failed}")
    print(f"{len(modest)} with a gradient that is BPTT's and is not called exact")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
