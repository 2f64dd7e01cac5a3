"""Labelled sequences of unequal length, padded and time-major, and minibatches of them."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..core._domains import described, flag, whole
from ..core._errors import UsageError


class Sequences(NamedTuple):
    """N labelled sequences of up to T frames with C channels, time first, padded with zeros at the
    end.

    These are NumPy arrays in host memory; a jitted function takes them as they are, and the tuple
    is a pytree.

    Attributes:
        x: `(T, N, C)` float32. The frames; zero wherever `mask` is False.
        mask: `(T, N)` bool. True where `x` holds a frame of the sequence, False where it is padded.
            As the mask of a loss it weighs every frame alike, so a longer sequence counts for more.
        label: `(N,)` int32. The class of each sequence, counted from 0.
        length: `(N,)` int32. The number of frames of each sequence, so `mask[t, n] == (t <
            length[n])`.

    >>> import numpy as np
    >>> from braintrace import tasks
    >>> tasks.pad_sequences(np.ones((5, 2)), np.array([2, 3]), np.array([0, 1])).mask.T.tolist()
    [[True, True, False], [True, True, True]]
    """

    x: np.ndarray
    mask: np.ndarray
    label: np.ndarray
    length: np.ndarray


def pad_sequences(
    frames: np.ndarray, length: np.ndarray, label: np.ndarray, *, steps: int | None = None
) -> Sequences:
    """Lay sequences that stand one after another side by side, time first, padded with zeros.

    Args:
        frames: `(sum(length), C)`. The frames of the first sequence, then those of the second, and
            so on.
        length: `(N,)` integers. How many of the frames belong to each sequence.
        label: `(N,)` integers. The class of each sequence.
        steps: T, the number of steps to pad to. By default the longest length.

    Raises:
        UsageError: if the lengths do not add up to the number of frames, if there is not one label
            for each length, or if a sequence is longer than `steps`.

    >>> import numpy as np
    >>> from braintrace import tasks
    >>> tasks.pad_sequences(np.ones((5, 2)), np.array([2, 3]), np.array([0, 1]), steps=4).x.shape
    (4, 2, 2)
    """
    length, label = _whole_numbers("length", length), _whole_numbers("label", label)
    frames = np.asarray(frames)
    if frames.ndim != 2 or not np.isrealobj(frames) or frames.dtype.kind not in "biuf":
        expected = "real numbers, (sum of the lengths, channels)"
        raise UsageError("Invalid frames.", got=described(frames), expected=expected)
    if label.shape != length.shape:
        raise UsageError(
            "Each sequence needs a length and a label.",
            got=f"{label.size} labels for {length.size} lengths",
            expected="one label for each length",
        )
    if length.sum() != len(frames) or length.min(initial=0) < 0:
        raise UsageError(
            "The lengths do not add up to the frames.",
            got=f"{len(frames)} frames, lengths from {length.min(initial=0)} that add up to "
            f"{length.sum()}",
            expected="as many frames as the lengths say",
        )
    longest = int(length.max(initial=0))
    if steps is not None and whole("steps", steps) < longest:
        raise UsageError(
            "A sequence is longer than what it is padded to.",
            got=f"{steps} steps, a sequence of {longest} frames",
            expected=f"at least {longest} steps",
        )
    steps = longest if steps is None else steps
    mask = np.arange(steps)[:, None] < length
    x = np.zeros((length.size, steps, frames.shape[1]), np.float32)
    x[mask.T] = frames  # batch first, since that is the order in which the frames stand
    return Sequences(np.ascontiguousarray(x.swapaxes(0, 1)), mask, label, length)


def _whole_numbers(name: str, value: np.ndarray) -> np.ndarray:
    found = np.asarray(value)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        expected = "whole numbers, one for each sequence"
        raise UsageError(f"Invalid {name}.", got=described(found), expected=expected)
    return found.astype(np.int32)


def minibatches(
    data: Sequences,
    batch_size: int,
    *,
    seed: int | None,
    epoch: int = 0,
    drop_remainder: bool = True,
) -> Iterator[Sequences]:
    """Deal out one epoch of `data` in batches, each sequence at most once.

    Every batch has the T of `data`, so a jitted training step compiles once. The order depends on
    `seed` and `epoch` alone: a run that is resumed at a later epoch sees the batches it would have
    seen. A training loop is

        for epoch in range(epochs):
            for batch in minibatches(data.train, 30, seed=0, epoch=epoch):
                ...

    Args:
        data: N sequences.
        batch_size: B, the number of sequences of a batch; 1 to N.
        seed: with `epoch`, fixes the shuffled order. None keeps the order of `data`.
        epoch: which epoch to deal out; each has an order of its own.
        drop_remainder: leave out the last N mod B sequences of the order, which differ from epoch
            to epoch. With False they come as a last, smaller batch, for which a jitted function
            compiles again.

    Yields:
        Batches with x `(T, B, C)`, mask `(T, B)`, label `(B,)` and length `(B,)`.

    Raises:
        UsageError: if `batch_size` is not in 1 to N.

    >>> from braintrace import tasks
    >>> len(list(tasks.minibatches(tasks.japanese_vowels().train, 90, seed=0)))
    3
    """
    if not isinstance(data, Sequences):
        got, expected = described(data), "Sequences, such as japanese_vowels().train"
        raise UsageError("Invalid data.", got=got, expected=expected)
    count, expected = data.label.size, "a whole number from 1 to the number of sequences"
    if whole("batch_size", batch_size, expected) > count:
        raise UsageError("Invalid batch_size.", got=batch_size, expected=f"{expected}, {count}")
    whole("epoch", epoch, least=0)
    flag("drop_remainder", drop_remainder)
    if seed is not None:
        whole("seed", seed, least=0)
    order = (
        np.arange(count)
        if seed is None
        else np.random.default_rng((seed, epoch)).permutation(count)
    )
    stop = count - count % batch_size if drop_remainder else count
    chosen = (order[start : start + batch_size] for start in range(0, stop, batch_size))
    x, mask, label, length = data
    return (Sequences(x[:, at], mask[:, at], label[at], length[at]) for at in chosen)
