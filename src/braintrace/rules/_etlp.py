"""ETLP: event-based three-factor local plasticity."""

import dataclasses
from typing import Any

from jax.typing import DTypeLike

from ..core._domains import described, number, positive
from ..core._errors import UsageError
from ..core.engine import Rule
from ..core.signals import Edit, RandomEvents, TargetProjection, VoltageRegulariser
from ..core.traces import PerParameter
from ._algorithm import Algorithm, Compared
from ._options import Seed, floating, matrices, option, seed
from ._registry import register_algorithm


def _rate(name: str, value: object) -> float:
    if 0 < (found := number(value)) <= 1:
        return found
    raise UsageError(f"Invalid {name}.", got=repr(value), expected="a probability in (0, 1]")


def _regulariser(name: str, value: Any) -> tuple[float, float]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        expected = "(strength, threshold), or None"
        raise UsageError(f"Invalid {name}.", got=described(value), expected=expected)
    strength = positive(f"strength of {name}", value[0], zero=True)
    return strength, positive(f"threshold of {name}", value[1], zero=True)


def _names(name: str, value: Any) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else value
    if isinstance(names, tuple | list) and all(isinstance(v, str) for v in names):
        return tuple(names)
    expected = "names of states, as in the report"
    raise UsageError(f"Invalid {name}.", got=described(value), expected=expected)


@register_algorithm("etlp")
@dataclasses.dataclass(frozen=True, kw_only=True)
class ETLPRule(Algorithm):
    r"""Event-based three-factor local plasticity.

    .. math::

        \nabla_{\theta_l} L = \sum_{t \in E} \big(-B_l\, y^{*t} + c\, V_l^t\,
        [|V_l^t| > \vartheta]\big) \circ e_l^t

    with the traces of D-RTRL at the activity (of e-prop without its filter; the adaptation of a
    neuron's threshold included), the projected target :math:`y^*`, V the potential, and E the steps
    of teaching events. The output layer learns from its true error, at the events too. No error
    travels back through the layers. Events are given as the `mask` of the sequence drivers, which
    weighs targets and losses alike, or drawn, with `event_rate`.

    Memory: O(B I O S). Time: O(B I O S^2) a step.

    Args:
        B_list: matrices (n_target, n_layer), one for each hidden group that is read, in the order
            of the program; or None to draw them with `feedback_key`.
        feedback_key: whole number or PRNG key.
        feedback_scale: standard deviation of drawn matrices.
        event_rate: None for an event at each step that the mask counts; or the probability of one
            at a step, the same for all samples: the rate of the teacher times the time step.
        event_key: whole number or PRNG key of the events. They are counted in steps of the state.
        voltage_regulariser: None, or (c, threshold).
        voltages: the names of the states that are potentials, for the regulariser, as in the
            report; needed where a neuron has several states.
        trace_dtype: dtype of the traces; by default that of y, at least float32.

    Raises:
        UsageError: without B_list and feedback_key; for a missing or ill-shaped `y_target`.
        CompilationError: where the potential is not known.

    References:
        Quintana et al., Neuromorphic Computing and Engineering 4:034006 (2024), arXiv 2301.08281.
        Deviation: D keeps the neuron's reset unless the model stops it with `stop_gradient`; the
        optimiser steps at events only if the user does so (`mode='O'` steps at every step, with a
        gradient of zero between events).

    >>> import braintrace, jax.numpy as jnp
    >>> cell = lambda p, h, x: ((h := jnp.tanh(0.5 * h + x @ p["w"])), h @ p["o"])
    >>> params = {"w": jnp.ones((2, 3)), "o": jnp.ones((3, 1))}
    >>> h, xs, y = jnp.zeros((4, 3)), jnp.ones((10, 4, 2)), jnp.ones((10, 4, 1))
    >>> learner = braintrace.compile(cell, "etlp", xs[0], params=params, carry=h, feedback_key=0)
    >>> events = jnp.zeros((10, 4)).at[9].set(1.0)
    >>> given = {"loss_fn": lambda out: (out[:, 0] - 1) ** 2, "y_target": y, "mask": events}
    >>> gradients, *_ = learner.etrace_grad(params, learner.init(params, h), xs, **given)
    >>> gradients["w"].shape
    (2, 3)
    """

    name = "ETLP"
    multi_step = False

    B_list: Any = option(None, matrices, compare=False)
    feedback_key: Seed = option(None, seed)
    feedback_scale: float = option(0.1, positive)
    event_rate: float | None = option(None, _rate)
    event_key: Seed = option(0, seed)
    voltage_regulariser: tuple[float, float] | None = option(None, _regulariser)
    voltages: Any = option((), _names)
    trace_dtype: DTypeLike | None = option(None, floating)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.B_list is None and self.feedback_key is None:
            raise UsageError(
                "ETLP needs its feedback matrices.",
                got="no B_list and no feedback_key",
                expected="B_list, or feedback_key to draw them",
                do="pass feedback_key=0, say",
            )

    @classmethod
    def compared(cls, leak: float) -> tuple[Compared, ...]:
        return (Compared({"feedback_key": 0}, "O(B |W|)", "projected target, at events"),)

    def parts(self) -> Rule:
        edits: list[Edit] = []
        if self.event_rate is not None:  # in front: what follows has a gradient at events
            edits.append(RandomEvents(self.event_rate, self.event_key))
        edits.append(TargetProjection(self.feedback_key, self.feedback_scale, self.B_list))
        if self.voltage_regulariser is not None:
            edits.append(VoltageRegulariser(*self.voltage_regulariser, self.voltages))
        return Rule(
            "ETLP",
            PerParameter(self.trace_dtype),
            tuple(edits),
            "use vjp_method='single-step': BPTT inside a window would follow the true error and "
            "the traces the target",
            target_timing="per-step",
        )
