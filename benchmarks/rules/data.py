"""The tasks: four whose gradients are compared, three series that are predicted one step ahead."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

CHANNELS = 4  # inputs and outputs of every gradient task; what a task does not use is zero
STEPS = 50

Trials = tuple[Float[np.ndarray, "T B I"], Float[np.ndarray, "T B O"], Float[np.ndarray, "T B"]]


def _empty(samples: int, steps: int) -> Trials:
    zeros = np.zeros((steps, samples, CHANNELS), np.float32)
    return zeros, zeros.copy(), np.zeros((steps, samples), np.float32)


def copy(samples: int, seed: int, steps: int = STEPS) -> Trials:
    """Two binary channels are shown for a fifth of the time, and said again at the end; channel 3
    asks.
    """
    xs, ys, mask = _empty(samples, steps)
    length = steps // 5
    shown = np.random.default_rng(seed).choice([-1.0, 1.0], (length, samples, 2))
    xs[:length, :, :2] = ys[-length:, :, :2] = shown
    xs[-length:, :, 2] = mask[-length:] = 1
    return xs, ys, mask


def adding(samples: int, seed: int, steps: int = STEPS) -> Trials:
    """Hochreiter and Schmidhuber 1997: the sum of the two numbers that were marked, at the end."""
    xs, ys, mask = _empty(samples, steps)
    random = np.random.default_rng(seed)
    xs[:, :, 0] = random.uniform(0, 1, (steps, samples))
    half = steps // 2
    for b in range(samples):
        marked = [random.integers(0, half), random.integers(half, steps - 1)]
        xs[marked, b, 1] = 1
        ys[-1, b, 0] = xs[marked, b, 0].sum()
    mask[-1] = 1
    return xs, ys, mask


def rotation(samples: int, seed: int, steps: int = STEPS) -> Trials:
    """A point on the circle is given once; where it is later, turning by a fixed angle a step."""
    xs, ys, mask = _empty(samples, steps)
    start = np.random.default_rng(seed).uniform(0, 2 * np.pi, samples)
    angles = start + 0.2 * np.arange(steps)[:, None]
    turning = np.stack([np.cos(angles), np.sin(angles)], -1)
    xs[0, :, :2], ys[:, :, :2] = turning[0], turning
    mask[1:] = 1
    return xs, ys, mask


def counting(samples: int, seed: int, steps: int = STEPS) -> Trials:
    """a^n b^n, n drawn anew for each word: the next symbol, one-hot (a, b, end)."""
    xs, ys, mask = _empty(samples, steps)
    random = np.random.default_rng(seed)
    for b in range(samples):
        text = []
        while len(text) <= steps:
            n = random.integers(1, max(2, steps // 6))
            text += [0] * n + [1] * n + [2]
        xs[np.arange(steps), b, text[:steps]] = 1
        ys[np.arange(steps), b, text[1 : steps + 1]] = 1
    mask[:] = 1
    return xs, ys, mask


def henon(steps: int) -> Float[np.ndarray, " T"]:
    """x <- 1 - 1.4 x^2 + y, y <- 0.3 x."""
    found, x, y = np.empty(steps), 0.1, 0.0
    for k in range(steps):
        x, y = 1 - 1.4 * x * x + y, 0.3 * x
        found[k] = x
    return _standard(found)


def mackey_glass(steps: int, delay: int = 17, each: int = 10) -> Float[np.ndarray, " T"]:
    """dx/dt = 0.2 x(t-17) / (1 + x(t-17)^10) - 0.1 x, by Euler steps of 0.1, one value a unit of
    time.
    """
    lag, warm = delay * each, 300
    x = np.full(lag + (steps + warm) * each, 1.2)
    for k in range(lag, len(x)):
        late = x[k - lag]
        x[k] = x[k - 1] + (0.2 * late / (1 + late**10) - 0.1 * x[k - 1]) / each
    return _standard(x[lag + warm * each :: each])


def lorenz(steps: int, dt: float = 0.05, each: int = 10) -> Float[np.ndarray, " T"]:
    """The first coordinate of the Lorenz system (10, 28, 8/3), by Runge-Kutta steps of 0.005."""

    def slope(s: np.ndarray) -> np.ndarray:
        x, y, z = s
        return np.array([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])

    state, found, warm, step = np.array([1.0, 1.0, 1.0]), [], 100, dt / each
    for _ in range(steps + warm):
        for _ in range(each):
            a = slope(state)
            b = slope(state + step / 2 * a)
            c = slope(state + step / 2 * b)
            d = slope(state + step * c)
            state = state + step / 6 * (a + 2 * b + 2 * c + d)
        found.append(state[0])
    return _standard(np.array(found[warm:]))


def _standard(series: np.ndarray) -> Float[np.ndarray, " T"]:
    """Of mean 0 and variance 1."""
    return ((series - series.mean()) / series.std()).astype(np.float32)


GRADIENT_TASKS: dict[str, Callable[..., Trials]] = {
    "copy": copy,
    "adding": adding,
    "rotation": rotation,
    "a^n b^n": counting,
}
SERIES: dict[str, Callable[[int], np.ndarray]] = {
    "Hénon": henon,
    "Mackey-Glass": mackey_glass,
    "Lorenz": lorenz,
}
