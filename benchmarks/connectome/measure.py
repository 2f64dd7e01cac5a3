"""One part of the benchmark: `python -m benchmarks.connectome.measure`, with the part as JSON. The
last line is its result.
"""

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import brainunit as u
import jax
import jax.numpy as jnp

import braintrace

from .network import LEAK, Network, cell, generated, started

RULES = {"pp_prop": {"decay_or_rank": LEAK}, "ottt": {"leak": LEAK}, "d_rtrl": {}}
TARGET = 0.01  # of the neurons of a region, in each step
LOSS = lambda out, target: jnp.mean(((out - target) / TARGET) ** 2)


def measured(part: dict[str, Any]) -> dict[str, Any]:
    """`part`: neurons, synapses, drive, steps, rounds, and `methods` (rule, window or None) or
    `updates`.
    """
    begun = time.perf_counter()
    network = generated(part["neurons"], part["synapses"])
    row: dict[str, Any] = {"neurons": network.neurons, "synapses": network.synapses.nse}
    row["made"] = time.perf_counter() - begun
    if "updates" in part:
        row |= _learning(network, part)
    else:
        row |= _times(network, part)
    return row | {"resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def _times(network: Network, part: dict[str, Any]) -> dict[str, Any]:
    """Methods in turn with the plain simulation, so that noise hits both."""
    step, carry, rounds = cell(network), started(network), part["rounds"]
    steps = part["steps"]
    drive = jnp.full(steps, part["drive"])
    plain = jax.jit(lambda w, s, x: jax.lax.scan(lambda s, x: step(w, s, x), s, x))
    first, (carry, out) = _clock(plain, network.weights, carry, drive)  # past the first spikes
    simulate = lambda: plain(network.weights, carry, drive)
    row: dict[str, Any] = {"rate": float(out.mean()), "plain": {"first": first}, "methods": {}}
    alone = []
    for rule, window in part["methods"]:
        begun = time.perf_counter()
        learner = braintrace.compile(
            step, rule, drive[0], params=network.weights, carry=carry, **RULES[rule]
        )
        analysed = time.perf_counter() - begun
        state = learner.init(network.weights, carry)
        few = drive[: min(steps, 8)] if window == 1 else drive
        target = jnp.full((len(few), out.shape[1]), TARGET)
        gradient = jax.jit(
            lambda w, s, x, y, learner=learner, window=window: learner.etrace_grad(
                w, s, x, y, loss_fn=LOSS, window=window
            )
        )
        begun = time.perf_counter()
        memory = gradient.lower(network.weights, state, few, target).compile().memory_analysis()
        compiled = time.perf_counter() - begun
        run = lambda gradient=gradient, state=state, few=few, target=target: gradient(
            network.weights, state, few, target
        )
        _clock(run)
        pairs = [(_clock(simulate)[0] / steps, _clock(run)[0] / len(few)) for _ in range(rounds)]
        alone += [a for a, _ in pairs]
        row["methods"][f"{rule}, window 1" if window == 1 else rule] = {
            "step": statistics.median(b for _, b in pairs),
            "ratio": statistics.median(b / a for a, b in pairs),
            "analysis": analysed,
            "compile": compiled,
            "traces": sum(v.nbytes for v in jax.tree.leaves(state)) - _bytes(carry),
            "peak": memory.temp_size_in_bytes
            + memory.output_size_in_bytes
            + memory.argument_size_in_bytes,
        }
    return row | {"plain": {"first": first, "step": statistics.median(alone)}}


def _learning(network: Network, part: dict[str, Any]) -> dict[str, Any]:
    """Every synapse is trained, so that each region fires at its own rate."""
    step, carry, steps = cell(network), started(network), part["steps"]
    drive = jnp.full(steps, part["drive"])
    regions = network.pool.shape[0]
    wanted = jnp.broadcast_to(TARGET * (0.5 + jnp.arange(regions) / regions), (steps, regions))
    (rule, _), *_ = part["methods"]
    learner = braintrace.compile(
        step, rule, drive[0], params=network.weights, carry=carry, **RULES[rule]
    )

    @jax.jit
    def update(weights: u.Quantity, state: Any) -> tuple[u.Quantity, Any, jax.Array]:
        gradient, state, info = learner.etrace_grad(weights, state, drive, wanted, loss_fn=LOSS)
        size = u.math.sqrt(u.math.mean(gradient**2))
        new = weights - part["rate"] * u.mV * (gradient / size)
        return u.math.maximum(new, 0 * u.mV), state, info.losses.mean()

    weights, state, losses = network.weights, learner.init(network.weights, carry), []
    for _ in range(part["updates"]):
        weights, state, loss = update(weights, state)
        losses.append(float(loss))
    change = u.math.abs(weights - network.weights) / u.mV
    return {"losses": losses, "changed": float((change > 0).mean())}


def _clock(f: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    begun = time.perf_counter()
    result = jax.block_until_ready(f(*arguments))
    return time.perf_counter() - begun, result


def _bytes(tree: Any) -> int:
    return sum(v.nbytes for v in jax.tree.leaves(tree))


if __name__ == "__main__":
    print(json.dumps(measured(json.loads(sys.argv[1]))))
