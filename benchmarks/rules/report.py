"""Results as Markdown and as a figure."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # after the choice of a backend that needs no screen

from ..table import about, rows
from .data import GRADIENT_TASKS, SERIES
from .networks import NEURONS
from .published import COSINE, NMSE, WORDS

_KINDS = (
    ("cosine", "Cosine to the exact gradient", GRADIENT_TASKS, COSINE, "{:.3f}"),
    ("nmse", "Error of one-step prediction (NMSE)", SERIES, NMSE, "{:.2g}"),
)


def report(data: dict[str, Any]) -> str:
    """Machine, then for each network and measurement a table; published figures in brackets."""
    parts = [about(data)]
    for network, methods in data["rows"].items():
        for kind, title, tasks, published, form in _KINDS:
            alike = network == "tanh" and data["neurons"] == NEURONS
            said = published if alike else {}
            lines = [
                _line(name, row, kind, list(tasks), said, form) for name, row in methods.items()
            ]
            table = rows(("rule", *tasks, "seconds"), [line for line in lines if line])
            parts.append(f"### {title}: {network}\n\n{table}")
        if refused := {name: row["refused"] for name, row in methods.items() if "refused" in row}:
            parts.append("\n".join(f"* `{name}` refuses: {why}" for name, why in refused.items()))
    compared = [f"* `{name}`: {text}" for name, text in WORDS.items()]
    return (
        "\n\n".join([*parts, "### Beside the published figures\n\n" + "\n".join(compared)]) + "\n"
    )


def overview(data: dict[str, Any]) -> str:
    """Of the tanh network, the mean cosine over tasks and the error on each series; rules with the
    same figures share a row. What `docs/algorithms/index.md` shows.
    """
    shared: dict[tuple[str, ...], list[str]] = {}
    for name, row in data["rows"]["tanh"].items():
        if "nmse" in row:
            every = [np.mean(values) for values in row.get("cosine", {}).values()]
            cosine = f"{np.mean(every):.2f}" if every else ""
            errors = [f"{np.mean(row['nmse'][series]):.2g}" for series in SERIES]
            shared.setdefault((cosine, *errors), []).append(f"`{name}`")
    lines = sorted(shared.items(), key=lambda row: row[0], reverse=True)
    cells = [(", ".join(names), *figures) for figures, names in lines]
    return rows(("rule", "cosine", *SERIES), cells)


def _line(
    name: str,
    row: dict[str, Any],
    kind: str,
    tasks: Collection[str],
    published: dict[str, tuple[float, ...]],
    form: str,
) -> tuple[str, ...]:
    if kind not in row:
        return ()
    cells = []
    for k, task in enumerate(tasks):
        cell = form.format(np.mean(row[kind][task])) + " ± " + form.format(np.std(row[kind][task]))
        if name in published:
            cell += f" ({published[name][k]:g})"
        cells.append(cell)
    return (f"`{name}`", *cells, f"{row['seconds']:.0f}")


def figure(data: dict[str, Any], file: Path) -> None:
    """A panel for each network and measurement: a row for each rule, a mark for each task."""
    networks = list(data["rows"])
    most = max(len(methods) for methods in data["rows"].values())
    made, axes = plt.subplots(
        len(networks), 2, figsize=(11, 0.6 + len(networks) * (0.9 + 0.22 * most)), squeeze=False
    )
    for line, network in zip(axes, networks, strict=True):
        for axis, (kind, title, tasks, _, _) in zip(line, _KINDS, strict=True):
            found = {n: row[kind] for n, row in data["rows"][network].items() if kind in row}
            names = sorted(found, key=lambda n: -_overall(found[n], kind))
            for task, marker in zip(tasks, "os^D", strict=False):
                values = [np.mean(found[n][task]) for n in names]
                spread = [np.std(found[n][task]) for n in names]
                axis.errorbar(
                    values,
                    range(len(names)),
                    xerr=spread,
                    fmt=marker,
                    markersize=4,
                    label=task,
                    linewidth=0.8,
                    alpha=0.85,
                )
            axis.set(yticks=range(len(names)), yticklabels=names, title=f"{title}: {network}")
            axis.tick_params(labelsize=8)
            axis.title.set_fontsize(9)
            axis.invert_yaxis()
            axis.grid(axis="x", alpha=0.3)
            if kind == "nmse":
                axis.set_xscale("log")
            axis.legend(fontsize=7, frameon=False)
    made.tight_layout()
    made.savefig(file, dpi=110)
    plt.close(made)


def _overall(row: dict[str, list[float]], kind: str) -> float:
    """What rules are ordered by: the larger the better."""
    means = np.array([np.mean(v) for v in row.values()])
    return float(means.mean() if kind == "cosine" else -np.log(means).mean())
