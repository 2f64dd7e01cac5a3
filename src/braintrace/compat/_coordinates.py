"""`ETraceConfig`: a learning rule named by its coordinates on six axes."""

import dataclasses
from typing import Any

from ..core._domains import choice, fraction, whole
from ..core._errors import UsageError

AXES = {
    "trace_factorization": ("per_param", "io_factorized", "random_projection"),
    "temporal_recursion": ("jacobian", "scalar_leak", "none"),
    "recurrence_scope": ("diagonal", "coupled", "sparse_n"),
    "learning_signal": ("symmetric", "random_feedback", "modulatory", "bootstrapped"),
    "trace_filter": ("none", "kappa"),
    "update_schedule": ("per_step", "window", "sequence_end"),
}


@dataclasses.dataclass(frozen=True)
class ETraceConfig:
    r"""A learning rule as a point of six axes; `braintrace.compile(model, ETraceConfig(...), x)`
    learns with it.

    .. math::

        \epsilon^t = R^t \epsilon^{t-1} + f^t \otimes x^t, \qquad \bar\epsilon^t = \kappa
        \bar\epsilon^{t-1} + \epsilon^t, \qquad \nabla_W L = \sum_t s^t \circ \bar\epsilon^t

    Args:
        trace_factorization: how :math:`\epsilon` is stored: 'per_param' (O(B I O S)), or
            'io_factorized', an input and a state trace (O(B (I + O S))), or 'random_projection',
            one product of two random vectors (as `UORO`).
        temporal_recursion: R: 'jacobian' for the derivative D of the state within a neuron,
            'scalar_leak' for `decay` times the identity, 'none' for 0. With 'io_factorized' a pair,
            for the input and the state side; the input side has no Jacobian, so one word 'jacobian'
            means ('scalar_leak', 'jacobian').
        recurrence_scope: 'diagonal' keeps each neuron's own dynamics; 'coupled' the whole layer's,
            recurrent weights included (as `OSTLRecurrent`). 'sparse_n' keeps what reaches a neuron
            in `sparse_n` steps (as `SnAp`).
        learning_signal: s: 'symmetric' for the loss's own derivative, 'random_feedback' through a
            fixed random matrix in the readout's place, 'modulatory' for `modulator=` of a step or
            a driver (as `ThreeFactor`), 'bootstrapped' for a learned estimate of the later loss
            in the place of traces (as `DNI`; with temporal_recursion='none').
        trace_filter: 'kappa' for the filter :math:`\bar\epsilon`, behind the spikes; 'none'.
        update_schedule: when `etrace_fit` updates: 'per_step' leaves it to its `mode`,
            'sequence_end' is mode 'A', 'window' after every `window_size` steps.
        decay: a number in [0, 1), for 'scalar_leak'; a pair, or a number for both sides, for
            'io_factorized'.
        kappa: a number in [0, 1), for `trace_filter='kappa'`.
        sparse_n: a whole number of at least 1, for 'sparse_n'; 1 is 'coupled'.
        window_size: for `update_schedule='window'`.

    Equal rules are equal: values are brought into one form first (a leak, or a side's decay, of 0
    is 'none'; kappa=0 is no filter).

    Raises:
        UsageError: for a value that is on no axis, a coefficient that is missing, out of range or
            without its category, and for values that exclude each other.
        NotSupportedError: by `compile`, for a legal point that has no rule here; the message names
            what is near.

    The axes and values are those of the PyPI package braintrace (0.2.6). There 'coupled' keeps the
    block diagonal of the layer's Jacobian; here it keeps the whole of it.

    >>> import braintrace
    >>> config = braintrace.ETraceConfig(trace_factorization="io_factorized", decay=0.9)
    >>> config.temporal_recursion, config.decay
    (('scalar_leak', 'jacobian'), (0.9, 0.9))
    >>> config.describe()
    "trace_factorization='io_factorized', temporal_recursion=('scalar_leak', 'jacobian'),
    decay=(0.9, 0.9)"
    """

    __module__ = "braintrace"

    trace_factorization: str = "per_param"
    temporal_recursion: Any = "jacobian"
    recurrence_scope: str = "diagonal"
    learning_signal: str = "symmetric"
    trace_filter: str = "none"
    update_schedule: str = "per_step"
    decay: Any = None
    kappa: float | None = None
    sparse_n: int | None = None
    window_size: int | None = None

    def __post_init__(self) -> None:
        for name, legal in AXES.items():
            value = getattr(self, name)
            several = name == "temporal_recursion" and isinstance(value, tuple | list)
            for part in value if several else (value,):
                choice(name, part, legal)
        self._bring_to_one_form()
        self._check_coefficients()
        self._check_combination()

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _given(self, *names: str) -> str:
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)

    def _bring_to_one_form(self) -> None:
        two, both = self.is_factorized, (self.temporal_recursion, self.decay)
        if not two and any(isinstance(v, tuple | list) for v in both):
            refuse(
                "Only a factorised trace has two sides.",
                self._given("temporal_recursion", "decay"),
                "one value, or trace_factorization='io_factorized'",
            )
        x, f = _pair("temporal_recursion", self.temporal_recursion)
        if two and x == "jacobian":  # the input side has none
            x = "scalar_leak"
        if self.decay is None and two and (x, f) != ("none", "none"):
            wanted = "a number in [0, 1), or a pair for input and state"
            refuse("A factorised trace needs its decay.", "decay=None", wanted)
        if self.decay is None and f == "scalar_leak":
            refuse("A scalar leak needs its size.", "decay=None", "a number in [0, 1)")
        pair = _pair("decay", self.decay)
        decays = [None if d is None else fraction("decay", d) for d in pair]
        sides = list(zip((x, f), decays, strict=True))
        for recursion, decay in sides:
            if recursion == "none" and decay:
                refuse(
                    "Without a recursion no earlier trace is left to decay.",
                    f"'none' with decay={decay!r}",
                    "temporal_recursion='scalar_leak', or decay 0",
                )
        recursions = ["none" if d == 0 and (two or r == "scalar_leak") else r for r, d in sides]
        if two:
            decays = [0.0 if r == "none" else d for r, d in zip(recursions, decays, strict=True)]
            self._set(temporal_recursion=tuple(recursions), decay=tuple(decays))
        else:
            self._set(temporal_recursion=recursions[0], decay=decays[0] or None)
        if self.kappa is not None:
            self._set(kappa=fraction("kappa", self.kappa))
        if self.trace_filter == "kappa" and self.kappa == 0:
            self._set(trace_filter="none", kappa=None)
        if self.recurrence_scope == "sparse_n" and self.sparse_n is not None:
            self._set(sparse_n=whole("sparse_n", self.sparse_n))
        if self.recurrence_scope == "sparse_n" and self.sparse_n == 1:
            self._set(recurrence_scope="coupled", sparse_n=None)

    def _check_coefficients(self) -> None:
        for name, axis, value in (
            ("kappa", "trace_filter", "kappa"),
            ("sparse_n", "recurrence_scope", "sparse_n"),
            ("window_size", "update_schedule", "window"),
        ):
            given, wanted = getattr(self, name), getattr(self, axis) == value
            if (given is not None) != wanted:
                needless = f"{name} has no effect without {axis}={value!r}."
                refuse(
                    f"{axis}={value!r} needs {name}." if wanted else needless,
                    self._given(axis, name),
                    f"both {axis}={value!r} and {name}, or neither",
                )
            if wanted and name != "kappa":
                whole(name, given)
        if self.decay is not None and not self.is_factorized and self.recursion_f != "scalar_leak":
            refuse(
                "decay has no effect here.",
                self._given("temporal_recursion", "decay"),
                "temporal_recursion='scalar_leak', or no decay",
            )

    def _check_combination(self) -> None:
        scope = self.recurrence_scope
        if scope != "diagonal" and self.recursion_f != "jacobian":
            refuse(
                "The scope of the recurrence is that of a Jacobian, and this rule has none.",
                self._given("recurrence_scope", "temporal_recursion"),
                "recurrence_scope='diagonal', or temporal_recursion='jacobian'",
            )
        whole = self.trace_factorization == "per_param"
        if self.trace_filter == "kappa" and not whole:
            refuse(
                "A filtered trace is a sum of products, which two factors cannot hold.",
                self._given("trace_factorization", "trace_filter"),
                "trace_factorization='per_param' with the filter, or trace_filter='none'",
            )
        if scope == "sparse_n" and not whole:
            refuse(
                "A neighbourhood of neurons is part of the trace of a weight; two factors hold no "
                "such part.",
                self._given("trace_factorization", "recurrence_scope"),
                "trace_factorization='per_param'",
            )
        if self.trace_factorization == "random_projection" and scope != "coupled":
            what = "A random projection is unbiased for the whole Jacobian only."
            refuse(what, self._given("recurrence_scope"), "recurrence_scope='coupled'")

    @property
    def is_factorized(self) -> bool:
        """Whether the trace is an input and a state factor."""
        return self.trace_factorization == "io_factorized"

    @property
    def include_recurrent_mixing(self) -> bool:
        """Whether the recurrence between neurons is kept."""
        return self.recurrence_scope != "diagonal"

    @property
    def recursion_x(self) -> str:
        """R of the input side; of a trace in one piece, R."""
        return self.temporal_recursion[0] if self.is_factorized else self.temporal_recursion

    @property
    def recursion_f(self) -> str:
        """R of the state side; of a trace in one piece, R."""
        return self.temporal_recursion[1] if self.is_factorized else self.temporal_recursion

    @property
    def decay_x(self) -> float | None:
        """The decay of the input side."""
        return self.decay[0] if self.is_factorized else self.decay

    @property
    def decay_f(self) -> float | None:
        """The decay of the state side."""
        return self.decay[1] if self.is_factorized else self.decay

    def describe(self) -> str:
        """The coordinates that are not the default ones, or 'default'."""
        fields = dataclasses.fields(self)
        changed = [f.name for f in fields if getattr(self, f.name) != f.default]
        return self._given(*changed) or "default"

    def replace(self, **changes: Any) -> "ETraceConfig":
        """The config with some fields changed, checked again."""
        return dataclasses.replace(self, **changes)


def refuse(what: str, got: str, expected: str) -> None:
    raise UsageError(what, got=got, expected=expected)


def _pair(name: str, value: object) -> tuple[Any, Any]:
    if not isinstance(value, tuple | list):
        return value, value
    if len(value) != 2:
        wanted = "one value, or a pair for the input and the state side"
        refuse(f"Invalid {name}.", repr(value), wanted)
    return value[0], value[1]
