"""What is measured: methods for each case, in a full, a short and a tiny plan."""

import dataclasses

from .work import Case

OURS, PEER, OLD_PEER = (
    "ours",
    "0.2.6",
    "0.2.4",
)  # braintrace's versions on PyPI; the last has OTTT, OTPE and OSTTP


@dataclasses.dataclass(frozen=True)
class Method:
    """A rule in a form on a side. `rival` is the key of what the speed-up is taken over."""

    side: str
    rule: str
    form: str = "window"
    rival: str = ""

    @property
    def key(self) -> str:
        who = "" if self.side == OURS else f"peer {self.side}: "
        return who + self.rule + ("" if self.form == "window" else f", {self.form}")


@dataclasses.dataclass(frozen=True)
class Work:
    """A case with its methods. `seconds`: the most that one repetition may take, else fewer steps
    are timed.
    """

    case: Case
    methods: tuple[Method, ...]
    seconds: float = 0.4


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Gradients of the parameters `names` on both sides, of the last of `runs` sequences; `note`
    says what is known of them.
    """

    case: Case
    ours: Method
    peer: Method
    names: tuple[str, ...]
    runs: int = 1
    note: str = ""


BPTT = Method(OURS, "bptt")
_PEER_D_RTRL = Method(PEER, "d_rtrl", "online")


def _ours(rule: str, form: str = "window", rival: Method | None = None) -> Method:
    return Method(OURS, rule, form, rival.key if rival else "")


def _pair(rule: str, side: str = PEER) -> tuple[Method, Method]:
    theirs = Method(side, rule, "online")
    return _ours(rule, rival=theirs), theirs


CORE = (
    BPTT,
    *(_ours("d_rtrl", form, _PEER_D_RTRL) for form in ("window", "no end trace", "online")),
    _PEER_D_RTRL,
    *_pair("pp_prop"),
)
_WINDOWED = Method(PEER, "d_rtrl", "window 20")
_PEER_OSTL = Method(PEER, "ostl_recurrent", "online")
_EXACT = (
    *(_ours("ostl_recurrent", form, _PEER_OSTL) for form in ("window", "no end trace")),
    _PEER_OSTL,
)
_FORMS = {
    OURS: (
        "step",
        "eager step",
        "step in place",
        "eager step in place",
        "module step",
        "module eager step",
    ),
    PEER: ("step", "eager step"),
}
_STEPS = (
    _ours("d_rtrl", "module", _PEER_D_RTRL),
    *(Method(side, "d_rtrl", form) for side, forms in _FORMS.items() for form in forms),
)
MORE: dict[str, tuple[Method, ...]] = {
    "rnn": (),
    "gru": (_WINDOWED, _ours("ottt"), _ours("ostl_feedforward", rival=_PEER_D_RTRL)),
    "lstm": (),
    "lif": (_WINDOWED, *_pair("eprop"), _ours("ottt"), _ours("otpe (approx)")),
    "alif": (_WINDOWED,),
    "three_lif": (
        _ours("ostl_feedforward", rival=_PEER_D_RTRL),
        *(m for rule in ("ottt", "otpe", "otpe (approx)", "osttp") for m in _pair(rule, OLD_PEER)),
    ),
}
LONG = (BPTT, _ours("d_rtrl"), *_pair("pp_prop"))


def full() -> list[Work]:
    """Every cell at every size, a wide layer, and a long sequence; what the targets speak of
    first. Only at 128 neurons and 32 samples the traces of D-RTRL leave room within BPTT's memory.
    """
    works = []
    for neurons, samples in ((512, 32), (128, 32), (128, 1), (512, 1)):
        for cell, more in MORE.items():
            fits = neurons == 128 and samples == 32 and cell in ("rnn", "gru", "lif")
            within = (_ours("d_rtrl", "within BPTT"),) if fits else ()
            exact = _EXACT if neurons == 128 and cell in ("rnn", "gru", "lif") else ()
            steps = _STEPS if (neurons, samples) == (512, 32) and cell in ("gru", "lif") else ()
            works.append(
                Work(Case(cell, neurons, samples), (*CORE, *more, *within, *exact, *steps))
            )
    return [
        *works,
        Work(Case("gru", 128, 32, 10_000), LONG, 4.0),
        Work(Case("gru", 1024, 32), CORE),
    ]


def short() -> list[Work]:
    """The two cells that the targets speak of most, at two sizes."""
    return [
        Work(Case(cell, *size), CORE, 0.3)
        for size in ((128, 32), (512, 32))
        for cell in ("gru", "lif")
    ]


def accelerator(tiny: bool = False) -> list[Work]:
    """Two cells over three sizes and three batches, what says most first; without the peer."""
    if tiny:
        return alone([Work(Case("lif", 8, 2, 8), CORE, 0.1)])
    sizes = [(n, b) for b in (32, 256, 1) for n in (512, 128, 2048)]
    sizes.sort(key=lambda size: size[0] == 2048)  # the largest take longest
    works = [Work(Case(cell, *size), CORE, 0.3) for size in sizes for cell in ("gru", "lif")]
    return alone(works)


def alone(works: list[Work]) -> list[Work]:
    """Without the peer."""
    return [
        dataclasses.replace(w, methods=tuple(m for m in w.methods if m.side == OURS)) for w in works
    ]


BATCHED, PEER_MAPPED = _ours("d_rtrl", "batch_size"), Method(PEER, "d_rtrl", "mapped")


def mapped(tiny: bool = False) -> list[Work]:
    """Weights of 400 x 100 and 800 x 300, one state, under the user's map and without."""
    methods = (_ours("d_rtrl", "mapped", PEER_MAPPED), BATCHED, PEER_MAPPED)
    sizes = ((8, 2, 4),) if tiny else ((100, 20, 40), (300, 64, 10))
    return [Work(Case("layer", *size), methods) for size in sizes]


def tiny() -> list[Work]:
    """Shows that everything runs."""
    works = {"three_lif": (*CORE, *MORE["three_lif"], *_STEPS), "rnn": (BPTT,)}
    return [Work(Case(cell, 8, 2, 8), methods, 0.1) for cell, methods in works.items()]


def agreements(neurons: int = 128, samples: int = 32) -> list[Agreement]:
    """Where both sides define the same rule.

    A spiking cell with two states is compared in windows of one step (multi-step VJP) on both
    sides: the peer's single-step mode counts the path from one new state to another twice.
    """
    found = []
    for cell, rule, ours, peer, runs, note in (
        ("gru", "d_rtrl", "window", "online", 1, ""),
        ("gru", "pp_prop", "window", "online", 1, ""),
        ("lif", "d_rtrl", "window 1", "window 1", 1, ""),
        (
            "lif",
            "pp_prop",
            "window 1",
            "window 1",
            1,
            "the peer divides the trace at a window's entry by 1-α^(t+1) of the step after",
        ),
        (
            "lif",
            "pp_prop",
            "window 1",
            "window 1",
            5,
            "the same after 128 steps, where that factor is 1",
        ),
        ("three_lif", "pp_prop", "window", "online", 1, ""),
        ("three_lif", "ottt", "window", "online", 1, ""),
    ):
        names = ("W1", "W2", "W3") if cell == "three_lif" else ("W", "U")
        methods = _ours(rule, ours), Method(OLD_PEER if rule == "ottt" else PEER, rule, peer)
        found.append(Agreement(Case(cell, neurons, samples, 32), *methods, names, runs, note))
    return found
