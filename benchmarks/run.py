"""The run: every method of a case is prepared, then all are repeated in turn, so that noise hits
all alike.
"""

import contextlib
import datetime
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .environments import pythons
from .plan import OURS, Agreement, Work
from .process import ROOT, Process
from .results import Results


def run(
    works: list[Work],
    agreements: list[Agreement],
    growing: list[Work],
    results: Results,
    *,
    rounds: int,
    minutes: float = 60.0,
    after: Callable[[], None] = lambda: None,
) -> None:
    """Fill `results`, which are saved after each case, and then call `after`; what they hold
    already is left out. After `minutes` no case is begun.
    """
    end = time.monotonic() + 60 * minutes
    folder = results.folder
    sides = pythons(folder, {m.side for w in (*works, *growing) for m in w.methods})
    processes = {
        side: Process(python, "ours" if side == OURS else "peer", folder / f"worker-{side}.log")
        for side, python in sides.items()
        if isinstance(python, Path)
    }
    missing = {side: reason for side, reason in sides.items() if isinstance(reason, str)}
    with contextlib.ExitStack() as stack:
        for process in processes.values():
            stack.callback(process.close)
        results.about(
            machine()
            | {"versions": {s: p.ask("versions") for s, p in processes.items()}, "missing": missing}
        )
        if "limits" not in results.data:
            results.put("limits", processes[OURS].ask("limits"))
        if "agreements" not in results.data:
            results.put(
                "agreements",
                [_agreement(a, processes, folder) for a in agreements if a.peer.side in processes],
            )
        todo = [(results.data["growth"], work, min(rounds, 3)) for work in growing]
        todo += [(results.cases, work, rounds) for work in works]
        for held, work, times in todo:
            if time.monotonic() > end:
                print(
                    f"no time is left for {work.case.title}; --resume goes on with it", flush=True
                )
            elif work.case.title not in held:
                print(f"{datetime.datetime.now():%H:%M:%S} {work.case.title}", flush=True)
                held[work.case.title] = _case(work, processes, missing, times)
                results.save()
                after()


def _case(
    work: Work, processes: dict[str, Process], missing: dict[str, str], rounds: int
) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for method in work.methods:
        if method.side in processes:
            arguments = {
                "case": vars(work.case),
                "rule": method.rule,
                "form": method.form,
                "seconds": work.seconds,
            }
            rows[method.key] = processes[method.side].ask(
                "prepare", key=method.key, **arguments
            ) | {"seconds": []}
        elif method.side in missing:
            rows[method.key] = {"error": missing[method.side]}
    for _ in range(rounds):
        for method in work.methods:
            row = rows.get(method.key, {"error": ""})
            if "error" not in row:
                reply = processes[method.side].ask("repeat", key=method.key)
                if "error" in reply:
                    row["error"] = reply["error"]
                else:
                    row["seconds"].append(reply["seconds"] / row["steps"])
    for process in processes.values():
        process.ask("forget")
    rivals = {m.key: m.rival for m in work.methods}
    return {"case": vars(work.case), "rows": rows, "rivals": rivals}


def _agreement(agreement: Agreement, processes: dict[str, Process], folder: Path) -> dict[str, Any]:
    """The largest relative difference of the gradients' norms, over the named parameters."""
    files, row = (
        {},
        {"case": agreement.case.title, "ours": agreement.ours.key, "peer": agreement.peer.key},
    )
    row["note"] = agreement.note
    for method in (agreement.ours, agreement.peer):
        files[method] = folder / f"gradients-{method.side}.npz"
        arguments = {
            "case": vars(agreement.case),
            "rule": method.rule,
            "form": method.form,
            "file": str(files[method]),
        }
        arguments["runs"] = agreement.runs
        reply = processes[method.side].ask("gradients", **arguments)
        if "error" in reply:
            return row | reply
    ours, peer = (np.load(files[m]) for m in (agreement.ours, agreement.peer))
    differences = {
        n: float(np.linalg.norm(ours[n] - peer[n]) / np.linalg.norm(ours[n]))
        for n in agreement.names
    }
    return row | {"differences": differences}


def machine() -> dict[str, Any]:
    """The machine, its load and the commit."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    return {
        "date": f"{datetime.date.today()}",
        "machine": (models or [platform.processor() or platform.machine()])[0],
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "load": os.getloadavg()[0],
        "commit": commit,
    }
