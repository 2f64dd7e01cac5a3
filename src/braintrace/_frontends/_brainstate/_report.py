"""The compiler's statement about each parameter, as a table."""

from ..._analysis import CellGraph
from ..._parts import Rule


def report(rule: Rule, graph: CellGraph) -> str:
    """A row for each parameter, then a row for each dropped path."""
    rows = [("parameter", "shape", "gradient", "sites", "why")]
    rows += [(r.path, str(r.shape), str(r.exactness), str(len(r.sites)), r.reason) for r in graph.parameters]
    widths = [max(len(row[k]) for row in rows) for k in range(4)]
    lines = [rule.name]
    lines += ["  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[4]]).rstrip() for row in rows]
    dropped = dict.fromkeys(path for r in graph.parameters for path in r.dropped)
    if dropped:
        lines.append("dropped paths:")
        lines += [f"  {p.kind}: {p.operation}" + (f"  {p.source}" if p.source else "") for p in dropped]
    return "\n".join(lines)
