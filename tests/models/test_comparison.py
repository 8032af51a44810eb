import itertools
import math

import numpy as np
import pytest

from models.comparison import RESAMPLES, class_gains, compare, interval, mcnemar, resampled_sums, score
from models.predictions import Predictions


def judged(right, clip_ids=None, classes=2):
    """Predictions that are right or wrong as told."""
    logits_BN = np.array([[1, 0] if hit else [0, 1] for hit in right], np.float32)
    names = clip_ids or [f"c{i:03d}" for i in range(len(right))]
    return Predictions(["a", "b"], names, np.zeros(len(right), np.int64), logits_BN)


def test_a_score_averages_parts_and_counts_a_clip_once():
    found = score([judged([1, 0], ["a", "b"]), judged([1, 1, 1, 0], ["b", "c", "d", "e"])])
    assert found.accuracy == pytest.approx((1 / 2 + 3 / 4) / 2)
    assert list(found.clip_ids) == ["a", "b", "c", "d", "e"]
    assert found.weights_B.tolist() == [0.5, 0.75, 0.25, 0.25, 0.25]
    assert found.hits_B.tolist() == [0.5, 0.25, 0.25, 0.25, 0.0]


def test_resampling_has_the_distribution_of_all_draws():
    """Four units: all 256 draws are known, with their shares."""
    units = np.array([[0.0, 1.0], [1.0, 1.0], [1.0, 1.0], [3.0, 2.0]])
    every = [tuple(units[list(draw)].sum(axis=0)) for draw in itertools.product(range(4), repeat=4)]
    expected = {value: every.count(value) / 256 for value in set(every)}
    sums = [tuple(row) for row in resampled_sums(units, resamples=40_000)]
    assert set(sums) <= set(expected)
    for value, share in expected.items():
        assert sums.count(value) / 40_000 == pytest.approx(share, abs=0.012)


def test_the_paired_interval_equals_a_naive_twin_with_loops():
    random = np.random.default_rng(3)
    first, second = random.random(60) < 0.6, random.random(60) < 0.75
    found = compare(score([judged(first)]), score([judged(second)]))
    differences = []
    for _ in range(6000):
        draw = [int(i) for i in random.integers(0, 60, 60)]
        differences.append(sum(int(second[i]) - int(first[i]) for i in draw) / 60)
    differences.sort()
    assert found.difference == pytest.approx((second.sum() - first.sum()) / 60)
    assert found.low == pytest.approx(differences[150], abs=0.02)
    assert found.high == pytest.approx(differences[5849], abs=0.02)
    tail = min(sum(d <= 1e-12 for d in differences), sum(d >= -1e-12 for d in differences)) / 6000
    assert found.p_value == pytest.approx(2 * tail, abs=0.02)


def test_the_same_run_twice_is_no_difference():
    run = score([judged([1, 0, 1, 1])])
    found = compare(run, run)
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_no_number_of_resamples_shows_that_chance_is_impossible():
    found = compare(score([judged([0] * 40)]), score([judged([1] * 40)]))
    assert found.p_value == pytest.approx(2 / (RESAMPLES + 1))


def test_pairing_narrows_the_interval():
    """The second run is right wherever the first is, and once more: the clips' own luck cancels out."""
    first, second = [1] * 50 + [0] * 50, [1] * 53 + [0] * 47
    found = compare(score([judged(first)]), score([judged(second)]))
    low, high = interval(score([judged(second)]))
    assert found.high - found.low < 0.5 * (high - low)
    assert found.low >= 0


def test_whole_groups_widen_the_interval():
    """Ten groups whose clips are all right or all wrong are ten observations, not a hundred."""
    run = score([judged(([1] * 10 + [0] * 10) * 5)])
    groups = {clip_id: str(i // 10) for i, clip_id in enumerate(run.clip_ids)}
    by_clip, by_group = interval(run), interval(run, groups=groups)
    assert by_group[1] - by_group[0] == pytest.approx((by_clip[1] - by_clip[0]) * math.sqrt(10), rel=0.15)


def test_only_shared_clips_are_compared():
    found = compare(score([judged([1, 1, 0], list("abc"))]), score([judged([0, 1], list("bd"))]))
    assert (found.clips, found.first, found.second) == (1, 1.0, 0.0)
    with pytest.raises(ValueError, match="no predicted clip in common"):
        compare(score([judged([1], ["a"])]), score([judged([1], ["b"])]))


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (3, 9), (5, 5), (0, 12)])
def test_mcnemar_is_the_exact_two_sided_binomial_test(b, c):
    first = judged([1] * b + [0] * c + [1, 0])
    second = judged([0] * b + [1] * c + [1, 0])
    found = mcnemar(first, second)
    tail = sum(math.comb(b + c, k) for k in range(max(b, c), b + c + 1)) / 2 ** (b + c)
    assert (found.only_first, found.only_second) == (b, c)
    assert found.p_value == pytest.approx(min(1, 2 * tail))


def test_gains_by_class_name_the_largest_first():
    labels, classes = ["a", "b", "c"], np.array([0, 0, 1, 1])
    first = Predictions(labels, list("wxyz"), classes, np.eye(3, dtype=np.float32)[[0, 0, 0, 1]])
    second = Predictions(labels, list("wxyz"), classes, np.eye(3, dtype=np.float32)[[0, 2, 1, 1]])
    rows = [(row.label, row.clips, row.first, row.second, row.gain) for row in class_gains(first, second)]
    assert rows == [("b", 2, 0.5, 1.0, 0.5), ("a", 2, 1.0, 0.5, -0.5)]
