"""Japanese Vowels: which of nine men is speaking?"""

from dataclasses import dataclass
from importlib import resources

import numpy as np

from ..core._domains import flag
from ._sequences import Sequences, pad_sequences

_STEPS = 29  # the longest of all utterances; both sets are padded to it


@dataclass(frozen=True, eq=False)
class JapaneseVowels:
    """The Japanese Vowels recordings, split as they were published.

    Attributes:
        train: 270 utterances, 30 of each speaker: x `(29, 270, 12)`.
        test: 370 utterances, 24 to 88 of each speaker, recorded on other occasions: x `(29, 370,
            12)`.
        mean: `(12,)` float32. The mean of each coefficient over the frames of the training set as
            published.
        std: `(12,)` float32. Its standard deviation over the same frames.

    >>> from braintrace import tasks
    >>> data = tasks.japanese_vowels()
    >>> data.train.x.shape, data.test.x.shape
    ((29, 270, 12), (29, 370, 12))
    """

    train: Sequences
    test: Sequences
    mean: np.ndarray
    std: np.ndarray


def japanese_vowels(*, standardize: bool = True) -> JapaneseVowels:
    """Load the Japanese Vowels recordings that come with the package.

    Nine male speakers said the two vowels /ae/ in succession; the task is to tell who speaks. A
    frame is 25.6 ms of sound sampled at 10 kHz, and the next one starts 6.4 ms later; an utterance
    has 7 to 29 of them. A frame is given as 12 LPC cepstrum coefficients, in increasing order,
    which have no unit. Labels are 0 to 8, for the speakers 1 to 9.

    Args:
        standardize: subtract from each coefficient its mean over the frames of the training set and
            divide by its standard deviation there; padding stays zero. The test set is treated with
            the same values. With False the coefficients are those published, to their six
            decimals.

    Source:
        M. Kudo, J. Toyama, M. Shimbo: Japanese Vowels. UCI Machine Learning Repository,
        doi:10.24432/C5NS47, licensed under CC BY 4.0. Described in M. Kudo, J. Toyama, M. Shimbo:
        Multidimensional curve classification using passing-through regions. Pattern Recognition
        Letters 20 (11-13), 1103-1111, 1999, doi:10.1016/S0167-8655(99)00077-X. The note
        `data/japanese_vowels.md` beside the data says what was changed.

    >>> from braintrace import tasks
    >>> tasks.japanese_vowels().train.label[:5].tolist()
    [0, 0, 0, 0, 0]
    """
    flag("standardize", standardize)
    with (
        (resources.files("braintrace.tasks") / "data" / "japanese_vowels.npz").open("rb") as file,
        np.load(file, allow_pickle=False) as stored,
    ):
        arrays = dict(stored)
    reference = arrays["train_x"].astype(np.float64)
    mean, std = reference.mean(0), reference.std(0)

    def split(name: str) -> Sequences:
        frames = arrays[f"{name}_x"]
        if standardize:
            frames = (frames - mean) / std
        return pad_sequences(
            frames, arrays[f"{name}_length"], arrays[f"{name}_label"], steps=_STEPS
        )

    return JapaneseVowels(
        split("train"), split("test"), mean.astype(np.float32), std.astype(np.float32)
    )
