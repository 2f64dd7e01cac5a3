"""The ways to learn that the demo compares: each gives the gradient of a batch of utterances.

A gradient is a function `(frames, weight, label) -> (gradients, loss)` of frames (T, B, 12), weight
(T, B), which is zero where an utterance is over and sums to one, and label (B,). The loss is the
weighted sum of the cross-entropies of all frames.
"""

import enum
from collections.abc import Callable, Mapping
from typing import Any

import brainstate
import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import PyTree

import braintrace

from ._networks import COEFFICIENTS

CHUNK = 10  # steps done at once; the memory is that of a chunk, however long the sequence

States = dict[Any, brainstate.ParamState]
Values = dict[Any, PyTree]  # of the parameters
Found = tuple[Values, jax.Array]  # gradients, loss
Gradient = Callable[[ArrayLike, ArrayLike, ArrayLike], Found]


class Method(enum.Enum):
    """How a network learns."""

    ONLINE = "D-RTRL, online"
    BPTT = "BPTT"
    READOUT = "readout only"


def parameters(network: Any, method: Method) -> States:
    """The parameters that a method changes, by path."""
    every = dict(network.states(brainstate.ParamState))
    return {k: v for k, v in every.items() if method is not Method.READOUT or k[0] == "readout"}


def gradient(network: Any, method: Method, batch: int) -> tuple[Gradient, dict[str, str]]:
    """The gradient, and what the compiler certifies about it: a word for each array that is
    learned.
    """
    states = parameters(network, method)
    learned = named({path: state.value for path, state in states.items()})
    if method is Method.BPTT:
        return _through_time(network, states, batch), dict.fromkeys(learned, "exact")
    x = jnp.zeros((batch, COEFFICIENTS))
    learner = braintrace.compile(network, "d_rtrl", x, batch_size=batch)
    rows = learner.graph.parameters
    return _online(learner, states), {r.path: str(r.exactness) for r in rows if r.path in learned}


def _online(learner: braintrace.ETraceAlgorithm, states: States) -> Gradient:
    def gradient(frames: ArrayLike, weight: ArrayLike, label: ArrayLike) -> Found:
        def step_loss(x: jax.Array, weight: jax.Array) -> jax.Array:
            # Weighted here, not by mask=, which gives a loss for each step and sample: that would
            # grow with T.
            return (weight * cross_entropy(learner(x), label)).sum()

        learner.reset_state(model=True)
        options = {"weights": states, "reduction": "sum", "chunk_size": CHUNK}
        options |= {"return_value": True, "loss_output": "total", "return_state": False}
        return learner.etrace_grad(frames, weight, step_fn=step_loss, **options)

    return gradient


def _through_time(network: Any, states: Values, batch: int) -> Gradient:
    brainstate.nn.init_all_states(network, batch_size=batch)

    def gradient(frames: ArrayLike, weight: ArrayLike, label: ArrayLike) -> Found:
        def loss() -> jax.Array:
            brainstate.nn.reset_all_states(network, batch_size=batch)
            logits = brainstate.transform.for_loop(network, frames)
            return (weight * cross_entropy(logits, label)).sum()

        both: Any = brainstate.transform.grad(loss, states, return_value=True)
        return both()

    return gradient


def cross_entropy(logits: jax.Array, label: ArrayLike) -> jax.Array:
    labels = jnp.broadcast_to(label, logits.shape[:-1])
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def named(values: Mapping[Any, PyTree]) -> dict[str, Any]:
    """The arrays of parameters by the names that the compiler's report gives them."""
    return {
        ".".join([*map(str, path), *(str(key.key) for key in leaf)]): array
        for path, tree in values.items()
        for leaf, array in jax.tree_util.tree_leaves_with_path(tree)
    }
