"""What the compiler states about a cell, as plain rows and as a table for people."""

import dataclasses
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import jax
from jaxtyping import PyTree

if TYPE_CHECKING:
    from ._graph import CellGraph, DroppedPath, Exactness, Site, StateGroup


class Carrier(Protocol):
    """What keeps the traces, as far as the report asks it."""

    def init(self, graph: "CellGraph") -> PyTree[jax.Array]: ...

    def of_site(self, traces: PyTree[jax.Array], site: int) -> PyTree[jax.Array]: ...


@dataclasses.dataclass(frozen=True)
class SiteReport:
    """A site of a parameter: the operation, its source line, the groups that it feeds, and the cost
    of its trace.
    """

    operation: str
    source: str
    groups: tuple[int, ...]
    slots: int  # traces of `shape`, over all groups
    shape: tuple[int, ...]  # of y, with the contraction index
    trace_bytes: int | None  # of a carrier; None when none was given


@dataclasses.dataclass(frozen=True)
class ParameterReport:
    """A parameter: its certificate, why, and its sites."""

    path: str
    shape: tuple[int, ...]
    exactness: "Exactness"
    reason: str
    sites: tuple[SiteReport, ...]


def parameter_reports(graph: "CellGraph", carrier: Carrier | None = None) -> list[ParameterReport]:
    """One for each parameter; with `carrier`, the bytes of its traces. A shared site is listed at
    each parameter.
    """
    cost = [None] * len(graph.sites) if carrier is None else trace_bytes(graph, carrier)
    sites = [_site(s, n) for s, n in zip(graph.sites, cost, strict=True)]
    return [
        ParameterReport(r.path, r.shape, r.exactness, r.reason, tuple(sites[n] for n in r.sites))
        for r in graph.parameters
    ]


def trace_bytes(graph: "CellGraph", carrier: Carrier) -> list[int]:
    """For each site, the bytes of the traces that `carrier` keeps for it."""
    traces = jax.eval_shape(lambda: carrier.init(graph))
    return [
        sum(v.size * v.dtype.itemsize for v in jax.tree.leaves(carrier.of_site(traces, n)))
        for n in range(len(graph.sites))
    ]


def table(graph: "CellGraph", carrier: Carrier | None = None, title: str = "Cell") -> str:
    """The report as text: a summary, the state groups, a row for each parameter, its sites, and the
    dropped paths.
    """
    reports = parameter_reports(graph, carrier)
    kinds = [str(r.exactness) for r in reports]
    counts = ", ".join(f"{kinds.count(k)} {k}" for k in dict.fromkeys(kinds))
    parts = [f"{title}: {_count(len(reports), 'parameter')}" + (f" ({counts})" if counts else "")]
    parts[0] += f", {_count(len(graph.groups), 'state group')}, {_count(len(graph.sites), 'site')}"
    if carrier is not None:
        parts[0] += f", traces of {size(sum(trace_bytes(graph, carrier)))}"
    if graph.groups:
        heads = ("group", "positions", "slots", "leaves")
        rows = [
            (
                str(n),
                _positions(g),
                str(len(g.slots)),
                " ".join(graph.leaf_paths[k] for k in g.leaves),
            )
            for n, g in enumerate(graph.groups)
        ]
        parts.append("\n".join(columns([heads, *rows])))
    rows: list[Sequence[str]] = [("parameter", "shape", "gradient", "group", "trace", "why")]
    notes = [""]
    for r in reports:
        start, why = (r.path, dims(r.shape), str(r.exactness)), r.reason
        for site in r.sites or (None,):
            rows.append((*start, *_trace(site), why))
            notes.append("" if site is None else f"{site.operation} {short(site.source)}".rstrip())
            start, why = ("", "", ""), ""
    lines = zip(columns(rows), notes, strict=True)
    parts.append("\n".join(line + (note and f"\n    {note}") for line, note in lines))
    dropped: dict[DroppedPath, list[str]] = {}
    for r in graph.parameters:
        for path in r.dropped:
            dropped.setdefault(path, []).append(r.path)
    if dropped:
        rows = [("dropped path", "operation", "at", "parameters")]
        rows += [
            (p.kind, p.operation, short(p.source), _some(names)) for p, names in dropped.items()
        ]
        parts.append("\n".join(columns(rows)))
    warned: dict[str, list[str]] = {}
    for r in graph.parameters:
        for warning in r.warnings:
            warned.setdefault(warning, []).append(r.path)
    parts += [f"WARNING: {_some(names)}: {warning}" for warning, names in warned.items()]
    return "\n\n".join(parts)


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows with their columns aligned."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def short(source: str) -> str:
    """A source line without the directories above the file."""
    path, colon, rest = source.rpartition(":")
    return os.path.basename(path) + colon + rest


def size(count: int) -> str:
    """A number of bytes for people."""
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"


def dims(shape: Sequence[int]) -> str:
    return str(tuple(shape)).replace(" ", "")


def _site(site: "Site", cost: int | None) -> SiteReport:
    operation = site.equation.name if site.is_operation else f"operand of {site.equation.name}"
    groups = tuple(p.group for p in site.places)
    slots = sum(len(p.slots) for p in site.places)
    return SiteReport(operation, site.equation.source, groups, slots, site.trace_shape, cost)


def _trace(site: SiteReport | None) -> tuple[str, str]:
    if site is None:
        return "-", "-"
    cost = "" if site.trace_bytes is None else f" {size(site.trace_bytes)}"
    return ",".join(map(str, site.groups)) or "-", f"{site.slots} x {dims(site.shape)}{cost}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _positions(group: "StateGroup") -> str:
    sizes = [str(n) for n in group.shape if n != 1]  # the axis of the samples has size 1
    return f"{group.positions} = {' x '.join(sizes)}" if len(sizes) > 1 else str(group.positions)


def _some(names: Sequence[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return " ".join(names[:most]) + more
