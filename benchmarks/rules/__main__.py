"""`python -m benchmarks.rules`: measure every rule. What is in the results is not measured again:
an interrupted run goes on. The tables go into README.md here, the figure beside it.
"""

import argparse
import importlib.metadata
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path

import braintrace

from ..results import Results
from ..run import machine
from .methods import METHODS, TBPTT, methods
from .networks import NETWORKS
from .protocol import BESIDE, SHORT, Size, row
from .report import figure, report

SHORT_METHODS = ("rtrl", "snap 1", "sk_rtrl 4", "uoro", "d_rtrl", "rflo", "instantaneous", TBPTT)

_PACKAGES = ("braintrace", "jax", "jaxlib", "numpy", "optax")
_HERE = Path(__file__).parent
_MARK = "<!-- results -->"


def main() -> int:
    """Measure; the tables also go to standard output."""
    wanted = argparse.ArgumentParser(prog="python -m benchmarks.rules", description=__doc__)
    wanted.add_argument("--short", action="store_true", help="small networks, under two minutes")
    wanted.add_argument("--only", nargs="*", default=[], help="these methods and networks alone")
    wanted.add_argument("--again", action="store_true", help="forget earlier results")
    wanted.add_argument("--minutes", type=float, default=30, help="then no further row is begun")
    wanted.add_argument("--folder", type=Path, default=_HERE, help="of the results (%(default)s)")
    options = wanted.parse_args()
    name = "short" if options.short else "results"
    sizes = {network: Size() if network == "tanh" else BESIDE for network in NETWORKS}
    if options.short:
        sizes = dict.fromkeys(NETWORKS, SHORT)
    results = Results(options.folder.absolute(), name, resume=not options.again)
    results.data["neurons"] = sizes["tanh"].neurons
    measured = results.data.setdefault("rows", {})
    every = {network: {**methods(network), TBPTT: None} for network in NETWORKS}
    missing = [
        (network, method)
        for network in _chosen(list(NETWORKS)[: 2 if options.short else None], options.only)
        for method in _chosen(SHORT_METHODS if options.short else [*METHODS, TBPTT], options.only)
        if method in every[network] and method not in measured.get(network, {})
    ]
    if missing:
        versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
        results.about(machine() | {"versions": {"ours": versions}, "missing": {}})
    began = time.perf_counter()
    for network, method in missing:
        start = time.perf_counter()
        if start - began > options.minutes * 60:
            print(f"{options.minutes:g} minutes are over; run again for the rest", file=sys.stderr)
            break
        try:
            found = row(method, every[network][method], NETWORKS[network], sizes[network])
        except braintrace.BrainTraceError as error:
            found = {"refused": str(error).splitlines()[0]}
        found["seconds"] = time.perf_counter() - start
        measured.setdefault(network, {})[method] = found
        results.save()
        print(f"{network}, {method}: {found['seconds']:.1f} s", file=sys.stderr, flush=True)
    text = report(results.data)
    print(text)
    figure(results.data, options.folder / f"{name}.png")
    if not options.short and options.folder == _HERE:
        page = _HERE / "README.md"
        shown = f"![Cosine and NMSE of every rule]({name}.png)\n\n{text}"
        page.write_text(page.read_text().partition(_MARK)[0] + f"{_MARK}\n\n{shown}")
    return 0


def _chosen(names: Sequence[str], only: Collection[str]) -> list[str]:
    """Those of `names` that were asked for; all where none of them was."""
    return [name for name in names if name in only] or list(names)


if __name__ == "__main__":
    sys.exit(main())
