"""A learner that the user maps over a batch: `python -m benchmarks.mapped`. Its table goes into
README.md, and its data beside it.
"""

import json
import sys
from pathlib import Path
from typing import Any

from . import plan
from .command import parser
from .results import Results, ratio, seconds, value
from .run import run
from .table import about, duration, rows, size

_README = Path(__file__).with_name("README.md")
_BEGIN, _END = "<!-- mapped: begin -->", "<!-- mapped: end -->"


def main() -> int:
    """Measure; the table also goes to standard output."""
    wanted = parser("benchmarks.mapped", "Measure a learner under the user's vmap.")
    wanted.add_argument("--no-peer", action="store_true", help="without the PyPI package")
    options = wanted.parse_args()
    works = plan.mapped(tiny=options.tiny)
    works = plan.alone(works) if options.no_peer else works
    results = Results(options.folder.absolute(), "mapped", resume=False)
    run(works, [], [], results, rounds=options.rounds, minutes=options.minutes)
    text = report(results.data)
    print(text)
    if not options.tiny and not options.no_peer:
        before, _, rest = _README.read_text().partition(_BEGIN)
        after = rest.partition(_END)[2]
        _README.write_text(f"{before}{_BEGIN}\n\n{text}\n\n{_END}{after}")
        _README.with_name("mapped.json").write_text(json.dumps(results.data))
    return 0


def report(data: dict[str, Any]) -> str:
    """One table of all cases, with ratios of times of the same round."""
    head = ("case", "method", "time/step", "batch_size= ×", "quartiles", "0.2.6 ×", "peak")
    lines = [
        (title, *_line(case, key)) for title, case in data["cases"].items() for key in case["rows"]
    ]
    return f"{about(data)}\n\n{rows((*head, 'traces', 'first call'), lines)}"


def _line(case: dict[str, Any], key: str) -> tuple[str, ...]:
    row = case["rows"][key]
    if "error" in row:
        return (key, row["error"][:160], *[""] * 6)
    over, peer = ratio(case, key, plan.BATCHED.key), ratio(case, key, plan.PEER_MAPPED.key)
    return (
        key,
        duration(seconds(case, key)),
        f"{over[0]:.2f}" if over else "",
        f"{over[1]:.2f}-{over[2]:.2f}" if over else "",
        f"{peer[0]:.2f}" if peer else "",
        size(row["peak"]),
        size(value(case, key, "traces")),
        f"{row['first']:.2f} s",
    )


if __name__ == "__main__":
    sys.exit(main())
