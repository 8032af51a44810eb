import math

import numpy as np
import pytest

from models.predictions import Predictions, binomial_p_value, fused, measure


def predictions(logits, classes, clip_ids=None, labels=None):
    logits_BN = np.array(logits, np.float32)
    names = clip_ids or [f"c{i}" for i in range(len(logits))]
    return Predictions(labels or list("abcdefgh")[: logits_BN.shape[1]], names, np.array(classes), logits_BN)


def test_top_1_and_top_5_of_known_logits():
    ladder = [6, 5, 4, 3, 2, 1, 0]
    metrics = measure(predictions([ladder] * 4, [0, 1, 4, 5]))
    assert (metrics["top1"], metrics["top5"]) == (0.25, 0.75)
    assert (metrics["clips"], metrics["classes"], metrics["chance"]) == (4, 7, 0.25)


def test_of_equal_logits_the_first_class_counts():
    assert measure(predictions([[0, 0, 0]] * 3, [0, 1, 2]))["top1"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("hits", "trials", "chance"), [(0, 5, 0.2), (3, 5, 0.2), (5, 5, 1 / 6), (20, 60, 1 / 6)]
)
def test_the_p_value_is_the_binomial_tail(hits, trials, chance):
    exact = sum(
        math.comb(trials, k) * chance**k * (1 - chance) ** (trials - k) for k in range(hits, trials + 1)
    )
    assert binomial_p_value(hits, trials, chance) == pytest.approx(exact, rel=1e-9)


def test_one_class_is_no_evidence():
    assert binomial_p_value(9, 9, 1.0) == 1.0


def test_fusion_adds_weighted_logits_of_the_shared_clips():
    first = predictions([[1, 0], [0, 3], [5, 0]], [1, 1, 0], ["a", "b", "c"])
    second = predictions([[0, 2], [4, 0]], [1, 1], ["a", "b"])
    found = fused({"rgb": first, "flow": second}, [1.0, 0.5])
    assert found.clip_ids == ["a", "b"]
    assert found.logits_BN.tolist() == [[1, 1], [2, 3]]
    assert found.classes_B.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        (predictions([[1, 2]], [0], ["z"]), "no predicted clip in common"),
        (predictions([[1, 2]], [0], ["c0"], labels=["x", "y"]), "know different classes"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(other, complaint):
    with pytest.raises(ValueError, match=complaint):
        fused({"rgb": predictions([[1, 2]], [0]), "flow": other}, [1, 1])
