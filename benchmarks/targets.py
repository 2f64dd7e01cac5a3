"""The targets, each with the figures of a run."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from .growth import curves, exponent
from .plan import OLD_PEER, OURS, PEER, Method
from .results import ratio, seconds, value
from .work import Case, model_of, size_of

Finding = tuple[str, float | None, float, str]  # where, figure, limit, "<=" or ">="


@dataclasses.dataclass(frozen=True)
class Target:
    """What is wanted, and a function from the cases of a run (and all its data) to the figures that
    say whether it is met.
    """

    what: str
    figures: Callable[[dict[str, Any], dict[str, Any]], Iterator[Finding]]


def _key(rule: str, form: str = "window", side: str = OURS) -> str:
    return Method(side, rule, form).key


D_RTRL, ONLINE, FREE, PEERS = (
    _key("d_rtrl"),
    _key("d_rtrl", "online"),
    _key("d_rtrl", "no end trace"),
    _key("d_rtrl", "online", PEER),
)
_STATES = {
    "rnn": (1, 6),
    "gru": (1, 6),
    "lstm": (2, 9),
    "lif": (2, 9),
    "alif": (3, 10),
}  # states, and the speed-up wanted


def _at(
    cases: dict[str, Any], cell: str, neurons: int, samples: int, steps: int = 128
) -> dict[str, Any]:
    return cases.get(Case(cell, neurons, samples, steps).title, {"rows": {}})


def _times(
    cases: dict[str, Any], cell: str, neurons: int, samples: int, key: str, over: str
) -> float | None:
    found = ratio(_at(cases, cell, neurons, samples), key, over)
    return found and found[0]


def default_window(cases: dict[str, Any], _: dict[str, Any]) -> Iterator[Finding]:
    for cell, slower, faster in (("gru", 1.2, 35), ("lif", 2, 60), ("alif", 3, 100)):
        yield (
            f"{cell} 512, 32: BPTT's time ×",
            _times(cases, cell, 512, 32, D_RTRL, "bptt"),
            slower,
            "<=",
        )
        yield f"{cell} 512, 32: speed-up", _times(cases, cell, 512, 32, PEERS, D_RTRL), faster, ">="
    for cell, faster in (("gru", 18), ("lif", 40)):
        yield f"{cell} 128, 32: speed-up", _times(cases, cell, 128, 32, PEERS, D_RTRL), faster, ">="


def no_end_trace(cases: dict[str, Any], _: dict[str, Any]) -> Iterator[Finding]:
    for cell, slower in (("gru", 0.75), ("lif", 1.2)):
        yield (
            f"{cell} 512, 32: BPTT's time ×",
            _times(cases, cell, 512, 32, FREE, "bptt"),
            slower,
            "<=",
        )


def online(cases: dict[str, Any], data: dict[str, Any]) -> Iterator[Finding]:
    for cell, (_, faster) in _STATES.items():
        for neurons in (128, 512):
            yield (
                f"{cell} {neurons}, 32: speed-up",
                _times(cases, cell, neurons, 32, PEERS, ONLINE),
                faster,
                ">=",
            )
        yield f"{cell} 128, 1: speed-up", _times(cases, cell, 128, 1, PEERS, ONLINE), 1, ">="
    for neurons, kernel, slower in (
        (128, "C kernel, 4 MB trace, GB/s", 1.3),
        (512, "C kernel, 36 MB trace, GB/s", 2),
    ):
        case = _at(cases, "lif", neurons, 32)
        time, traces, most = (
            seconds(case, ONLINE),
            value(case, ONLINE, "traces"),
            data.get("limits", {}).get(kernel),
        )
        figure = time * most * 1e9 / (2 * traces) if time and traces and most else None
        yield (
            f"lif {neurons}, 32: whole step, in times of the C kernel's pass over the same trace",
            figure,
            slower,
            "<=",
        )


def factorised(cases: dict[str, Any], _: dict[str, Any]) -> Iterator[Finding]:
    for cell, rules, slower in (
        ("gru", ("pp_prop", "ottt", "ostl_feedforward"), 0.55),
        ("lif", ("pp_prop", "ottt", "otpe (approx)"), 1.0),
        ("three_lif", ("pp_prop", "ottt", "ostl_feedforward", "otpe (approx)"), 1.0),
    ):
        for rule in rules:
            for size in ((128, 32), (512, 32)):
                yield (
                    f"{cell} {size[0]}, 32, {rule}: BPTT's time ×",
                    _times(cases, cell, *size, _key(rule), "bptt"),
                    slower,
                    "<=",
                )
    for title, case in cases.items():
        for rule, side in (("pp_prop", PEER), ("ottt", OLD_PEER), ("otpe (approx)", OLD_PEER)):
            if (found := ratio(case, _key(rule, "online", side), _key(rule))) is not None:
                yield f"{title}, {rule}: speed-up", found[0], 1, ">="


def exact_layer(cases: dict[str, Any], _: dict[str, Any]) -> Iterator[Finding]:
    ours, peer = _key("ostl_recurrent"), _key("ostl_recurrent", "online", PEER)
    for cell in ("rnn", "gru", "lif"):
        case = _at(cases, cell, 128, 32)
        layer = {k: v for k, v in model_of(Case(cell, 128, 32)).params.items() if k != "o"}
        wanted, traces = 32 * 128 * size_of(layer) * _STATES[cell][0], value(case, ours, "traces")
        yield (
            f"{cell} 128, 32: bytes of traces over B·N·|θ|·S",
            traces and traces / wanted,
            1.0,
            "<=",
        )
        yield f"{cell} 128, 32: speed-up", _times(cases, cell, 128, 32, peer, ours), 10, ">="


def memory(cases: dict[str, Any], _: dict[str, Any]) -> Iterator[Finding]:
    peaks = [value(_at(cases, "gru", 128, 32, t), D_RTRL, "peak") for t in (10_000, 128)]
    yield (
        "gru 128, 32: peak at T=10,000 over T=128",
        peaks[0] and peaks[1] and peaks[0] / peaks[1],
        1.05,
        "<=",
    )
    for cell in ("gru", "lif", "alif"):
        for neurons in (128, 512):
            case = _at(cases, cell, neurons, 32)
            gradient = size_of(model_of(Case(cell, neurons, 32)).params)
            peak, traces = value(case, ONLINE, "peak"), value(case, ONLINE, "traces")
            beside = (peak - traces - gradient) / 1e6 if peak and traces is not None else None
            yield f"{cell} {neurons}, 32, online: MB beside traces and gradient", beside, 5, "<="
            peak, most = value(case, D_RTRL, "peak"), value(case, "bptt", "peak")
            yield (
                f"{cell} {neurons}, 32, default window: peak over BPTT's",
                peak and most and peak / most,
                1.0,
                "<=",
            )
    for cell in ("rnn", "gru", "lif"):
        case = _at(cases, cell, 128, 32)
        peaks = [value(case, key, "peak") for key in (_key("d_rtrl", "within BPTT"), "bptt")]
        figure = peaks[0] / peaks[1] if all(peaks) else None
        yield f"{cell} 128, 32, asked to stay within BPTT's: peak over it", figure, 1.0, "<="
    case, gradient = _at(cases, "gru", 512, 32), size_of(model_of(Case("gru", 512, 32)).params)
    peak = value(case, _key("pp_prop", "window"), "traces")
    yield "gru 512, 32, pp_prop: MB of traces", peak and peak / 1e6, 3, "<="


def first_call(cases: dict[str, Any], _: dict[str, Any]) -> Iterator[Finding]:
    for cell in ("gru", "lif"):
        for size in ((128, 32), (512, 32)):
            yield (
                f"{cell} {size[0]}, 32: seconds",
                value(_at(cases, cell, *size), D_RTRL, "first"),
                0.6,
                "<=",
            )
        for own in (_key("d_rtrl", f"{how}step in place") for how in ("", "eager ")):
            figure = _times(cases, cell, 512, 32, own, ONLINE)
            yield f"{cell} 512, 32: {own}, in times of a step of the driver's", figure, 2, "<="
        for front_end in ("", "module "):
            steps = (_key("d_rtrl", f"{front_end}eager step"), _key("d_rtrl", f"{front_end}step"))
            yield (
                f"{cell} 512, 32: {front_end}eager step over jitted",
                _times(cases, cell, 512, 32, *steps),
                2,
                "<=",
            )


def grows(_: dict[str, Any], data: dict[str, Any]) -> Iterator[Finding]:
    for panel, lines in curves(data.get("growth", {})).items():
        for line, points in lines.items():
            if line == "bptt":
                continue  # drawn for comparison
            constant = "peak" in panel
            yield f"{panel}, {line}: exponent", exponent(points), 0.05 if constant else 1.15, "<="


TARGETS = (
    Target("`etrace_grad` with D-RTRL, default window", default_window),
    Target("the same as one window, no end trace needed", no_end_trace),
    Target("one update per step (online)", online),
    Target("factorised rules", factorised),
    Target("exact within a layer (`ostl_recurrent`)", exact_layer),
    Target("memory", memory),
    Target("first call (trace and compile); eager step", first_call),
    Target("cost against size", grows),
)
