"""`PYTHONPATH=tests python -m sharding [--json] [rule ...]`: every rule on every cell and mesh.

With `--quick` each rule has one cell, mesh and way, in turn.
"""

import os

_DEVICES = "--xla_force_host_platform_device_count=8"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_DEVICES}"

import quick_compilation  # isort: skip  (before JAX)

import dataclasses
import gc
import itertools
import json
import sys

import jax

from precision import set_bits

set_bits(64)

from braintrace.rules import ALGORITHMS

from ._cells import CELLS
from ._measure import MESHES, WAYS, Measured, measure


def cases(rules, quick):
    """(rule, cell, mesh, way)"""
    for k, rule in enumerate(rules):
        every = [*itertools.product(CELLS, MESHES, WAYS)]
        if quick:
            every = [every[(7 * k) % len(every)]]
        yield from ((rule, *case) for case in every)


def main():
    names = [name for name in sys.argv[1:] if not name.startswith("-")]
    found = []
    for case in cases(names or ALGORITHMS, "--quick" in sys.argv):
        try:
            found.append(measure(*case))
        except Exception as error:
            found.append(Measured(*case, refused=f"FAILED {type(error).__name__}: {error}"))
        if "--json" not in sys.argv:
            print(row(found[-1]), flush=True)
        if len(found) % 18 == 0:
            jax.clear_caches()
            gc.collect()
    if "--json" in sys.argv:
        print(json.dumps([dataclasses.asdict(m) for m in found]))
        return
    ran = [m for m in found if not m.refused]
    failed = sum("FAILED" in m.refused for m in found)
    refused = len(found) - len(ran) - failed
    print(f"{len(found)} cases, {failed} failed, {refused} refused on one device as well")
    print(f"largest relative distance from one device: {max(m.off for m in ran):.1e}")
    exact = sum(m.bytes == m.planned for m in ran)
    print(f"bytes of traces on a device as planned: {exact} of {len(ran)}")
    print(f"programs that gather what is as large as a trace: {sum(bool(m.gathered) for m in ran)}")


def row(m):
    words = f"{m.rule:16} {m.cell:18} {m.mesh} {m.way:10}"
    if m.refused:
        return f"{words} {m.refused}"
    sent = ", ".join(f"{n} {kind}" for kind, n in m.sent.items())
    return (
        f"{words} {m.off:.0e}  {m.bytes:7} of {m.total:7} B ({m.whole} whole)  {sent}"
        f"{'  GATHERS ' + str(m.gathered) if m.gathered else ''}  {m.why_not}"
    )


main()
