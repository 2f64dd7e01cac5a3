"""The shipped recordings are the published ones, and batches of them are what they say."""

import numpy as np
import pytest

from braintrace.tasks import JapaneseVowels, Sequences, japanese_vowels, minibatches, pad_sequences

# Read from the published files with decimal arithmetic: the sum of each coefficient over all
# frames, in millionths.
TRAIN_SUMS = (3714556909, -2369939149, 1051870250, -1142413528, 935906118, -899840437)
TRAIN_SUMS += (-743954416, -220987292, -875876432, -774422520, -100830342, 368478536)
TEST_SUMS = (4292591468, -2896597517, 1238767749, -1734069895, 1313607516, -1392299980)
TEST_SUMS += (-887276347, -240227143, -1201907366, -1025201560, -139236838, 525336483)


@pytest.fixture(scope="module")
def raw() -> JapaneseVowels:
    return japanese_vowels(standardize=False)


@pytest.fixture(scope="module")
def data() -> JapaneseVowels:
    return japanese_vowels()


def splits(vowels: JapaneseVowels) -> tuple[Sequences, Sequences]:
    return vowels.train, vowels.test


def test_shapes_and_types(data):
    for split, count in zip(splits(data), (270, 370), strict=True):
        assert [(a.shape, a.dtype) for a in split] == [
            ((29, count, 12), np.float32),
            ((29, count), np.bool_),
            ((count,), np.int32),
            ((count,), np.int32),
        ]


def test_utterances_per_speaker(raw):
    assert np.bincount(raw.train.label).tolist() == [30] * 9
    assert np.bincount(raw.test.label).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]


def test_lengths(raw):
    assert (raw.train.length.min(), raw.train.length.max(), raw.train.length.sum()) == (7, 26, 4274)
    assert (raw.test.length.min(), raw.test.length.max(), raw.test.length.sum()) == (7, 29, 5687)


@pytest.mark.parametrize("standardize", [False, True])
def test_mask_is_the_length_and_padding_is_zero(standardize):
    for split in splits(japanese_vowels(standardize=standardize)):
        assert np.array_equal(split.mask, np.arange(29)[:, None] < split.length)
        assert not split.x[~split.mask].any()
        assert split.x[split.mask].all(-1).mean() > 0.99  # and frames are not
        assert np.isfinite(split.x).all()


def test_every_decimal_of_the_published_numbers(raw):
    for split, sums in zip(splits(raw), (TRAIN_SUMS, TEST_SUMS), strict=True):
        millionths = split.x[split.mask].astype(np.float64) * 1e6
        assert np.abs(millionths - np.rint(millionths)).max() < 0.2
        assert tuple(np.rint(millionths).astype(np.int64).sum(0)) == sums


def test_order_of_frames(raw):
    first, last = raw.train.x[:, 0], raw.test.x[:, -1]
    assert raw.train.length[0] == 20
    np.testing.assert_array_equal(first[:3, 0], np.float32([1.860936, 1.891651, 1.939205]))
    np.testing.assert_array_equal(first[:20, 11][[0, -1]], np.float32([0.088728, -0.175986]))
    assert last[raw.test.length[-1] - 1, 11] == np.float32(0.224688)


def test_standardized_by_the_training_frames_alone(raw, data):
    frames = data.train.x[data.train.mask].astype(np.float64)
    np.testing.assert_allclose(frames.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(frames.std(0), 1, atol=1e-6)
    test_frames = data.test.x[data.test.mask]
    assert np.abs(test_frames.mean(0)).max() > 0.01  # control: the test set has other moments
    np.testing.assert_allclose(
        test_frames * data.std + data.mean, raw.test.x[raw.test.mask], atol=1e-6
    )


def test_an_epoch_deals_out_every_sequence_once(data):
    batches = list(minibatches(data.train, 60, seed=0, drop_remainder=False))
    assert [batch.label.size for batch in batches] == [60, 60, 60, 60, 30]
    assert all(batch.x.shape == (29, batch.label.size, 12) for batch in batches)
    dealt = [np.concatenate([batch.x.swapaxes(0, 1) for batch in batches]), *_joined(batches)]
    index = [_position(data.train.x, sequence) for sequence in dealt[0]]
    assert sorted(index) == list(range(270))
    assert np.array_equal(dealt[1], data.train.mask[:, index])
    assert np.array_equal(dealt[2], data.train.label[index])
    assert np.array_equal(dealt[3], data.train.length[index])


def test_remainder_is_dropped(data):
    batches = list(minibatches(data.train, 40, seed=0))
    assert [batch.x.shape for batch in batches] == [(29, 40, 12)] * 6


def test_seed_and_epoch_fix_the_order(data):
    def order(**options):
        return np.concatenate([batch.label for batch in minibatches(data.train, 30, **options)])

    assert np.array_equal(order(seed=1, epoch=2), order(seed=1, epoch=2))
    assert not np.array_equal(order(seed=1, epoch=2), order(seed=1, epoch=3))
    assert not np.array_equal(order(seed=1, epoch=2), order(seed=2, epoch=2))
    assert np.array_equal(order(seed=None), data.train.label)


@pytest.mark.parametrize("batch_size", [0, 271])
def test_impossible_batch_size(data, batch_size):
    with pytest.raises(ValueError, match=rf"Invalid batch_size\.\n  got:      {batch_size}\n"):
        minibatches(data.train, batch_size, seed=0)


def test_padding():
    frames = np.arange(6.0).reshape(3, 2) + 1
    padded = pad_sequences(frames, np.array([1, 2]), np.array([5, 6]), steps=3)
    assert padded.x[:, 0].tolist() == [[1, 2], [0, 0], [0, 0]]
    assert padded.x[:, 1].tolist() == [[3, 4], [5, 6], [0, 0]]
    assert padded.mask.T.tolist() == [[True, False, False], [True, True, False]]
    assert pad_sequences(frames, np.array([1, 2]), np.array([5, 6])).x.shape == (2, 2, 2)


@pytest.mark.parametrize(
    ("length", "label", "steps", "message"),
    [
        ([1, 2], [0], None, "1 labels for 2 lengths"),
        ([1, 1], [0, 0], None, "3 frames, lengths from 0 that add up to 2"),
        ([1, 2], [0, 0], 1, "1 steps, a sequence of 2 frames"),
    ],
)
def test_impossible_padding(length, label, steps, message):
    with pytest.raises(ValueError, match=message):
        pad_sequences(np.zeros((3, 2)), np.array(length), np.array(label), steps=steps)


def _joined(batches):
    """Masks, labels and lengths of all batches."""
    return (
        np.concatenate([batch.mask for batch in batches], axis=1),
        np.concatenate([batch.label for batch in batches]),
        np.concatenate([batch.length for batch in batches]),
    )


def _position(x, sequence):
    """Where in `x` this `(T, C)` sequence stands."""
    (matches,) = np.nonzero((x == sequence[:, None]).all((0, 2)))
    assert matches.size == 1
    return int(matches[0])
