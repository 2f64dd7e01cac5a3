"""The figure: growth with the network, with the rate, and the loss."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # after the choice of a backend that needs no screen

_COLOURS = {"plain": "black", "pp_prop": "tab:olive", "ottt": "tab:orange", "d_rtrl": "tab:blue"}


def picture(found: dict[str, Any], file: Path) -> None:
    """Time per step over neurons and over the firing rate, and the loss over updates."""
    figure, (growth, activity, learning) = plt.subplots(1, 3, figsize=(12, 3.8))
    timed = [row for row in found.values() if "plain" in row]
    of_size = [row for name, row in found.items() if name.endswith("neurons") and "plain" in row]
    _lines(growth, of_size, "neurons", _COLOURS)
    growth.set(xlabel="neurons, of 15 synapses each")
    growth.set(ylabel="ms per step")
    fly = [row for row in timed if row not in of_size]
    _lines(activity, fly, "rate", {name: _COLOURS[name] for name in ("plain", "pp_prop")})
    activity.set(ylabel="ms per step", xlabel="spikes of a neuron in a step, fly's size")
    losses = found.get("learning", {}).get("losses", [])
    learning.plot(range(1, len(losses) + 1), losses, color=_COLOURS["pp_prop"])
    learning.set(xlabel="update", ylabel="loss on rates of regions, fly's size", ylim=(0, None))
    for axis in (growth, activity):
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _lines(axis: Any, timed: list[dict[str, Any]], by: str, colours: dict[str, str]) -> None:
    timed = sorted((row for row in timed if row[by] > 0), key=lambda row: row[by])
    if not timed:
        return
    axis.set(xscale="log", yscale="log")
    for name, colour in colours.items():
        of = lambda row, name=name: row["plain"] if name == "plain" else row["methods"][name]
        steps = [1e3 * of(row)["step"] for row in timed]
        axis.plot([row[by] for row in timed], steps, "o-", color=colour, label=name)
