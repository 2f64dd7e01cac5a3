"""From the coordinates of a learning rule to its parts, and back."""

from typing import Any

from jax.typing import DTypeLike

from ..core._errors import NotSupportedError
from ..core.engine import Rule
from ..core.signals import (
    Edit,
    Feedback,
    LaterLoss,
    Modulator,
    OutputFilter,
    ScalarLeak,
    SyntheticGradient,
)
from ..core.traces import (
    Carrier,
    Factored,
    NoTrace,
    PerParameter,
    Presynaptic,
    RankOne,
    WithinLayer,
    WithinSteps,
)
from ._coordinates import ETraceConfig, refuse


def configured(
    config: ETraceConfig, *, random_feedback_key: Any = None, trace_dtype: DTypeLike | None = None
) -> Rule:
    """The parts that coordinates stand for; `random_feedback_key` is for
    learning_signal='random_feedback'.
    """
    name = f"ETraceConfig({config.describe()})"
    if config.learning_signal == "bootstrapped":
        if config.is_factorized or config.temporal_recursion != "none":
            raise NotSupportedError(
                "Traces hold what a learned estimate of the later loss would say again.",
                got=config.describe(),
                do="pass temporal_recursion='none', which is the rule 'dni', or another signal",
            )
        later = LaterLoss(SyntheticGradient())
        traces, schedule = NoTrace(trace_dtype, estimated=True), _schedule(config)
        return Rule(name, traces, (later,), schedule=schedule, traces_all_state=True)
    factored = config.is_factorized
    if factored and config.include_recurrent_mixing:
        raise NotSupportedError(
            "No factorised trace here keeps the recurrence between neurons.",
            got=config.describe(),
            do="use recurrence_scope='diagonal', or trace_factorization='per_param'",
        )
    carrier: Carrier = PerParameter(trace_dtype)
    if factored:
        carrier = Factored(config.decay_x or 0.0, config.decay_f or 0.0, trace_dtype)
    elif config.trace_factorization == "random_projection":
        carrier = RankOne(trace_dtype)
    elif config.sparse_n is not None:
        carrier = WithinSteps(trace_dtype, steps=config.sparse_n)
    elif config.include_recurrent_mixing:
        carrier = WithinLayer(trace_dtype)
    elif config.temporal_recursion == "none":
        # no earlier step is left: f x of this one, the ordinary gradient
        carrier = Presynaptic((0.0,), dtype=trace_dtype)
    edits: list[Edit] = []
    if config.recursion_f == "scalar_leak":
        # the carrier has the decay of a factor
        edits.append(ScalarLeak(1.0 if factored else config.decay))
    why, modulated = "", config.learning_signal == "modulatory"
    if config.kappa is not None and not modulated:
        edits.append(OutputFilter(config.kappa))
    if modulated:  # the filter is that of what the modulator meets
        edits.append(Modulator(config.kappa))
        why = Modulator.multi_step_problem
    if config.learning_signal == "random_feedback":
        if random_feedback_key is None:
            refuse(
                "Random feedback needs to know how to draw its matrix.",
                "no random_feedback_key",
                "random_feedback_key=0, say",
            )
        edits.append(Feedback(False, random_feedback_key, 1.0))
        why = Feedback.multi_step_problem
    return Rule(name, carrier, tuple(edits), why, _schedule(config))


def _schedule(config: ETraceConfig) -> str | int | None:
    return config.window_size or ("A" if config.update_schedule == "sequence_end" else None)


def coordinates(rule: Rule) -> ETraceConfig | None:
    """The coordinates of a rule; None for one that these axes do not hold."""
    carrier, schedule = rule.carrier, rule.schedule
    fields: dict[str, Any] = {"update_schedule": "sequence_end" if schedule == "A" else "per_step"}
    if isinstance(schedule, int):
        fields = {"update_schedule": "window", "window_size": schedule}
    for edit in rule.edits:
        if isinstance(edit, Modulator):
            kappa = {} if edit.leak is None else {"trace_filter": "kappa", "kappa": edit.leak}
            fields |= {"learning_signal": "modulatory", **kappa}
        elif isinstance(edit, OutputFilter) and edit.leak is not None:
            fields |= {"trace_filter": "kappa", "kappa": edit.leak}
        elif isinstance(edit, Feedback) and not edit.adaptive:
            fields |= {"learning_signal": "random_feedback"}
        elif isinstance(edit, LaterLoss) and edit.estimator == SyntheticGradient():
            fields |= {"learning_signal": "bootstrapped", "temporal_recursion": "none"}
        elif isinstance(edit, ScalarLeak):
            fields |= {"temporal_recursion": "scalar_leak", "decay": edit.leak}
        else:
            return None
    if isinstance(carrier, Factored):
        recursion = ("scalar_leak", fields.pop("temporal_recursion", "jacobian"))
        fields |= {"trace_factorization": "io_factorized", "temporal_recursion": recursion}
        fields["decay"] = carrier.input_decay, carrier.state_decay
    elif isinstance(carrier, Presynaptic):
        leaks = carrier.leaks or ()
        if len(leaks) != 1 or leaks[0] >= 1 or carrier.twice:
            return None
        fields["temporal_recursion"] = "none"
        if leaks[0] != 0:
            recursion = ("scalar_leak", "none")
            fields |= {"trace_factorization": "io_factorized", "temporal_recursion": recursion}
            fields["decay"] = leaks[0], 0.0
    elif isinstance(carrier, RankOne):
        fields |= {"trace_factorization": "random_projection", "recurrence_scope": "coupled"}
    elif isinstance(carrier, WithinSteps) and carrier.steps > 1:
        fields |= {"recurrence_scope": "sparse_n", "sparse_n": carrier.steps}
    elif type(carrier) is WithinLayer:
        fields["recurrence_scope"] = "coupled"
    elif isinstance(carrier, NoTrace):
        if not carrier.estimated:
            return None
    elif type(carrier) is not PerParameter or carrier.clip is not None:
        return None
    return ETraceConfig(**fields)
