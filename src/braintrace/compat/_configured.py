"""From the coordinates of a learning rule to its parts, and back."""

from typing import Any

from jax.typing import DTypeLike

from ..core._errors import NotSupportedError
from ..core.engine import Rule
from ..core.signals import Edit, Feedback, OutputFilter, ScalarLeak
from ..core.traces import Factored, PerParameter, Presynaptic, WithinLayer
from ..core.traces._carrier import Carrier
from ._coordinates import ETraceConfig, refuse

#: Values that stand on an axis and that no rule here has, with what is near.
_WITHOUT_RULE = {
    (
        "trace_factorization",
        "random_projection",
    ): "recurrence_scope='coupled' with 'per_param' has no noise at all",
    ("learning_signal", "modulatory"): "multiply the loss of each step and sample by the modulator",
    ("learning_signal", "bootstrapped"): "add a learned estimate of the future loss to the loss",
    (
        "update_schedule",
        "window",
    ): "give etrace_grad a window: it changes speed and memory, never the gradient",
}


def configured(
    config: ETraceConfig, *, random_feedback_key: Any = None, trace_dtype: DTypeLike | None = None
) -> Rule:
    """The parts that coordinates stand for; `random_feedback_key` is for
    learning_signal='random_feedback'.
    """
    for (axis, value), do in _WITHOUT_RULE.items():
        if getattr(config, axis) == value:
            raise NotSupportedError(
                f"No rule here has {axis}={value!r}.", got=config.describe(), do=do
            )
    if config.is_factorized and config.recurrence_scope != "diagonal":
        raise NotSupportedError(
            "No factorised trace here keeps the recurrence between neurons.",
            got=config.describe(),
            do="use recurrence_scope='diagonal', or trace_factorization='per_param'",
        )
    edits: list[Edit] = []
    if config.recursion_f == "scalar_leak":
        # the carrier has the decay of a factor
        edits.append(ScalarLeak(1.0 if config.is_factorized else config.decay))
    if config.kappa is not None:
        edits.append(OutputFilter(config.kappa))
    why = ""
    if config.learning_signal == "random_feedback":
        if random_feedback_key is None:
            refuse(
                "Random feedback needs to know how to draw its matrix.",
                "no random_feedback_key",
                "random_feedback_key=0, say",
            )
        edits.append(Feedback(False, random_feedback_key, 1.0))
        why = Feedback.multi_step_problem
    schedule = "A" if config.update_schedule == "sequence_end" else None
    name = f"ETraceConfig({config.describe()})"
    return Rule(name, _carrier(config, trace_dtype), tuple(edits), why, schedule)


def _carrier(config: ETraceConfig, dtype: DTypeLike | None) -> Carrier:
    if config.is_factorized:
        return Factored(config.decay_x or 0.0, config.decay_f or 0.0, dtype)
    if config.recurrence_scope != "diagonal":
        return WithinLayer(dtype)
    if config.temporal_recursion == "none":
        # no earlier step is left: f x of this one, the ordinary gradient
        return Presynaptic((0.0,), dtype=dtype)
    return PerParameter(dtype)


def coordinates(rule: Rule) -> ETraceConfig | None:
    """The coordinates of a rule; None for one that these axes do not hold."""
    carrier = rule.carrier
    fields: dict[str, Any] = {
        "update_schedule": "sequence_end" if rule.schedule == "A" else "per_step"
    }
    for edit in rule.edits:
        if isinstance(edit, OutputFilter) and edit.leak is not None:
            fields |= {"trace_filter": "kappa", "kappa": edit.leak}
        elif isinstance(edit, Feedback) and not edit.adaptive:
            fields |= {"learning_signal": "random_feedback"}
        elif isinstance(edit, ScalarLeak):
            fields |= {"temporal_recursion": "scalar_leak", "decay": edit.leak}
        else:
            return None
    if isinstance(carrier, Factored):
        recursion = ("scalar_leak", fields.pop("temporal_recursion", "jacobian"))
        decays = (carrier.input_decay, carrier.state_decay)
        fields |= {
            "trace_factorization": "io_factorized",
            "temporal_recursion": recursion,
            "decay": decays,
        }
    elif isinstance(carrier, Presynaptic):
        leaks = carrier.leaks or ()
        if len(leaks) != 1 or leaks[0] >= 1 or carrier.twice:
            return None
        if leaks[0] == 0:
            fields |= {"temporal_recursion": "none"}
        else:
            fields |= {
                "trace_factorization": "io_factorized",
                "temporal_recursion": ("scalar_leak", "none"),
                "decay": (*leaks, 0.0),
            }
    elif isinstance(carrier, WithinLayer):
        fields |= {"recurrence_scope": "coupled"}
    elif not isinstance(carrier, PerParameter) or carrier.clip is not None:
        return None
    return ETraceConfig(**fields)
