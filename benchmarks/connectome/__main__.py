"""Networks of the size of a fly's brain: `python -m benchmarks.connectome`. Its table and figure go
into README.md, and its data beside it.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ..process import ROOT
from ..table import duration, rows, size
from .network import FLY, SYNAPSES_OF_FLY
from .picture import picture

_HERE = Path(__file__).parents[1]
_BEGIN, _END = "<!-- connectome: begin -->", "<!-- connectome: end -->"
_ALL = (("pp_prop", None), ("ottt", None), ("d_rtrl", None))


def parts(tiny: bool, rounds: int) -> dict[str, dict[str, Any]]:
    """What is measured, by name; each in a process of its own."""
    neurons = 300 if tiny else FLY
    synapses = 3000 if tiny else round(1.022 * SYNAPSES_OF_FLY)  # some are drawn twice
    usual = {"drive": 1.0, "steps": 10 if tiny else 100, "rounds": rounds}
    fly = {"neurons": neurons, "synapses": synapses, **usual}
    sizes = [1_000, 10_000, 100_000, 1_000_000]
    step_by_step = [("pp_prop", 1), ("d_rtrl", 1)]
    growth = {
        f"{n} neurons": {"neurons": n, "synapses": 15 * n, "methods": _ALL, **usual} for n in sizes
    }
    activity = {
        f"drive {drive}": {**fly, "drive": drive, "methods": _ALL[:1]}
        for drive in [0.7, 0.85, 1.3, 2.0]
    }
    learning = {**fly, "updates": 3 if tiny else 30, "rate": 0.004, "methods": _ALL[:1]}
    whole = {**fly, "methods": [*_ALL, *step_by_step]}
    if tiny:
        return {"fly": {**fly, "methods": [_ALL[0], ("d_rtrl", 1)]}, "learning": learning}
    return {"fly": whole, "learning": learning, **activity, **growth}


def main() -> int:
    """Measure what is not there yet; the table also goes to standard output."""
    wanted = argparse.ArgumentParser("benchmarks.connectome", description=__doc__)
    wanted.add_argument("--resume", action="store_true", help="keep the parts that are there")
    wanted.add_argument("--tiny", action="store_true", help="networks of some hundred neurons")
    wanted.add_argument("--rounds", type=int, default=5, help="of each method, in turn")
    wanted.add_argument("--minutes", type=float, default=30, help="after which no part is begun")
    wanted.add_argument("--folder", type=Path, default=_HERE, help="for the data and the figure")
    options = wanted.parse_args()
    file, end = options.folder / "connectome.json", time.monotonic() + 60 * options.minutes
    found = json.loads(file.read_text()) if options.resume and file.exists() else {}
    for name, part in parts(options.tiny, options.rounds).items():
        if name not in found and time.monotonic() < end:
            found[name] = _run(part)
            file.write_text(json.dumps(found, indent=1))
            print(name, json.dumps(found[name])[:300], file=sys.stderr, flush=True)
    text = report(found)
    print(text)
    picture(found, options.folder / "connectome.png")
    if not options.tiny:
        readme = _HERE / "README.md"
        before, _, rest = readme.read_text().partition(_BEGIN)
        readme.write_text(f"{before}{_BEGIN}\n\n{text}\n\n{_END}{rest.partition(_END)[2]}")
    return 0


def _run(part: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.connectome.measure", json.dumps(part)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no word"])[-1][:200]}
    return json.loads(done.stdout.splitlines()[-1]) | {"load": os.getloadavg()[0]}


def report(found: dict[str, Any]) -> str:
    """A table of all methods, and a sentence about the learning."""
    head = ("neurons", "synapses", "rate", "method", "time/step", "plain ×", "compile")
    lines = []
    for row in found.values():
        if "plain" in row:
            about = (f"{row['neurons']:,}", f"{row['synapses']:,}", f"{row['rate']:.2%}")
            plain = ("plain", duration(row["plain"]["step"]), "1", f"{row['plain']['first']:.1f} s")
            lines.append((*about, *plain, "", "", f"{row['load']:.1f}"))
            lines += [(*about, name, *_cells(m), "") for name, m in row["methods"].items()]
    table = rows((*head, "traces", "peak", "load"), lines)
    failed = [f"{name}: {row['error']}" for name, row in found.items() if "error" in row]
    if losses := found.get("learning", {}).get("losses"):
        changed = found["learning"]["changed"]
        failed.append(
            f"`pp_prop`, {len(losses)} updates: loss {losses[0]:.3g} at first, {losses[-1]:.3g} at "
            f"the end; {changed:.0%} of the synapses changed."
        )
    return "\n\n".join([table, *failed])


def _cells(method: dict[str, Any]) -> tuple[str, ...]:
    return (
        duration(method["step"]),
        f"{method['ratio']:.2f}",
        f"{method['analysis'] + method['compile']:.1f} s",
        size(method["traces"]),
        size(method["peak"]),
    )


if __name__ == "__main__":
    sys.exit(main())
