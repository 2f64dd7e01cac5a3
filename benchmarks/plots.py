"""Two figures: the ratio to BPTT of every method and case, and how costs grow."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # after the choice of a backend that needs no screen

from .growth import curves, exponent
from .results import ratio
from .targets import D_RTRL, FREE, ONLINE, PEERS

_LINES = {
    D_RTRL: ("D-RTRL, default window", "tab:blue"),
    FREE: ("D-RTRL, one window, no end trace", "tab:cyan"),
    ONLINE: ("D-RTRL, online", "tab:green"),
    "pp_prop": ("pp_prop", "tab:olive"),
    PEERS: ("peer: D_RTRL", "tab:red"),
}


def ratios(cases: dict[str, Any], file: Path) -> None:
    """Time per step over BPTT's, with quartiles, on a logarithmic scale."""
    titles = list(cases)
    figure, axis = plt.subplots(figsize=(9, 1.5 + 0.32 * len(titles)))
    for shift, (key, (label, colour)) in enumerate(_LINES.items()):
        found = [
            (k, r) for k, t in enumerate(titles) if (r := ratio(cases[t], key, "bptt")) is not None
        ]
        if found:
            rows, middle = [k + 0.13 * (shift - 2) for k, _ in found], [r[0] for _, r in found]
            spread = [[r[0] - r[1] for _, r in found], [r[2] - r[0] for _, r in found]]
            axis.errorbar(
                middle, rows, xerr=spread, fmt="o", markersize=4, color=colour, label=label
            )
    axis.axvline(1, color="black", linewidth=0.8)
    axis.set(
        xscale="log",
        xlabel="time per step, in times of BPTT's",
        yticks=range(len(titles)),
        yticklabels=titles,
    )
    axis.invert_yaxis()
    axis.grid(axis="x", alpha=0.3)
    axis.hlines(
        [k + 0.5 for k in range(len(titles) - 1)],
        *axis.get_xlim(),
        color="black",
        linewidth=0.3,
        alpha=0.4,
    )
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
    figure.savefig(file, dpi=110, bbox_inches="tight")
    plt.close(figure)


def growth(cases: dict[str, Any], file: Path) -> None:
    """A panel for each kind of cost, in logarithms; the exponent of the largest sizes is in the
    legend.
    """
    panels = curves(cases)
    figure, axes = plt.subplots(
        1, max(len(panels), 1), figsize=(4.2 * max(len(panels), 1), 3.6), squeeze=False
    )
    for axis, (panel, lines) in zip(axes[0], panels.items(), strict=False):
        for line, points in lines.items():
            slope = exponent(points)
            label = line if slope is None else f"{line}: exponent {slope:.2f}"
            axis.loglog(*zip(*points, strict=True), marker="o", label=label)
        axis.set_title(panel, fontsize=9)
        axis.legend(fontsize=7, frameon=False)
        axis.grid(alpha=0.3)
    figure.savefig(file, dpi=110, bbox_inches="tight")
    plt.close(figure)
