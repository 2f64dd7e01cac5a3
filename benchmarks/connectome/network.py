"""A generated network with the size and the degrees of a fly's brain, of leaky integrate-and-fire
neurons.

Excitatory neurons come first. Out- and in-degrees are log-normal, as heavy-tailed as those of the
connectome of an adult Drosophila; regions have unequal sizes, too.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import brainevent
import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

FLY, SYNAPSES_OF_FLY = 138_639, 15_091_983
EXCITATORY, TAIL, THRESHOLD = 0.7, 1.1, 7 * u.mV
_SLOTS = 1 << 24  # from which targets are drawn
SMOOTHING = 0.9  # of rates
LEAK = float(np.exp(-1 / 20))  # a step of 1 ms, a membrane of 20 ms


@dataclasses.dataclass(frozen=True)
class Network:
    """`synapses`: those of each neuron, row by row, with weights that are all positive; `pool`: the
    neurons of each region.
    """

    synapses: brainevent.CSR  # mV
    excitatory: int  # synapses, which are the first
    bias: jax.Array  # mV in a step
    pool: brainevent.CSR

    @property
    def neurons(self) -> int:
        return self.synapses.shape[0]

    @property
    def weights(self) -> u.Quantity:
        return self.synapses.data


def generated(neurons: int, synapses: int, regions: int = 64, seed: int = 0) -> Network:
    """About as many synapses as asked for: of pairs that are drawn twice there is one."""
    random = np.random.default_rng(seed)
    share = lambda count, tail: (of := random.lognormal(0, tail, count)) / of.sum()
    degrees = random.multinomial(synapses, share(neurons, TAIL))
    slots = random.multinomial(_SLOTS, share(neurons, TAIL))
    chosen = np.repeat(np.arange(neurons), slots)[random.integers(_SLOTS, size=synapses)]
    pairs = np.sort(np.repeat(np.arange(neurons), degrees) * neurons + chosen)
    pairs = pairs[np.diff(pairs, prepend=-1) > 0]
    rows, columns = np.divmod(pairs, neurons)
    starts = np.searchsorted(rows, np.arange(neurons + 1))
    weights = random.gamma(2, 0.15, len(pairs)).astype(np.float32)
    first_inhibitory = int(starts[round(EXCITATORY * neurons)])
    weights[first_inhibitory:] *= 2.2
    region = random.choice(regions, neurons, p=share(regions, 0.8))
    sizes = np.bincount(region, minlength=regions)
    return Network(
        _csr(jnp.asarray(weights) * u.mV, columns, starts, (neurons, neurons)),
        first_inhibitory,
        jnp.asarray(random.normal(0.2, 0.1, neurons), jnp.float32),
        _csr(
            jnp.ones(1),
            np.argsort(region, kind="stable"),
            np.concatenate([[0], np.cumsum(sizes)]),
            (regions, neurons),
        ),
    )


def _csr(
    data: ArrayLike | u.Quantity, indices: np.ndarray, starts: np.ndarray, shape: tuple[int, int]
) -> brainevent.CSR:
    integers = (jnp.asarray(values, jnp.int32) for values in (indices, starts))
    return brainevent.CSR((data, *integers), shape=shape)


@jax.custom_jvp
def spike(distance: jax.Array) -> jax.Array:
    """1 above zero, 0 below."""
    return (distance > 0).astype(distance.dtype)


@spike.defjvp
def _surrogate(
    primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    return spike(*primals), tangents[0] / (1 + 4 * jnp.abs(primals[0])) ** 2


# "v", the "rate" of each region, and with a delay "under_way": the spikes of so many steps
Carry = dict[str, Any]
Cell = Callable[[u.Quantity, Carry, ArrayLike], tuple[Carry, jax.Array]]


def cell(network: Network, delay: int = 0) -> Cell:
    """(weights, carry, drive) -> (new carry, the rate of each region: spikes of a neuron in a
    step). Signs are those of the neurons (Dale); `delay`: of all synapses, in steps.
    """
    number = jnp.arange(network.synapses.nse)
    sizes = jnp.maximum(jnp.diff(network.pool.indptr), 1).astype(jnp.float32)

    def step(weights: u.Quantity, carry: Carry, drive: ArrayLike) -> tuple[Carry, jax.Array]:
        v, later = carry["v"], {}
        z = arriving = spike((v - THRESHOLD) / THRESHOLD)
        if delay:
            arriving, *others = carry["under_way"]
            later["under_way"] = jnp.stack([*others, jax.lax.stop_gradient(z)])
        signed = u.math.where(number < network.excitatory, weights, -weights)
        current = brainevent.BinaryArray(arriving) @ network.synapses.with_data(signed)
        v = LEAK * v - THRESHOLD * jax.lax.stop_gradient(z) + drive * network.bias * u.mV + current
        spikes = brainevent.BinaryArray(spike((v - THRESHOLD) / THRESHOLD))
        now = network.pool.with_data(jnp.ones(1)) @ spikes / sizes
        rate = SMOOTHING * carry["rate"] + (1 - SMOOTHING) * now
        return {"v": v, "rate": rate, **later}, rate

    return step


def started(network: Network, delay: int = 0, seed: int = 1) -> Carry:
    """A state before the first step: voltages at random, nothing under way."""
    random = jnp.asarray(np.random.default_rng(seed).random(network.neurons), jnp.float32)
    waiting = {"under_way": jnp.zeros((delay, network.neurons))} if delay else {}
    rate = jnp.zeros(network.pool.shape[0])
    return {"v": random * THRESHOLD, "rate": rate, **waiting}
