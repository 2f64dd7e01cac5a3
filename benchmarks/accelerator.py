"""This project against BPTT on whatever accelerator JAX finds: `python -m benchmarks.accelerator`.

Right first: small learners against their oracles in float32. Then windows, steps and BPTT over
sizes, those that say most first, so that a limit of time leaves a table. Everything that is
measured is saved, and the tables are written anew, after each case.
"""

import sys
import time
from pathlib import Path
from typing import Any

from . import plan, plots
from .command import parser
from .process import Process
from .results import Results, seconds, value
from .run import run
from .table import duration, report, rows, size
from .targets import ONLINE


def main() -> int:
    """Measure on the first device; tables go to standard output, tables, data and plot to the
    folder.
    """
    wanted = parser(
        "benchmarks.accelerator", "Measure this project and BPTT on the accelerator that JAX finds."
    )
    wanted.add_argument("--cpu", action="store_true", help="run although there is no accelerator")
    options, start = wanted.parse_args(), time.monotonic()
    folder = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    # Asked in a process of its own: JAX would reserve most of a GPU's memory for this one.
    process = Process(Path(sys.executable), "ours", folder / "worker-ours.log")
    device = process.ask("versions")
    if "error" in device:
        process.close()
        print(f"JAX does not start: {device['error']}", file=sys.stderr)
        return 1
    if device["platform"] == "cpu" and not (options.cpu or options.tiny):
        process.close()
        print(
            "JAX finds no accelerator here, only a CPU. Install JAX for yours (pip install "
            "'jax[cuda13]', say), or pass --cpu to"
            " try the script without one; the CPU's own table is made by `make bench`.",
            file=sys.stderr,
        )
        return 2
    checked = process.ask("smoke")
    process.close()
    results = Results(folder, f"accelerator-{device['platform']}", resume=False)
    results.put("smoke", checked)
    print(_smoke(checked), flush=True)
    works = plan.alone(plan.short()) if options.short else plan.accelerator(options.tiny)

    def write() -> None:
        text = "\n\n".join([_smoke(checked), _bandwidth(results.data), report(results.data)])
        results.file.with_suffix(".md").write_text(text)
        plots.ratios(results.cases, results.file.with_suffix(".png"))

    left = options.minutes - (time.monotonic() - start) / 60
    run(works, [], [], results, rounds=options.rounds, minutes=left, after=write)
    write()
    print(results.file.with_suffix(".md").read_text())
    return 0 if all(row["ok"] for row in checked.get("rows", [{"ok": False}])) else 3


def _smoke(checked: dict[str, Any]) -> str:
    """The rules against their oracles."""
    if "error" in checked:
        return f"### Oracles in float32\n\nnot run: {checked['error']}"
    number = lambda v: "" if v is None else f"{v:.1e}"
    lines = [
        (r["rule"], number(r["error"]), number(r["control"]), "right" if r["ok"] else "**wrong**")
        for r in checked["rows"]
    ]
    head = ("rule", "error", "BPTT's error, as a control", "")
    return "### Oracles in float32\n\n" + rows(head, lines)


def _bandwidth(data: dict[str, Any]) -> str:
    """A step of D-RTRL against memory: each trace is read and written once, at the least."""
    most, lines = data.get("limits", {}).get("in place, 256 MB, GB/s"), []
    for title, case in data["cases"].items():
        time, traces = seconds(case, ONLINE), value(case, ONLINE, "traces")
        if time and traces and most:
            rate = 2 * traces / time / 1e9
            figures = (size(2 * traces), duration(time), f"{rate:.0f}", f"{rate / most:.0%}")
            lines.append((title, *figures))
    head = ("case", "moved at least", "time/step", "GB/s", "of what a copy in place moves")
    name = f"### A step at a time against memory, {most or 0:.0f} GB/s"
    return f"{name}\n\n" + rows(head, lines)


if __name__ == "__main__":
    sys.exit(main())
