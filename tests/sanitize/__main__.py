"""`python -m sanitize`: the trace kernel, as for any processor and as for this one."""

import sys
import tempfile
from pathlib import Path

from ._calls import compiled, missing, run


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if reason := missing(folder):
            print(reason)
            return 2
        for more in ((), ("-march=native",)):
            program = compiled(folder, *more)
            done = run(program)
            print(" ".join(("gcc", *more)) + f": {done.stdout}{done.stderr}", end="", flush=True)
            if done.returncode or not run(program, "short").returncode:
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
