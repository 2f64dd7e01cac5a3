"""The same table of this project against BPTT, on whatever accelerator JAX finds: `python -m
benchmarks.accelerator`.
"""

import sys
from pathlib import Path

from . import plan, plots
from .command import parser
from .process import Process
from .results import Results
from .run import run
from .table import report


def main() -> int:
    """Measure on the first device; the table goes to standard output, table and data to the
    folder.
    """
    wanted = parser(
        "benchmarks.accelerator", "Measure this project and BPTT on the accelerator that JAX finds."
    )
    wanted.add_argument("--cpu", action="store_true", help="run although there is no accelerator")
    options = wanted.parse_args()
    folder = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    # Asked in a process of its own: JAX would reserve most of a GPU's memory for this one.
    process = Process(Path(sys.executable), "ours", folder / "worker-ours.log")
    device = process.ask("versions")
    process.close()
    if "error" in device:
        print(f"JAX does not start: {device['error']}", file=sys.stderr)
        return 1
    if device["platform"] == "cpu" and not options.cpu:
        print(
            "JAX finds no accelerator here, only a CPU. Install JAX for yours (pip install "
            "'jax[cuda13]', say), or pass --cpu to"
            " try the script without one; the CPU's own table is made by `make bench`.",
            file=sys.stderr,
        )
        return 2
    works = plan.tiny() if options.tiny else plan.short() if options.short else plan.full()
    results = Results(folder, f"accelerator-{device['platform']}", resume=False)
    run(plan.alone(works), [], [], results, rounds=options.rounds, minutes=options.minutes)
    text = report(results.data)
    results.file.with_suffix(".md").write_text(text)
    plots.ratios(results.cases, results.file.with_suffix(".png"))
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
