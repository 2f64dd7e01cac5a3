"""What is measured.

**Cosine.** Networks learn each task by Adam with the exact gradient. At the first parameters and at
the last the gradient of a rule for one batch is set beside the exact one, over all parameters but
the readout's: the mean of both cosines.

**NMSE.** One sample, one value a step: predict the next one, then learn from the error, at every
step (Adam; the rate, out of a few, that is best on the third quarter). The squared error of the
last quarter over the variance of the series. Truncated BPTT learns once in ten steps, from these.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from braintrace.checks import bptt_gradient

from .data import CHANNELS, GRADIENT_TASKS, SERIES
from .methods import TBPTT, Method, squared_error
from .networks import Network

_TRUNCATED = 10
_READOUT = ("o", "o_im")


@dataclasses.dataclass(frozen=True)
class Size:
    """Of an experiment."""

    neurons: int = 64
    seeds: int = 5
    samples: int = 8
    updates: int = 200
    predictions: int = 4000
    rates: tuple[float, ...] = (1e-3, 3e-3)


#: Of the networks that no published figure stands beside.
BESIDE = Size(seeds=3, updates=100, predictions=1500, rates=(3e-3,))
SHORT = Size(neurons=12, seeds=2, samples=2, updates=20, predictions=400, rates=(3e-3,))


def _params(network: Network, size: Size, seed: Array, channels: int) -> PyTree:
    return network.params(jax.random.key(seed), channels, size.neurons, channels)


@functools.cache
def trained(network: Network, size: Size) -> tuple[PyTree, PyTree]:
    """Parameters before and after learning, [seed, task, ...], and fresh trials [task, ...]."""
    optimizer, carry = optax.adam(1e-3), network.carry(size.samples, size.neurons, CHANNELS)
    tasks = GRADIENT_TASKS.values()
    draw = lambda seed: _stacked([task(size.samples, seed) for task in tasks])
    trials = _stacked([draw(1 + k) for k in range(size.updates)])

    def learn(seed: Array, trials: PyTree) -> PyTree:
        start = _params(network, size, seed, CHANNELS)

        def update(both: PyTree, trial: PyTree) -> PyTree:
            params, opt_state = both
            gradient = _exact(network, params, carry, trial)
            change, opt_state = optimizer.update(gradient, opt_state)
            return (optax.apply_updates(params, change), opt_state), None

        (end, _), _ = jax.lax.scan(update, (start, optimizer.init(start)), trials)
        return start, end

    of_tasks = jax.vmap(learn, (None, 1))
    both = jax.jit(jax.vmap(of_tasks, (0, None)))(jnp.arange(size.seeds), trials)
    return both, draw(0)


def _exact(network: Network, params: PyTree, carry: PyTree, trial: PyTree) -> PyTree:
    xs, ys, mask = trial
    return bptt_gradient(network.cell, params, carry, xs, ys, loss_fn=squared_error, mask=mask)[0]


def cosines(method: Method, network: Network, size: Size) -> dict[str, list[float]]:
    """By task, a cosine for each seed; raises what `compile` raises."""
    (before, after), trials = trained(network, size)
    carry = network.carry(size.samples, size.neurons, CHANNELS)
    one = jax.tree.map(lambda v: v[0, 0], before)
    learner = method.learner(network, one, carry, trials[0][0, 0])

    def gradient(params: PyTree, seed: Array, trial: PyTree) -> PyTree:
        xs, ys, mask = trial
        state = method.begun(learner, params, carry, seed)
        return learner.etrace_grad(
            params,
            state,
            xs,
            ys,
            loss_fn=squared_error,
            mask=mask,
            return_state=False,
            **method.targets(ys),
        )[0]

    def cosine(seed: Array, before: PyTree, after: PyTree, trial: PyTree) -> Array:
        found = [
            _cosine(gradient(p, seed, trial), _exact(network, p, carry, trial))
            for p in (before, after)
        ]
        return (found[0] + found[1]) / 2

    of_tasks = lambda seed, before, after: jax.lax.map(
        lambda at: cosine(seed, *at), (before, after, trials)
    )
    found = jax.jit(jax.vmap(of_tasks))(jnp.arange(size.seeds), before, after)
    return dict(zip(GRADIENT_TASKS, np.asarray(found, float).T.tolist(), strict=True))


def _cosine(a: PyTree, b: PyTree) -> Float[Array, ""]:
    a, b = ({k: v for k, v in tree.items() if k not in _READOUT} for tree in (a, b))
    dot = lambda a, b: sum(jnp.vdot(a[k], b[k]) for k in b)
    return dot(a, b) / jnp.maximum(jnp.sqrt(dot(a, a) * dot(b, b)), 1e-30)


def errors(method: Method | None, network: Network, size: Size) -> dict[str, list[float]]:
    """By series, the NMSE of each seed; without a method by truncated BPTT."""
    series = np.stack([make(size.predictions + 1) for make in SERIES.values()])
    carry, optimizer = network.carry(1, size.neurons, 1), optax.inject_hyperparams(optax.adam)(1.0)
    example = _params(network, size, jnp.zeros((), int), 1)
    run = _truncated(network, carry) if method is None else _online(method, network, example, carry)

    def learn(seed: Array, rate: Array, series: Float[Array, " T"]) -> Float[Array, " T"]:
        params = _params(network, size, seed, 1)
        opt_state = optimizer.init(params)
        opt_state.hyperparams["learning_rate"] = rate
        xs, ys = series[:-1, None, None], series[1:, None, None]
        return run(optimizer, params, opt_state, seed, xs, ys)

    seeds, rates = jnp.arange(size.seeds), jnp.asarray(size.rates)
    by_series = jax.vmap(learn, (None, None, 0))
    by_rate = jax.vmap(by_series, (None, 0, None))
    every = jax.jit(jax.vmap(by_rate, (0, None, None)))
    squares = np.asarray(every(seeds, rates, jnp.asarray(series)), float)  # seed, rate, series, T
    third, last = (squares[..., a:b].mean(-1) for a, b in _quarters(squares.shape[-1]))
    best = np.nan_to_num(third.mean(0), nan=np.inf).argmin(0)  # of each series
    return {name: last[:, best[k], k].tolist() for k, name in enumerate(SERIES)}


def _quarters(steps: int) -> tuple[tuple[int, int], tuple[int, int]]:
    return (steps // 2, 3 * steps // 4), (3 * steps // 4, steps)


def _online(method: Method, network: Network, example: PyTree, carry: PyTree) -> Callable[..., Any]:
    learner = method.learner(network, example, carry, jnp.zeros((1, 1)))

    def run(
        optimizer: Any, params: PyTree, opt_state: PyTree, seed: Array, xs: Array, ys: Array
    ) -> Array:
        def one(now: PyTree, at: PyTree) -> PyTree:
            params, opt_state, state = now
            x, y = at

            def objective(params: PyTree) -> PyTree:
                new, out = learner.update(params, state, x, **method.targets(y))
                return squared_error(out, y).sum(), new

            (loss, state), gradient = jax.value_and_grad(objective, has_aux=True)(params)
            change, opt_state = optimizer.update(gradient, opt_state)
            return (optax.apply_updates(params, change), opt_state, state), loss

        start = params, opt_state, method.begun(learner, params, carry, seed)
        return jax.lax.scan(one, start, (xs, ys))[1]

    return run


def _truncated(network: Network, carry: PyTree) -> Callable[..., Any]:
    def run(
        optimizer: Any, params: PyTree, opt_state: PyTree, seed: Array, xs: Array, ys: Array
    ) -> Array:
        def some(now: PyTree, at: PyTree) -> PyTree:
            params, opt_state, carry = now

            def objective(params: PyTree) -> PyTree:
                def step(carry: PyTree, at: PyTree) -> PyTree:
                    carry, out = network.cell(params, carry, at[0])
                    return carry, squared_error(out, at[1]).sum()

                end, losses = jax.lax.scan(step, carry, at)
                return losses.sum(), (losses, end)

            gradient, (losses, carry) = jax.grad(objective, has_aux=True)(params)
            change, opt_state = optimizer.update(gradient, opt_state)
            return (optax.apply_updates(params, change), opt_state, carry), losses

        parts = [v.reshape(-1, _TRUNCATED, *v.shape[1:]) for v in (xs, ys)]
        return jax.lax.scan(some, (params, opt_state, carry), tuple(parts))[1].reshape(-1)

    return run


def _stacked(trees: list[PyTree]) -> PyTree:
    return jax.tree.map(lambda *v: np.stack(v), *trees)


def row(name: str, method: Method | None, network: Network, size: Size) -> dict[str, Any]:
    """Both measurements of one method on one network."""
    found = {} if name == TBPTT else {"cosine": cosines(method, network, size)}
    return {**found, "nmse": errors(method, network, size)}
