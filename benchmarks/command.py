"""The options that both command lines share."""

import argparse
from pathlib import Path

from .process import ROOT


def parser(module: str, about: str) -> argparse.ArgumentParser:
    """A parser with the size of the run and where its results go."""
    made = argparse.ArgumentParser(prog=f"python -m {module}", description=about)
    made.add_argument(
        "--short", action="store_true", help="two cells at two sizes, under 3 minutes"
    )
    made.add_argument("--tiny", action="store_true", help="only shows that it runs")
    made.add_argument(
        "--rounds", type=int, default=7, help="repetitions of each method, in turn (%(default)s)"
    )
    made.add_argument(
        "--minutes", type=float, default=18, help="then no further case is begun (%(default)s)"
    )
    made.add_argument(
        "--folder",
        type=Path,
        default=ROOT / ".bench",
        help="for environments and results (%(default)s)",
    )
    return made
