"""A process that compiles and times programs of one side: one JSON request a line in, one JSON
reply a line out.

python -m benchmarks.worker ours|peer

{"do": "prepare", "key": ..., "case": {...}, "rule": ..., "form": ..., "seconds": 1.0}
    -> first, peak, traces, steps, warm
{"do": "repeat", "key": ...}
    -> seconds
{"do": "gradients", "case": {...}, "rule": ..., "form": ..., "file": ..., "runs": 1}
    -> writes an .npz file
{"do": "forget"}    {"do": "limits"}    {"do": "versions"}    {"do": "smoke"}
"""

import importlib.metadata
import json
import os
import platform
import sys
import warnings
from typing import Any

import jax
import numpy as np

from .limits import limits
from .subject import Subject, subject
from .work import Case

_PACKAGES = ("braintrace", "jax", "jaxlib", "brainstate", "numpy")


class Worker:
    """Holds the compiled programs of one case."""

    def __init__(self, side: Any):
        self.side = side
        self.held: dict[str, Subject] = {}

    def prepare(
        self, key: str, case: dict[str, Any], rule: str, form: str, seconds: float
    ) -> dict[str, Any]:
        """Compile for all steps of the case, where a repetition then takes at most `seconds`; else
        for fewer.

        Only what works step by step, and would be long about it, is timed on fewer steps.
        """
        given = Case(**case)
        counts = _lengths(given.steps, rule, form)
        steps = counts[0]
        found = subject(lambda: self.side.program(given, rule, steps, form))
        first, warm = found.first, found.seconds() / steps
        longest = max(n for n in counts if n == steps or warm * n <= seconds)
        if longest > steps:
            steps = longest
            found = subject(lambda: self.side.program(given, rule, steps, form))
            warm = found.seconds() / steps
        if not all(np.isfinite(v).all() for v in found.gradients().values()):
            raise FloatingPointError("the gradient is not finite")
        self.held[key] = found
        return {
            "first": first,
            "peak": found.peak,
            "traces": found.program.traces,
            "steps": steps,
            "warm": warm,
        }

    def repeat(self, key: str) -> dict[str, Any]:
        return {"seconds": self.held[key].seconds()}

    def gradients(
        self, case: dict[str, Any], rule: str, form: str, file: str, runs: int
    ) -> dict[str, Any]:
        given = Case(**case)
        found = subject(lambda: self.side.program(given, rule, given.steps, form))
        for _ in range(runs - 1):
            found.run()
        np.savez(file, **found.gradients())
        return {}

    def forget(self) -> dict[str, Any]:
        self.held.clear()
        return {}

    def limits(self) -> dict[str, Any]:
        return limits()

    def smoke(self) -> dict[str, Any]:
        from .smoke import smoke  # of this project alone

        return {"rows": smoke()}

    def versions(self) -> dict[str, Any]:
        packages = {name: importlib.metadata.version(name) for name in _PACKAGES}
        return {
            "python": platform.python_version(),
            **packages,
            "device": jax.devices()[0].device_kind,
            "platform": jax.default_backend(),
        }


def _lengths(steps: int, rule: str, form: str) -> list[int]:
    """The numbers of steps that may be timed, the fewest first."""
    if "step" in form:
        return [1]
    if form.startswith("window "):
        unit = int(form.split()[1])
        return sorted({unit, max(steps - steps % unit, unit)})
    if rule == "ostl_recurrent" and form == "online":
        return sorted({min(4, steps), steps})
    return sorted({min(8, steps), min(32, steps), steps}) if form == "online" else [steps]


def main() -> None:
    """Serve until standard input ends. What the libraries print goes to standard error."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    if sys.argv[1] == "ours":
        from . import ours as side
    else:
        from . import peer as side
    side.warm_up()
    worker = Worker(side)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = getattr(worker, request.pop("do"))(**request)
        except Exception as error:  # the case is then shown with this text, and the rest goes on
            reply = {
                "error": (
                    f"{type(error).__name__}: "
                    f"{str(error).strip().splitlines()[0] if str(error) else ''}"
                )
            }
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
