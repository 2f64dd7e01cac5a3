"""Training: the same batches, noise, optimiser and initial weights for every method."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from jaxtyping import PyTree

from ..tasks import Sequences, minibatches
from ._methods import Method, Values, gradient, parameters
from ._networks import COEFFICIENTS


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A network and how it is trained; chosen on held-out parts of the training set.

    Attributes:
        name: of the network.
        network: makes one, with random weights.
        epochs: passes over the training set.
        rate: learning rate of Adam at the start; it falls to zero along a cosine.
        noise: standard deviation of noise on every coefficient of every frame.
        shift: standard deviation of a random shift of the coefficients that lasts for an utterance,
            as another microphone would cause. Coefficients have standard deviation 1.
    """

    name: str
    network: Callable[[], brainstate.nn.Module]
    epochs: int
    rate: float
    noise: float = 0.4
    shift: float = 0.4
    batch: int = 30


@dataclasses.dataclass(frozen=True)
class Run:
    """One seed of one method."""

    losses: list[float]  # mean over the batches, for each epoch
    accuracies: dict[int, float]  # on the test set, by epoch
    seconds: float  # of training; compilation and testing not included
    weights: Values


class Trainer:
    """A network with one method: compiled once, run with several seeds."""

    def __init__(self, recipe: Recipe, method: Method):
        self.recipe, self.method = recipe, method
        self.network: Any = recipe.network()
        self.weights: Any = self.network.states(brainstate.ParamState)
        self.states = parameters(self.network, method)
        self.gradient, self.certificate = gradient(self.network, method, recipe.batch)
        self._optimizer: Any = optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam())
        self.step: Any = brainstate.transform.jit(self._step)

    def _step(
        self, moments: PyTree, rate: ArrayLike, *batch: jax.Array
    ) -> tuple[PyTree, jax.Array]:
        gradients, loss = self.gradient(*batch)
        updates, moments = self._optimizer.update(gradients, moments)
        for path, state in self.states.items():
            state.value = jax.tree.map(lambda w, u: w - rate * u, state.value, updates[path])
        return moments, loss

    def warm_up(self, data: Sequences) -> None:
        """Compile."""
        self.step(self.moments(), np.float32(0), *next(batches(self.recipe, data, 0, 0)))

    def moments(self) -> PyTree:
        """The optimiser's state before the first step."""
        return self._optimizer.init({path: state.value for path, state in self.states.items()})

    def memory(self, steps: int) -> int | None:
        """Bytes of temporary memory of the compiled training step for sequences of this length."""
        shape = (steps, self.recipe.batch)
        data = jnp.zeros((*shape, COEFFICIENTS)), jnp.zeros(shape), jnp.zeros(shape[1], jnp.int32)
        compiled = self.step.lower(self.moments(), np.float32(0), *data).compile()
        return getattr(compiled.memory_analysis(), "temp_size_in_bytes", None)

    def run(
        self,
        data: Sequences,
        seed: int,
        score: Callable[[Values], float],
        every: int,
        report: Callable[[int, float, float | None], None],
    ) -> Run:
        """Train from new weights; `score` gives the test accuracy of weights, and only looks on.
        `report` is told the epoch, the loss, and the test accuracy where it was measured.
        """
        self.weights.assign_dict_values(new_weights(self.recipe, seed))
        moments, losses, accuracies, seconds = self.moments(), [], {}, 0.0
        count = self.recipe.epochs * (data.label.size // self.recipe.batch)
        falling = 0.5 * (1 + np.cos(np.pi * np.arange(count) / count))
        rates = iter((self.recipe.rate * falling).astype(np.float32))
        for epoch in range(1, self.recipe.epochs + 1):
            given = list(batches(self.recipe, data, seed, epoch - 1))
            start = time.perf_counter()
            of_epoch = []
            for batch in given:
                moments, loss = self.step(moments, next(rates), *batch)
                of_epoch.append(loss)
            losses.append(float(np.mean(jax.device_get(of_epoch))))
            seconds += time.perf_counter() - start
            if epoch == self.recipe.epochs or epoch % every == 0:
                accuracies[epoch] = score(self.weights.to_dict_values())
            report(epoch, losses[-1], accuracies.get(epoch))
        return Run(losses, accuracies, seconds, self.weights.to_dict_values())


def batches(
    recipe: Recipe, data: Sequences, seed: int, epoch: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """An epoch of (frames, weight, label), with noise; seed and epoch alone decide what comes."""
    random = np.random.default_rng((seed, epoch, 1))
    for x, mask, label, _ in minibatches(data, recipe.batch, seed=seed, epoch=epoch):
        noise = recipe.noise * random.standard_normal(x.shape)
        noisy = x + noise + recipe.shift * random.standard_normal(x.shape[1:])
        frames = (noisy * mask[..., None]).astype(np.float32)
        yield frames, (mask / mask.sum()).astype(np.float32), label


def scorer(recipe: Recipe, data: Sequences) -> Callable[[Values], float]:
    """A function from weights to the accuracy on `data`: a network of its own sums the
    log-probabilities of all frames.
    """
    network: Any = recipe.network()
    held = network.states(brainstate.ParamState)
    brainstate.nn.init_all_states(network, batch_size=data.label.size)

    def decide() -> jax.Array:
        brainstate.nn.reset_all_states(network, batch_size=data.label.size)
        evidence = jax.nn.log_softmax(brainstate.transform.for_loop(network, data.x))
        return (evidence * data.mask[..., None]).sum(0).argmax(-1)

    compiled: Any = brainstate.transform.jit(decide)

    def score(weights: Values) -> float:
        held.assign_dict_values(weights)
        return float(np.mean(np.asarray(compiled()) == data.label))

    return score


def new_weights(recipe: Recipe, seed: int) -> Values:
    """Random weights; the same for every method."""
    with brainstate.random.seed_context(seed):
        network: Any = recipe.network()
        return network.states(brainstate.ParamState).to_dict_values()
