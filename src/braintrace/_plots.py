"""Figures. Colours are those of Okabe and Ito, which people with colour-blindness can tell
apart.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

_LINES = (("#0072B2", "-"), ("#D55E00", "--"), ("#555555", ":"))
_BARS = ("#56B4E9", "#0072B2")
_STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
}


@dataclasses.dataclass(frozen=True)
class Band:
    """A curve with its spread: y of each run at x."""

    x: Sequence[float]
    y: Sequence[Sequence[float]]


@dataclasses.dataclass(frozen=True)
class Panel:
    """A row of the figure: one network's curves by method, and cosines by parameter for each time
    of measurement.
    """

    name: str
    losses: Mapping[str, Band]
    accuracies: Mapping[str, Band]  # percent
    fidelity: Mapping[str, Mapping[str, float]]


def figure(panels: Sequence[Panel], out: Path) -> None:
    """Learning curves and the fidelity of the gradient, a row for each network, saved as `out`."""
    with matplotlib.rc_context(_STYLE):
        drawn = Figure(figsize=(13.5, 0.6 + 3.6 * len(panels)), dpi=120, layout="constrained")
        FigureCanvasAgg(drawn)
        rows = drawn.subplots(len(panels), 3, squeeze=False, width_ratios=(1, 1, 1.1))
        for row, panel in zip(rows, panels, strict=True):
            _curves(row[0], panel.losses)
            row[0].set(title=f"{panel.name}: training loss", yscale="log")
            row[0].set_ylabel("cross-entropy per frame (nat)")
            ticks = row[0].yaxis  # 1, 2 and 5 times powers of ten, as plain numbers
            ticks.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ticks.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ticks.set_minor_formatter(NullFormatter())
            _curves(row[1], panel.accuracies)
            row[1].set(title=f"{panel.name}: test accuracy", ylabel="utterances recognised (%)")
            row[1].set_ylim(top=100)
            _bars(row[2], panel.fidelity)
            row[2].set(title=f"{panel.name}: online gradient against BPTT")
        keys = lambda axes: axes.get_legend_handles_labels()
        drawn.legend(*keys(rows[0][0]), loc="outside upper left", ncols=3, frameon=False)
        drawn.legend(*keys(rows[0][2]), loc="outside upper right", ncols=2, frameon=False)
        drawn.savefig(out)


def _curves(axes: Any, curves: Mapping[str, Band]) -> None:
    """The mean of the runs of each curve, and between which values they lie."""
    for (name, band), (colour, line) in zip(curves.items(), _LINES, strict=False):
        y = np.asarray(band.y)
        axes.fill_between(band.x, y.min(0), y.max(0), color=colour, alpha=0.15, linewidth=0)
        axes.plot(band.x, y.mean(0), color=colour, linestyle=line, linewidth=1.8, label=name)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))


def _bars(axes: Any, fidelity: Mapping[str, Mapping[str, float]]) -> None:
    names = list(next(iter(fidelity.values())))
    height = 0.8 / len(fidelity)
    for k, ((when, cosines), colour) in enumerate(zip(fidelity.items(), _BARS, strict=False)):
        at = np.arange(len(names)) + (k - (len(fidelity) - 1) / 2) * height
        values = [cosines[n] for n in names]
        axes.barh(at, values, height * 0.9, color=colour, label=f"cosine {when}")
        for y, value in zip(at, values, strict=True):
            axes.text(1.01, y, f"{value:.2f}", va="center", fontsize=8)
    axes.set_yticks(np.arange(len(names)), [n.replace(" ", "\n", 1) for n in names], fontsize=9)
    axes.invert_yaxis()
    low = min(0.0, *(v for c in fidelity.values() for v in c.values() if v == v))
    axes.set(xlim=(low, 1), xlabel="cosine of the angle between the gradients")
