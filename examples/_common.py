"""What the examples share: arguments, a spike, a training loop, a table."""

import argparse
import functools
import time
from collections.abc import Callable, Iterable
from typing import Any

import brainstate
import jax
import jax.numpy as jnp
import optax


def arguments(description: str | None, **more: str) -> argparse.Namespace:
    """`--quick`, `--seed`, and a flag for each of `more` (name: what it does)."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few iterations only")
    parser.add_argument(
        "--seed", type=int, default=0, help="of weights, data and feedback (default 0)"
    )
    for name, what in more.items():
        parser.add_argument(f"--{name}", action="store_true", help=what)
    return parser.parse_args()


def normal(key: Any, inputs: int, outputs: int, gain: float = 1.0) -> jax.Array:
    """A weight matrix with standard deviation gain / sqrt(inputs)."""
    return gain / jnp.sqrt(inputs) * jax.random.normal(key, (inputs, outputs))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def spike(v: jax.Array, height: float = 1.0) -> jax.Array:
    """1 above zero, 0 below; its derivative is taken to be the triangle height max(0, 1 - |v|)."""
    return (v > 0).astype(v.dtype)


@spike.defjvp
def _surrogate(height: float, primals: Any, tangents: Any) -> Any:
    (v,), (dv,) = primals, tangents
    return spike(v, height), height * jnp.maximum(0, 1 - jnp.abs(v)) * dv


def cross_entropy(logits: Any, label: Any) -> jax.Array:
    """For logits (B, classes) and labels (B,): (B,)."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, label)


def train(
    gradient: Callable[[Any, Any], tuple[Any, Any]],
    params: Any,
    batches: Iterable[Any],
    optimizer: Any,
    say: Callable[[int, Any, float], None] | None = None,
) -> tuple[Any, list[float], float]:
    """`(params, losses, seconds)` after one update per batch; `gradient(params, batch)` gives
    gradients and loss.

    `say(number, params, loss)` is called after each update. Neither that nor compilation is timed.
    """

    @jax.jit
    def step(params: Any, moments: Any, batch: Any) -> tuple[Any, Any, Any]:
        gradients, loss = gradient(params, batch)
        updates, moments = optimizer.update(gradients, moments, params)
        return optax.apply_updates(params, updates), moments, loss

    moments, losses, seconds = optimizer.init(params), [], 0.0
    for number, batch in enumerate(batches):
        if number == 0:
            jax.block_until_ready(step(params, moments, batch))
        start = time.perf_counter()
        params, moments, loss = step(params, moments, batch)
        losses.append(float(loss))
        seconds += time.perf_counter() - start
        if say is not None:
            say(number + 1, params, losses[-1])
    return params, losses, seconds


def train_module(
    model: Any, gradient: Callable[[Any], tuple[Any, Any]], batches: Iterable[Any], optimizer: Any
) -> Any:
    """As `train`, for a brainstate module, which is changed in place: `(losses, seconds)`. The
    first update is not timed.
    """
    weights = model.states(brainstate.ParamState)

    @brainstate.transform.jit
    def step(moments: Any, batch: Any) -> tuple[Any, Any]:
        gradients, loss = gradient(batch)
        updates, moments = optimizer.update(gradients, moments)
        for path, state in weights.items():
            state.value = optax.apply_updates(state.value, updates[path])
        return moments, loss

    moments, losses, seconds = optimizer.init({k: s.value for k, s in weights.items()}), [], 0.0
    for number, batch in enumerate(batches):
        start = time.perf_counter()
        moments, loss = step(moments, batch)
        losses.append(float(loss))
        seconds += (number > 0) * (time.perf_counter() - start)
    return losses, seconds


def module_through_time(
    model: Any, batch_size: int, label: Any, mask: Any, x: Any
) -> tuple[Any, Any]:
    """BPTT's gradient for a brainstate module, and the mean cross-entropy of the steps that
    count.
    """

    def loss() -> jax.Array:
        brainstate.nn.init_all_states(model, batch_size=batch_size)
        losses = cross_entropy(brainstate.transform.for_loop(model, x), label)
        return (losses * mask).sum() / mask.sum()

    return brainstate.transform.grad(loss, model.states(brainstate.ParamState), return_value=True)()


def table(*rows: tuple[Any, ...]) -> str:
    """Rows, the first of which is the heading, as text with aligned columns."""
    cells = [[f"{v:.3f}" if isinstance(v, float) else str(v) for v in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
