"""Rows of the table of gradients that are no single gradient: what they say, as numbers."""

from collections.abc import Callable
from typing import Any

import brainstate
import jax
import jax.numpy as jnp

import braintrace

from .minimal import B, Given, I, N, O, distance, drawn, in_windows, learner_of, spike, squares
from .steps import fires, leaky

RANDOM = {"feedback": "random", "random_feedback_key": jax.random.PRNGKey(0)}


def given(*samples: int, steps: int = 5) -> Given:
    params = {"W": drawn(I, N), "o": drawn(N, O, seed=1)}
    xs, ys = (drawn(steps, *samples, n, seed=20, scale=1.0) for n in (I, O))
    return Given(params, {"h": drawn(*samples, N, seed=10)}, xs, ys)


def random_feedback_in_a_window() -> dict[str, Any]:
    """How far the gradient of a window is from the one without random feedback."""
    data = given()
    random, plain = (
        in_windows(*learner_of(leaky, data, "EProp", vjp_method="multi-step", **options), data)["W"]
        for options in (RANDOM, {})
    )
    return {"random off plain": distance(random, plain)}


def zero_target_in_a_window() -> dict[str, Any]:
    """The hidden weight's gradient for a target of zero: none, by the rule."""
    data = jax.tree.map(lambda v: v.astype(jnp.float32), given(B))
    options = {"vjp_method": "multi-step", "batch_size": B, "B_list": [jnp.ones((O, N)) / N]}
    learner, model = learner_of(leaky, data, "OSTTP", **options)
    window, target = braintrace.MultiStepData(data.xs), jnp.zeros((B, O))
    run = lambda: squares(learner.update(window, y_target=target), data.ys)
    found = brainstate.transform.grad(run, model.weights())()
    return {"size for a zero target": float(jnp.linalg.norm(found["W",]))}


def random_feedback_and_the_readout() -> dict[str, Any]:
    """What another readout with the same error, and twice the loss, do to the gradient."""
    data = given(steps=1)

    def gradient(readout: Any, scale: float = 1.0) -> Any:
        changed = data._replace(params=data.params | {"o": readout})
        learner, model = learner_of(fires(), changed, "EProp", **RANDOM)
        v = 0.9 * (data.carry["h"] - 0.3 * spike(data.carry["h"] - 0.3))
        out = spike(v + data.xs[0] @ data.params["W"] - 0.3) @ readout
        target = out - jnp.array([0.5, -0.3])
        loss = lambda: scale * squares(learner(data.xs[0]), target)
        return brainstate.transform.grad(loss, model.weights())()["W",]

    first = gradient(data.params["o"])
    doubled = gradient(data.params["o"], 2.0)
    return {
        "another readout": distance(gradient(drawn(N, O, seed=5)), first),
        "twice the loss": float(jnp.linalg.norm(doubled) / jnp.linalg.norm(first)),
    }


def steps_that_are_counted() -> dict[str, Any]:
    data = given()
    learner, _ = learner_of(leaky, data, "pp_prop", decay_or_rank=0.9, vjp_method="multi-step")
    learner(braintrace.MultiStepData(data.xs))
    return {"counted after a window of 5": int(learner.running_index.value)}


def traces_after_a_reset() -> dict[str, Any]:
    """Shapes of a trace (3 inputs, 4 neurons, no batch) before and after a reset with a size."""
    learner, _ = learner_of(leaky, given(), "D_RTRL")
    shape = lambda: sorted({v.shape[:2] for v in jax.tree.leaves(learner.get_etrace_of(("W",)))})
    before = shape()
    learner.reset_state(batch_size=7)
    return {"before": before, "after": shape()}


#: By the first cell of a row.
STATEMENTS: dict[str, tuple[Callable[[], dict[str, Any]], ...]] = {
    "random feedback or a projected target in a multi-step window": (
        random_feedback_in_a_window,
        zero_target_in_a_window,
    ),
    "e-prop with random feedback": (random_feedback_and_the_readout,),
    "the bias correction of `pp_prop`": (steps_that_are_counted,),
    "`reset_state(batch_size=...)`": (traces_after_a_reset,),
}
