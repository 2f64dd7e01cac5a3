"""The command line: `python -m braintrace demo` and `python -m braintrace compare`."""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m braintrace", description="Online learning with eligibility traces."
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_demo(commands)
    _add_compare(commands)
    options = parser.parse_args(arguments)
    return options.run(options)


def _add_demo(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    about = "train a GRU and a spiking network online, and by BPTT, to tell nine speakers apart"
    demo = commands.add_parser("demo", help=about, description=about[0].upper() + about[1:] + ".")
    demo.add_argument(
        "--out", type=Path, default=Path("demo.png"), help="where the figure goes (%(default)s)"
    )
    demo.add_argument("--seed", type=int, default=0, help="the first seed (%(default)s)")
    demo.add_argument("--seeds", type=_count, default=5, help="how many seeds (%(default)s)")
    demo.add_argument(
        "--quick",
        action="store_true",
        help="only the GRU, one seed, three epochs: shows that it runs",
    )
    demo.set_defaults(run=_demo)


def _add_compare(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    about = "every algorithm on one network: trace bytes, time per step, exactness, cosine to BPTT"
    compare = commands.add_parser(
        "compare", help=about, description=about[0].upper() + about[1:] + "."
    )
    compare.add_argument(
        "--cell", default="lif", help="rnn, gru, lstm, lif, alif or three_lif (%(default)s)"
    )
    for name, default, what in (
        ("inputs", 32, "I"),
        ("neurons", 64, "N, of each layer"),
        ("outputs", 8, "O"),
        ("batch", 16, "B"),
        ("steps", 100, "T"),
    ):
        compare.add_argument(
            f"--{name}", type=_count, default=default, help=f"{what} (%(default)s)"
        )
    compare.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> int:
    from ._compare import CELLS, measure, table

    if (make := CELLS.get(options.cell)) is None:
        print(
            f"There is no cell {options.cell!r}; the cells are {', '.join(CELLS)}.", file=sys.stderr
        )
        return 2
    model = make(options.inputs, options.neurons, options.outputs, options.batch)
    sizes = (
        f"I={options.inputs}, N={options.neurons}, O={options.outputs}, B={options.batch}, "
        f"T={options.steps}"
    )
    rows = measure(model, options.inputs, options.outputs, options.steps)
    print(
        table(
            f"{options.cell}: {sizes}, float32; time of a gradient of the whole sequence, per step",
            rows,
        )
    )
    return 0


def _count(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _demo(options: argparse.Namespace) -> int:
    if not _installed("demo", "matplotlib", "optax"):
        return 2
    if not options.out.absolute().parent.is_dir():
        print(
            f"There is no folder {options.out.absolute().parent} for the figure; name another "
            "with --out.",
            file=sys.stderr,
        )
        return 2
    from ._demo import run

    run(options.out, seeds=range(options.seed, options.seed + options.seeds), quick=options.quick)
    return 0


def _installed(command: str, *packages: str) -> bool:
    """Whether the optional packages of a command are there; says what to install where they are
    not.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"braintrace {command} needs {' and '.join(missing)}: pip install "
            f"'braintrace[{command}]'",
            file=sys.stderr,
        )
    return not missing
