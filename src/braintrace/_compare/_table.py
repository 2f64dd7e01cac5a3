"""The comparison as a table that a person can read."""

from collections.abc import Sequence

from ..core.analysis import columns, size
from ._measure import Row

_WHERE = {
    "BPTT": ("O(T B N)", "all paths"),
    "d_rtrl": ("O(B |W|)", "own-neuron paths"),
    "pp_prop": ("O(B (I + O))", "smoothed own-neuron paths"),
    "eprop": ("O(B |W|)", "own-neuron paths, readout filter"),
    "ostl_recurrent": ("O(B N |W|)", "all paths within a layer"),
    "ostl_feedforward": ("O(B |W|)", "own-neuron paths"),
    "otpe": ("O(B |W|)", "one layer further up"),
    "otpe (approx)": ("O(B (I + O))", "one layer further up, estimated"),
    "ottt": ("O(B I)", "a constant leak"),
    "osttp": ("O(B |W|)", "projected target, no error from above"),
    "rflo": ("O(B |W|)", "own-neuron paths, random feedback"),
}


def table(title: str, rows: Sequence[Row]) -> str:
    """Title and rows, aligned."""
    head = ("algorithm", "traces", "planned", "allocated", "time/step", "exact", "cosine", "keeps")
    lines: list[tuple[str, ...]] = [head]
    for r in rows:
        grows, keeps = _WHERE.get(r.name, ("", ""))
        of_traces = (size(n) if n else "-" for n in (r.planned, r.allocated))
        time = f"{r.step * 1e3:.2f} ms" if r.step >= 1e-3 else f"{r.step * 1e6:.0f} us"
        time = "-" if r.step != r.step else time
        exact = f"{r.exact[0]}/{r.exact[1]}" if r.exact[1] else "-"
        cosine = "-" if r.cosine != r.cosine else f"{r.cosine:+.4f}"
        lines.append((r.name, grows, *of_traces, time, exact, cosine, r.note or keeps))
    shown = columns(lines)
    rule = "-" * min(max(map(len, shown)), 118)
    return "\n".join([title, rule, shown[0], rule, *shown[1:]])
