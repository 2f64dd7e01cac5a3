"""The command line: `python -m braintrace demo` and `python -m braintrace compare`."""

import argparse
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m braintrace", description="Online learning with eligibility traces."
    )
    commands = parser.add_subparsers(required=True, metavar="command")

    def command(name: str, run: Callable[..., int], about: str) -> Callable[..., object]:
        """What takes the options of a new sub-command."""
        whole = about[0].upper() + about[1:] + "."
        added = commands.add_parser(name, help=about, description=whole)
        added.set_defaults(run=run)
        return added.add_argument

    about = "train a GRU and a spiking network online, and by BPTT, to tell nine speakers apart"
    option = command("demo", _demo, about)
    where = "where the figure goes (%(default)s)"
    option("--out", type=Path, default=Path("demo.png"), help=where)
    option("--seed", type=int, default=0, help="the first seed (%(default)s)")
    option("--seeds", type=_count, default=5, help="how many seeds (%(default)s)")
    short = "only the GRU, one seed, three epochs: shows that it runs"
    option("--quick", action="store_true", help=short)

    about = "every algorithm on one network: trace bytes, time per step, exactness, cosine to BPTT"
    option = command("compare", _compare, about)
    option("--cell", default="lif", help="rnn, gru, lstm, lif, alif or three_lif (%(default)s)")
    for name, default, what in (
        ("inputs", 32, "I"),
        ("neurons", 64, "N, of each layer"),
        ("outputs", 8, "O"),
        ("batch", 16, "B"),
        ("steps", 100, "T"),
    ):
        option(f"--{name}", type=_count, default=default, help=f"{what} (%(default)s)")
    options = parser.parse_args(arguments)
    return options.run(options)


def _count(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _refused(why: str) -> int:
    print(why, file=sys.stderr)
    return 2


def _compare(options: argparse.Namespace) -> int:
    from ._compare import CELLS, measure, table

    if (make := CELLS.get(options.cell)) is None:
        return _refused(f"There is no cell {options.cell!r}; the cells are {', '.join(CELLS)}.")
    model = make(options.inputs, options.neurons, options.outputs, options.batch)
    rows = measure(model, options.inputs, options.outputs, options.steps)
    title = (
        "{cell}: I={inputs}, N={neurons}, O={outputs}, B={batch}, T={steps}, float32; time of a "
        "gradient of the whole sequence, per step"
    )
    print(table(title.format_map(vars(options)), rows))
    return 0


def _demo(options: argparse.Namespace) -> int:
    packages, folder = ("matplotlib", "optax"), options.out.absolute().parent
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        needs = " and ".join(missing)
        return _refused(f"braintrace demo needs {needs}: pip install 'braintrace[demo]'")
    if not folder.is_dir():
        return _refused(f"There is no folder {folder} for the figure; name another with --out.")
    from ._demo import run

    run(options.out, seeds=range(options.seed, options.seed + options.seeds), quick=options.quick)
    return 0
