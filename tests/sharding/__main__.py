"""`PYTHONPATH=tests python -m sharding [rule ...]`: every rule on every cell and mesh.

With `--quick` each rule has one cell, mesh and way, in turn; with `--json` the last line has all
of it.
"""

from . import _devices as _devices  # isort: skip  (before JAX)

import dataclasses
import gc
import itertools
import json
import sys

import jax

from braintrace.rules import ALGORITHMS
from precision import set_bits

from ._cells import CELLS
from ._measure import MESHES, WAYS, Measured, measure
from ._settings import SETTINGS

RULES = list({rule: name for name, rule in ALGORITHMS.items()}.values())  # a name of each
_TOGETHER = 18  # cases after which JAX forgets what it has compiled


def cases(rules, quick):
    """(rule, cell, mesh, way): all of one cell, then of the next."""
    every = [
        (cell, mesh, way)
        for cell, mesh, way in itertools.product(CELLS, MESHES, WAYS)
        if (way != "by device" or mesh != "1x8") and (way != "explicit" or mesh == "4x2")
    ]
    if quick:
        return [(rule, *every[11 * k % len(every)]) for k, rule in enumerate(rules)]
    return [(rule, *case) for cell in CELLS for rule in rules for case in every if case[0] == cell]


def main():
    set_bits(64)
    names = [name for name in sys.argv[1:] if not name.startswith("-")]
    found = []
    for case in cases(names or RULES, "--quick" in sys.argv):
        try:
            found.append(measure(*case))
        except Exception as error:
            found.append(Measured(*case, failed=f"{type(error).__name__}: {error}"))
        print(found[-1], flush=True)
        if len(found) % _TOGETHER == 0:
            jax.clear_caches()
            gc.collect()
    summary(found)
    if "--json" in sys.argv:
        settings = {name: run() for name, run in SETTINGS.items()}
        print(json.dumps([[dataclasses.asdict(m) for m in found], settings]))


def summary(found):
    ran = [m for m in found if not m.refused and not m.failed]
    refused = sum(bool(m.refused) for m in found)
    print(f"{len(found)} cases, {len(found) - len(ran) - refused} failed, {refused} refused")
    print(f"largest relative distance from one device: {max(m.off for m in ran):.1e}")
    exact = sum(m.bytes == m.planned for m in ran)
    print(f"bytes of traces on a device as planned: {exact} of {len(ran)}")
    print(f"programs that gather what is as large as a trace: {sum(bool(m.gathered) for m in ran)}")
    by_device = [m for m in ran if (m.mesh, m.way) == ("8x1", "by device")]
    one = sum(m.sent == {"all-reduce": 1} for m in by_device)
    print(f"8x1 by device with one all-reduce and nothing else: {one} of {len(by_device)}")


if __name__ == "__main__":
    main()
