"""`python -m fuzz -n 1000`: many seeds; `python -m fuzz --seed 17`: one, with its traceback."""

import quick_compilation  # isort: skip  # noqa: F401  (first: JAX reads its settings)

import argparse
import multiprocessing
import os
import sys
import time
import traceback

from ._check import Modest, check
from ._many import TOGETHER, reason, settings


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=100, help="how many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    chosen = parser.parse_args()
    settings()
    if chosen.seed is not None:
        try:
            check(chosen.seed)
        except Modest as better:
            print(f"seed {chosen.seed}: right, and could be better: {better}")
            return 0
        except Exception:
            traceback.print_exc()
            return 1
        print(f"seed {chosen.seed}: right")
        return 0
    start, failed, modest = time.perf_counter(), [], 0
    seeds = range(chosen.first, chosen.first + chosen.n)
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(chosen.jobs, settings, maxtasksperchild=TOGETHER) as pool:
        for seed, found in zip(seeds, pool.imap(reason, seeds), strict=True):
            modest += found is None
            if found:
                failed.append(seed)
                print(f"seed {seed}: {found}", flush=True)
    seconds = time.perf_counter() - start
    print(f"{chosen.n} seeds in {seconds:.0f} s, {len(failed)} with a fault: {failed}")
    print(f"{modest} with a gradient that is BPTT's and is not called exact")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
