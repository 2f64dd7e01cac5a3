"""Tasks that are generated: seeded, as NumPy arrays, time first."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Shaped

from ..core._domains import fraction, number, positive, whole
from ..core._errors import UsageError

Seed = int | Sequence[int]  # as NumPy's generators take it


class Trials(NamedTuple):
    """A batch of B trials of T steps.

    Attributes:
        x: `(T, B, I)` float32, the inputs.
        y: `(T, B)` int32 for a task of classes (the class wanted at each step), `(T, B, O)` float32
            for a regression.
        mask: `(T, B)` float32, 1 at the steps whose output counts.

    >>> from braintrace import tasks
    >>> trials = tasks.copy_memory(4, seed=0, length=2, delay=3)
    >>> trials.x.shape, trials.y.shape, trials.mask.shape
    ((7, 4, 10), (7, 4), (7, 4))
    """

    x: Float32[np.ndarray, "T B I"]
    y: Shaped[np.ndarray, "T B *O"]
    mask: Float32[np.ndarray, "T B"]


def delayed_match_to_sample(
    batch: int,
    *,
    seed: Seed,
    delay: int = 50,
    stimulus: int = 10,
    response: int = 10,
    channels: int = 20,
    noise: float = 0.1,
) -> Trials:
    """Two stimuli with a delay between them: was the second like the first?

    Each stimulus raises one of two halves of the channels. Classes: 0 different, 1 the same, asked
    for during the response.

    Args:
        batch: B.
        seed: a whole number, or several; fixes the trials.
        delay, stimulus, response: lengths in steps; T = 2 stimulus + delay + response.
        channels: I.
        noise: standard deviation of Gaussian noise on the inputs.

    >>> from braintrace import tasks
    >>> tasks.delayed_match_to_sample(
    ...     4, seed=0, delay=5, stimulus=2, response=3
    ... ).x.shape  # (T, B, I)
    (12, 4, 20)
    """
    lengths = {"batch": batch, "stimulus": stimulus, "response": response, "channels": channels}
    _check(seed, lengths, delay, channels_of=2)
    positive("noise", noise, zero=True)
    random = np.random.default_rng(seed)
    first, second = random.integers(0, 2, (2, batch))
    steps = 2 * stimulus + delay + response
    x = noise * random.normal(size=(steps, batch, channels))
    half = np.arange(channels) * 2 // channels
    for start, which in ((0, first), (stimulus + delay, second)):
        x[start : start + stimulus] += which[:, None] == half
    return _asked(x, first == second, response)


def evidence_accumulation(
    batch: int,
    *,
    seed: Seed,
    cues: int = 7,
    cue: int = 100,
    slot: int = 150,
    delay: int = 1050,
    recall: int = 150,
    channels: int = 40,
    rate: float = 0.04,
    background: float = 0.01,
    majority: float = 0.7,
) -> Trials:
    """The click task: cues come from the left or the right; after a delay, which side had more?

    Spikes of four populations: left cues, right cues, a recall signal, and background noise that is
    always on. A cue comes from the trial's side with probability `majority`. Defaults are those of
    Bellec et al. 2020 (40 inputs, 7 cues of 100 ms in slots of 150 ms, 1,200 ms from the last slot
    to the end, of which the last 150 are the recall; one step is 1 ms).

    Args:
        batch: B.
        seed: a whole number, or several; fixes the trials.
        cues, cue, slot, delay, recall: number of cues and lengths in steps; T = cues slot + delay +
            recall.
        channels: I, a multiple of 4.
        rate: probability of a spike per step in a population that is on (40 Hz).
        background: that of the noise population (10 Hz).
        majority: probability that a cue comes from the trial's side.

    Returns:
        Trials of classes 0 (left) and 1 (right, more cues), asked for during the recall.

    >>> from braintrace import tasks
    >>> tasks.evidence_accumulation(2, seed=0, cues=3, cue=4, slot=6, delay=10, recall=5).x.shape
    (33, 2, 40)
    """
    lengths = {"batch": batch, "cues": cues, "cue": cue, "slot": slot, "recall": recall}
    _check(seed, {**lengths, "channels": channels}, delay)
    for name, value in (("rate", rate), ("background", background), ("majority", majority)):
        fraction(name, value, one=True)
    if cue > slot:
        expected = f"at most a slot, {slot} steps"
        raise UsageError("A cue is longer than its slot.", got=cue, expected=expected)
    if channels % 4:
        expected = "a multiple of 4, one quarter a population"
        raise UsageError("Invalid channels.", got=channels, expected=expected)
    random = np.random.default_rng(seed)
    side = random.integers(0, 2, batch)
    sides = np.where(random.random((cues, batch)) < majority, side, 1 - side)
    steps, quarter = cues * slot + delay + recall, channels // 4
    probability = np.zeros((steps, batch, 4, quarter))
    for k in range(cues):
        end = (k + 1) * slot
        probability[end - cue : end, :, :2] = rate * (sides[k][:, None] == [0, 1])[..., None]
    probability[steps - recall :, :, 2] = rate
    probability[:, :, 3] = background
    x = random.random(probability.shape) < probability
    return _asked(x.reshape(steps, batch, channels), sides.sum(0) * 2 > cues, recall)


def copy_memory(
    batch: int, *, seed: Seed, symbols: int = 8, length: int = 10, delay: int = 20
) -> Trials:
    """A string of symbols is shown, then a delay, then a signal: say the string.

    Inputs are one-hot: the symbols, a blank and the signal (I = symbols + 2). Classes are the
    symbols.

    Args:
        batch: B.
        seed: a whole number, or several; fixes the trials.
        symbols: number of different symbols.
        length: of the string; T = 2 length + delay.
        delay: steps between the string and the signal.

    >>> from braintrace import tasks
    >>> tasks.copy_memory(4, seed=0, symbols=3, length=2, delay=3).mask[
    ...     :, 0
    ... ].sum()  # the symbols that are asked for
    np.float32(2.0)
    """
    _check(seed, {"batch": batch, "symbols": symbols, "length": length}, delay)
    random = np.random.default_rng(seed)
    string = random.integers(0, symbols, (length, batch))
    steps = 2 * length + delay
    code = np.full((steps, batch), symbols)
    code[:length] = string
    code[length + delay :] = symbols + 1
    y = np.zeros((steps, batch), int)
    y[length + delay :] = string
    return _asked(np.eye(symbols + 2)[code], y, length)


def pattern_generation(
    batch: int,
    *,
    seed: Seed,
    steps: int = 1000,
    channels: int = 20,
    targets: int = 1,
    rate: float = 0.05,
    periods: tuple[float, ...] = (1000.0, 500.0, 333.0, 200.0),
    pattern_seed: int | None = None,
) -> Trials:
    """Produce a fixed sum of sines from a frozen spike pattern that marks the time.

    Args:
        batch: B; every sample has the same input and target.
        seed: fixes the input, and the target where `pattern_seed` is not given.
        steps: T, one step is 1 ms.
        channels: I.
        targets: O, number of signals.
        rate: probability of an input spike per step.
        periods: of the sines, in steps.
        pattern_seed: fixes the target.

    >>> from braintrace import tasks
    >>> tasks.pattern_generation(2, seed=0).y.dtype.name
    'float32'
    """
    _check(seed, {"batch": batch, "steps": steps, "channels": channels, "targets": targets})
    fraction("rate", rate, one=True)
    if pattern_seed is not None:
        whole("pattern_seed", pattern_seed, least=0)
    of_time = isinstance(periods, tuple | list) and all(0 < number(p) < np.inf for p in periods)
    if not of_time or not periods:
        expected = "a tuple of numbers of steps, above 0"
        raise UsageError("Invalid periods.", got=repr(periods), expected=expected)
    random = np.random.default_rng(seed)
    spikes = (random.random((steps, 1, channels)) < rate).astype(np.float32)
    shape = np.random.default_rng(seed if pattern_seed is None else pattern_seed)
    t = np.arange(steps)[:, None, None]
    amplitude = shape.uniform(0.5, 2.0, (targets, len(periods)))
    phase = shape.uniform(0, 2 * np.pi, (targets, len(periods)))
    signal = (amplitude * np.sin(2 * np.pi * t / np.asarray(periods) + phase)).sum(-1)
    signal = signal / np.abs(signal).max(0, keepdims=True)
    y = np.repeat(signal[:, None].astype(np.float32), batch, axis=1)
    return Trials(np.repeat(spikes, batch, axis=1), y, np.ones((steps, batch), np.float32))


def delayed_xor(
    batch: int,
    *,
    seed: Seed,
    delay: int = 20,
    pulse: int = 5,
    response: int = 5,
    channels: int = 2,
    noise: float = 0.05,
) -> Trials:
    """Two binary pulses with a delay between them: are they different?

    Channel 0 carries the pulses (+1 or -1), channel 1 the signal to answer; further channels hold
    noise. Classes 0 and 1.

    Args:
        batch: B.
        seed: a whole number, or several; fixes the trials.
        delay, pulse, response: lengths in steps; T = 2 pulse + 2 delay + response.
        channels: I, at least 2.
        noise: standard deviation of Gaussian noise on the inputs.

    >>> from braintrace import tasks
    >>> sorted(set(tasks.delayed_xor(8, seed=0).y.ravel().tolist()))
    [0, 1]
    """
    lengths = {"batch": batch, "pulse": pulse, "response": response, "channels": channels}
    _check(seed, lengths, delay, channels_of=2)
    positive("noise", noise, zero=True)
    random = np.random.default_rng(seed)
    bits = random.integers(0, 2, (2, batch))
    steps = 2 * pulse + 2 * delay + response
    x = noise * random.normal(size=(steps, batch, channels))
    for k, start in enumerate((0, pulse + delay)):
        x[start : start + pulse, :, 0] += 2 * bits[k] - 1
    x[steps - response :, :, 1] += 1
    return _asked(x, bits[0] ^ bits[1], response)


def _check(
    seed: Seed, lengths: dict[str, int], delay: int = 0, channels_of: int | None = None
) -> None:
    """What every task asks of its arguments."""
    for each in seed if isinstance(seed, list | tuple) and seed else [seed]:
        whole("seed", each, least=0)
    whole("delay", delay, least=0)
    for name, value in lengths.items():
        whole(name, value, least=channels_of or 1 if name == "channels" else 1)


def _asked(x: np.ndarray, answer: np.ndarray, count: int) -> Trials:
    """Trials of classes whose answer is asked for in the last `count` steps."""
    y = np.broadcast_to(answer, x.shape[:2]).astype(np.int32, order="C")
    mask = np.zeros(y.shape, np.float32)
    mask[len(x) - count :] = 1
    return Trials(x.astype(np.float32), y, mask)
