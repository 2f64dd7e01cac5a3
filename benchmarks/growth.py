"""How cost grows: with the length of the sequence, with the size of the traces, with the size of
the factors.
"""

from typing import Any

import numpy as np

from .plan import BPTT, OURS, Method, Work
from .results import seconds, value
from .work import INPUTS, Case

WINDOW, ONLINE, FACTORED = (
    Method(OURS, "d_rtrl"),
    Method(OURS, "d_rtrl", "online"),
    Method(OURS, "pp_prop"),
)
_LENGTHS = (10, 100, 1_000, 10_000)
_SIZES = ((8, 1), (16, 2), (32, 4), (64, 8), (64, 32), (128, 32), (256, 32), (512, 32))


def works() -> list[Work]:
    """A GRU of four decades of steps, and of more than three decades of B·I·O."""
    lengths = [
        Work(Case("gru", 32, 4, steps), (BPTT, WINDOW, ONLINE, FACTORED), 8.0) for steps in _LENGTHS
    ]
    return lengths + [Work(Case("gru", *size, 32), (ONLINE, FACTORED)) for size in _SIZES]


def curves(cases: dict[str, Any]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """For each panel, its lines: (x, y), ascending."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}

    def add(panel: str, line: str, x: float, y: float | None) -> None:
        if y is not None:
            found.setdefault(panel, {}).setdefault(line, []).append((x, y))

    for held in cases.values():
        case = Case(**held["case"])
        if case.steps != 32:
            for method in (BPTT, WINDOW, ONLINE, FACTORED):
                per_step = seconds(held, method.key)
                add(
                    "seconds of a sequence against T",
                    method.key,
                    case.steps,
                    per_step and per_step * case.steps,
                )
                add("peak bytes against T", method.key, case.steps, value(held, method.key, "peak"))
        else:
            outputs = 3 * case.neurons  # a GRU's gates
            products = case.samples * (INPUTS + case.neurons) * outputs
            add(
                "D-RTRL, seconds per step against B·I·O·S",
                ONLINE.key,
                products,
                seconds(held, ONLINE.key),
            )
            add(
                "D-RTRL, bytes of traces against B·I·O·S",
                ONLINE.key,
                products,
                value(held, ONLINE.key, "traces"),
            )
            factors = case.samples * (
                INPUTS + case.neurons + 2 * outputs
            )  # both products feed every gate
            add(
                "factorised, bytes of traces against B(I+O)",
                FACTORED.key,
                factors,
                value(held, FACTORED.key, "traces"),
            )
    return {
        panel: {line: sorted(points) for line, points in lines.items()}
        for panel, lines in found.items()
    }


def exponent(points: list[tuple[float, float]], last: int = 3) -> float | None:
    """The slope of the last points in logarithms: 1 is linear, 0 constant. Smaller sizes are ruled
    by fixed costs.
    """
    if len(points) < 2:
        return None
    x, y = np.log(np.array(points[-last:])).T
    return float(np.polyfit(x, y, 1)[0])
