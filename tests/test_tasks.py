"""The generated tasks: what a trial says, and that the answer follows from it."""

import numpy as np
import pytest

from braintrace import tasks

MAKERS = [
    tasks.delayed_match_to_sample,
    tasks.evidence_accumulation,
    tasks.copy_memory,
    tasks.pattern_generation,
    tasks.delayed_xor,
]


@pytest.mark.parametrize("make", MAKERS)
def test_a_seed_fixes_the_trials(make):
    a, b, c = make(4, seed=1), make(4, seed=1), make(4, seed=2)
    assert all(np.array_equal(u, v) for u, v in zip(a, b, strict=True))
    assert not np.array_equal(a.x, c.x)
    assert (
        a.x.dtype == a.mask.dtype == np.float32 and a.x.shape[:2] == a.y.shape[:2] == a.mask.shape
    )
    assert a.mask.sum() > 0


def test_match_to_sample_compares_the_two_stimuli():
    trials = tasks.delayed_match_to_sample(64, seed=0, delay=5, stimulus=4, response=3, noise=0.0)
    first, second = trials.x[0].argmax(-1), trials.x[4 + 5].argmax(-1)
    assert np.array_equal(trials.y[-1], first == second)
    assert np.array_equal(
        trials.x[4:9], np.zeros_like(trials.x[4:9])
    )  # nothing is seen in the delay
    assert 0.2 < trials.y[-1].mean() < 0.8


def test_evidence_is_the_majority_of_the_cues():
    trials = tasks.evidence_accumulation(200, seed=0, rate=1.0)
    assert trials.x.shape == (7 * 150 + 1200, 200, 40)
    left, right = trials.x[: 7 * 150, :, 0].sum(0), trials.x[: 7 * 150, :, 10].sum(0)
    assert np.array_equal(left + right, np.full(200, 700))
    assert np.array_equal(trials.y[-1], right > left)
    assert trials.x[7 * 150 : -150, :, :30].sum() == 0 and trials.x[-150:, :, 20:30].all()
    assert trials.mask.sum(0).tolist() == [150.0] * 200


def test_copy_asks_for_the_string():
    trials = tasks.copy_memory(8, seed=0, symbols=5, length=3, delay=4)
    assert np.array_equal(trials.y[-3:], trials.x[:3].argmax(-1))
    assert (trials.x[3:7].argmax(-1) == 5).all() and (trials.x[7:].argmax(-1) == 6).all()


def test_xor_of_the_pulses():
    trials = tasks.delayed_xor(64, seed=0, noise=0.0)
    assert np.array_equal(trials.y[-1], trials.x[0, :, 0] != trials.x[25, :, 0])


def test_patterns_are_bounded_and_shared_by_the_samples():
    trials = tasks.pattern_generation(3, seed=0, targets=2)
    assert np.abs(trials.y).max() == pytest.approx(1.0)
    assert np.array_equal(trials.y[:, 0], trials.y[:, 2])


def test_wrong_channels_are_refused():
    with pytest.raises(ValueError, match="multiple of 4"):
        tasks.evidence_accumulation(2, seed=0, channels=6)
    with pytest.raises(ValueError, match="at least 2"):
        tasks.delayed_xor(2, seed=0, channels=1)
