"""The command line: `python -m benchmarks`."""

import argparse
import sys
from pathlib import Path

from . import growth, plan, plots
from .process import ROOT
from .results import Results
from .run import run
from .table import report

_README = Path(__file__).with_name("README.md")
_BEGIN, _END = "<!-- results: begin -->", "<!-- results: end -->"


def main() -> int:
    """Measure, then write the table (Markdown), the data (JSON) and the plots."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--short", action="store_true", help="two cells at two sizes, under 3 minutes")
    parser.add_argument("--tiny", action="store_true", help="only shows that it runs")
    parser.add_argument("--no-peer", action="store_true", help="without the PyPI package braintrace")
    parser.add_argument("--rounds", type=int, default=7, help="repetitions of each method, in turn (%(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on with a run that was interrupted")
    parser.add_argument("--folder", type=Path, default=ROOT / ".bench", help="for environments and results (%(default)s)")
    options = parser.parse_args()
    name = "tiny" if options.tiny else "short" if options.short else "full"
    works = {"tiny": plan.tiny, "short": plan.short, "full": plan.full}[name]()
    works = plan.alone(works) if options.no_peer else works
    agreements = plan.agreements(neurons=8, lanes=2) if name == "tiny" else plan.agreements()
    results = Results(options.folder.absolute(), name, options.resume)
    growing = growth.works() if name == "full" else []
    run(works, agreements, growing, results, peers=not options.no_peer, rounds=options.rounds)
    text = report(results.data)
    results.file.with_suffix(".md").write_text(text)
    where = _README.parent if name == "full" else results.folder
    plots.ratios(results.cases, where / ("ratios.png" if name == "full" else f"{name}.png"))
    if name == "full":
        plots.growth(results.data["growth"], where / "growth.png")
        before, _, rest = _README.read_text().partition(_BEGIN)
        after = rest.partition(_END)[2]
        _README.write_text(f"{before}{_BEGIN}\n\n{text}\n{_END}{after}")
        results.file.with_name("results.json").write_text(results.file.read_text())
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
