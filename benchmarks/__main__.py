"""The command line: `python -m benchmarks`."""

import json
import sys
from pathlib import Path

from . import growth, plan, plots
from .command import parser
from .results import Results
from .run import run
from .table import report

_README = Path(__file__).with_name("README.md")
_BEGIN, _END = "<!-- results: begin -->", "<!-- results: end -->"


def main() -> int:
    """Measure, then write the table (Markdown), the data (JSON) and the plots."""
    wanted = parser(
        "benchmarks", "Measure this project, BPTT and the PyPI package braintrace on the same work."
    )
    wanted.add_argument(
        "--no-peer", action="store_true", help="without the PyPI package braintrace"
    )
    wanted.add_argument(
        "--resume", action="store_true", help="go on with a run that was interrupted"
    )
    options = wanted.parse_args()
    name = "tiny" if options.tiny else "short" if options.short else "full"
    works = {"tiny": plan.tiny, "short": plan.short, "full": plan.full}[name]()
    works = plan.alone(works) if options.no_peer else works
    agreements = plan.agreements(neurons=8, samples=2) if name == "tiny" else plan.agreements()
    results = Results(options.folder.absolute(), name, options.resume)
    growing = growth.works() if name == "full" else []
    run(works, agreements, growing, results, rounds=options.rounds, minutes=options.minutes)
    text = report(results.data)
    results.file.with_suffix(".md").write_text(text)
    where = _README.parent if name == "full" else results.folder
    plots.ratios(results.cases, where / ("ratios.png" if name == "full" else f"{name}.png"))
    if name == "full":
        plots.growth(results.data["growth"], where / "growth.png")
        before, _, rest = _README.read_text().partition(_BEGIN)
        after = rest.partition(_END)[2]
        _README.write_text(f"{before}{_BEGIN}\n\n{text}\n{_END}{after}")
        _README.with_name("results.json").write_text(json.dumps(results.data))
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
