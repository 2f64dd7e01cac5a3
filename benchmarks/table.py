"""Results as Markdown."""

from typing import Any

from .results import ratio, seconds, value
from .targets import TARGETS
from .work import Case, products_of


def report(data: dict[str, Any]) -> str:
    """Everything: machine, limits, targets, agreement, and a table for each case."""
    parts = [about(data), _limits(data), _targets(data), _agreements(data)]
    parts += [_case(title, case, data.get("limits", {})) for title, case in data["cases"].items()]
    return "\n\n".join(p for p in parts if p) + "\n"


def rows(head: tuple[str, ...], lines: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    escaped = [tuple(cell.replace("|", "\\|") for cell in line) for line in lines]
    return "\n".join(
        "| " + " | ".join(line) + " |" for line in (head, ("---",) * len(head), *escaped)
    )


def about(data: dict[str, Any]) -> str:
    """Machine and versions."""
    lines = []
    for part in data.get("about", []):
        lines.append(
            f"{part['date']}, commit {part['commit']}: {part['machine']}, {part['cores']} "
            f"cores, load {part['load']:.1f} at"
            f" the start; {part['system']}."
        )
        for side, versions in part["versions"].items():
            lines.append(f"* {side}: " + ", ".join(f"{k} {v}" for k, v in versions.items()))
        lines += [f"* peer {side}: {reason}" for side, reason in part["missing"].items()]
    return "\n".join(lines)


def _limits(data: dict[str, Any]) -> str:
    found = {k: v for k, v in data.get("limits", {}).items() if not isinstance(v, str)}
    lines = [
        (name, "not measured" if figure is None else f"{figure:.0f}")
        for name, figure in found.items()
    ]
    return "### Limits of the machine\n\n" + rows(("what", "measured"), lines) if lines else ""


def _targets(data: dict[str, Any]) -> str:
    lines = []
    for target in TARGETS:
        for where, figure, limit, relation in target.figures(data["cases"], data):
            if figure is None:
                continue
            met = figure <= limit if relation == "<=" else figure >= limit
            lines.append(
                (
                    target.what,
                    where,
                    f"{figure:.3g}",
                    f"{'≤' if relation == '<=' else '≥'} {limit:g}",
                    "met" if met else "**missed**",
                )
            )
    return (
        "### Targets\n\n" + rows(("target", "figure", "measured", "wanted", ""), lines)
        if lines
        else ""
    )


def _agreements(data: dict[str, Any]) -> str:
    lines = []
    for a in data.get("agreements", []):
        found = a.get("differences")
        figure = (
            a["error"]
            if found is None
            else ", ".join(f"{name} {d:.1e}" for name, d in found.items())
        )
        verdict = "" if found is None else "agree" if max(found.values()) <= 1e-4 else "**differ**"
        lines.append((a["case"], a["ours"], a["peer"], figure, verdict, a["note"]))
    head = ("case", "ours", "peer", "relative difference of the gradients", "within 1e-4", "note")
    return "### Where both define the same rule\n\n" + rows(head, lines) if lines else ""


def _case(title: str, case: dict[str, Any], limits: dict[str, Any]) -> str:
    lines = [_row(case, key, row, limits) for key, row in case["rows"].items()]
    head = (
        "method",
        "time/step",
        "BPTT ×",
        "quartiles",
        "speed-up",
        "peak",
        "traces",
        "first call",
        "products",
        "memory",
        "T timed",
    )
    return f"### {title}\n\n" + rows(head, lines)


def _row(
    case: dict[str, Any], key: str, row: dict[str, Any], limits: dict[str, Any]
) -> tuple[str, ...]:
    if "error" in row:
        return (key, row["error"][:160], *[""] * 9)
    time, over, rival = seconds(case, key), ratio(case, key, "bptt"), case["rivals"].get(key, "")
    faster = ratio(case, rival, key) if rival else None
    products, most = products_of(Case(**case["case"])), limits.get("sgemm GFLOP/s")
    traces, bandwidth = value(case, key, "traces"), limits.get("in place, 256 MB, GB/s")
    share = f"{products / time / most / 1e9:.0%}" if time and most else ""
    online = "online" in key and traces and time and bandwidth
    return (
        key,
        duration(time),
        f"{over[0]:.2f}" if over else "",
        f"{over[1]:.2f}-{over[2]:.2f}" if over else "",
        f"{faster[0]:.1f}" if faster else "",
        size(row["peak"]),
        size(traces),
        f"{row['first']:.2f} s",
        share,
        f"{2 * traces / time / bandwidth / 1e9:.0%}" if online else "",
        f"{row['steps']:,}",
    )


def duration(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value * 1e3:.2f} ms" if value >= 1e-3 else f"{value * 1e6:.0f} µs"


def size(count: int | None) -> str:
    if count is None:
        return ""
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
