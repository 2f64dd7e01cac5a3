"""`check_gradients` for modules: the online gradient of a sequence against BPTT through the same
step function.
"""

from typing import Any

import brainstate
import jax

from ...cell import sequence_length
from ...checks import GradientReport
from ...checks._gradients import inner_dtypes, judge, window_choice
from ...core.engine import Rule
from ...core.traces import PerParameter
from ...learner import Budget
from ._compiled import Compiled
from ._drivers import Driver
from ._states import lent


def check_module(
    learner: Any, sequences: tuple[Any, ...], step_fn: Any, tolerance: float | None, options: Any
) -> GradientReport:
    """See `ETraceAlgorithm.check_gradients`. States, keys included, are as before at the end."""
    states = [*learner.compiled.functional.states, learner.etrace, learner.running_index]
    common = dict(options)
    online, signal = {}, common.pop("y_target", None)
    for window in window_choice(common.pop("window", None), common.pop("windows", ())):
        with lent(states):
            learner.reset_state()
            given = {"step_fn": step_fn, "window": window, "y_target": signal, **common}
            online[window] = learner.etrace_grad(*sequences, **given)
    reference = _reference(learner)
    mine, learner._driver = learner._driver, reference
    try:
        with lent(states):
            settings = {"mask": None, "reset": None, "weights": None, "reduction": "mean", **common}
            free = reference.gradient(
                sequences,
                step_fn,
                window=sequence_length(sequences),
                loss_output="step",
                has_aux=False,
                return_value=False,
                return_state=False,
                y_target=None,
                free=True,
                **settings,
            )
    finally:
        learner._driver = mine
    return judge(online, free, _rows(learner), tolerance, inner_dtypes(learner.graph))


def _reference(learner: Any) -> Driver:
    """A driver of the same model without an algorithm's edits."""
    own = learner.compiled
    plain = Rule("BPTT", PerParameter())
    compiled = Compiled(own.model, plain, own.x, own.mapped, own.vmap, own.options)
    return Driver(learner, compiled, Budget(compiled.cell.graph, compiled.rule, None))


def _rows(learner: Any) -> dict[str, Any]:
    """The certificate of each leaf of the gradients, by its path in them."""
    layout = learner.compiled.functional.params
    by_state: dict[int, list[Any]] = {}
    for row, state in zip(learner.graph.parameters, layout.leaf_states(), strict=True):
        by_state.setdefault(id(state), []).append(row)
    found = {}
    for path, state in learner.model.states(brainstate.ParamState).items():
        leaves, _ = jax.tree_util.tree_flatten_with_path({path: state.value})
        found.update(
            {
                jax.tree_util.keystr(k): row
                for (k, _), row in zip(leaves, by_state[id(state)], strict=True)
            }
        )
    return found
