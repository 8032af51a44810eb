import math
from pathlib import Path

import numpy as np
import pytest

from models.predictions import (
    Predictions,
    binomial_p_value,
    class_accuracy,
    confusion,
    fused,
    hits,
    measure,
    pooled,
    read_predictions,
    write_predictions,
)
from models.runs import RunFolder
from stores.checks import Damaged


def predictions(logits, classes, clip_ids=None, labels=None):
    logits_BN = np.array(logits, np.float32)
    names = clip_ids or [f"c{i}" for i in range(len(logits))]
    return Predictions(labels or list("abcdefgh")[: logits_BN.shape[1]], names, np.array(classes), logits_BN)


@pytest.mark.parametrize("kept", [0.0, 0.5], ids=["empty", "cut"])
def test_damaged_predictions_are_named_with_their_cure(tmp_path, kept):
    found = predictions([[1, 0], [0, 1]], [0, 1])
    folder = RunFolder(str(tmp_path), "rgb")
    write_predictions(folder, found)
    path = Path(folder.uri("predictions.parquet"))
    content = path.read_bytes()
    assert read_predictions("rgb", workspace=str(tmp_path)).clip_ids == found.clip_ids
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(
        Damaged, match=r"predictions.parquet is damaged; remove it and run `perfnet evaluate rgb`"
    ):
        read_predictions("rgb", workspace=str(tmp_path))


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
    found = fused([(first, 1.0), (second, 0.5)])
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
        fused([(predictions([[1, 2]], [0]), 1), (other, 1)])


def random_predictions(seed, clips=40, classes=7):
    random = np.random.default_rng(seed)
    # Few distinct values, so that ties occur.
    logits = random.integers(0, 4, (clips, classes))
    return predictions(logits, random.integers(0, classes - 1, clips))


@pytest.mark.parametrize("seed", range(5))
def test_measures_equal_their_naive_twins(seed):
    found = random_predictions(seed)
    right, among_5, table = [], [], [[0] * 7 for _ in range(7)]
    for logits, true in zip(found.logits_BN, found.classes_B, strict=True):
        ranked = sorted(range(7), key=lambda n: (-logits[n], n))
        right.append(ranked[0] == true)
        among_5.append(true in ranked[:5])
        table[true][ranked[0]] += 1
    by_class = [row[n] / sum(row) for n, row in enumerate(table) if sum(row)]
    metrics = measure(found)
    assert hits(found).tolist() == right
    assert metrics["top1"] == pytest.approx(sum(right) / 40)
    assert metrics["top5"] == pytest.approx(sum(among_5) / 40)
    assert confusion(found).tolist() == table
    assert metrics["mean_class"] == pytest.approx(sum(by_class) / len(by_class))
    assert np.isnan(class_accuracy(found)[6])  # no clip has the last class


def test_a_rare_class_weighs_as_much_as_a_frequent_one():
    found = measure(predictions([[1, 0]] * 10, [0] * 9 + [1]))
    assert (found["top1"], found["mean_class"]) == (0.9, 0.5)


def test_folds_are_pooled_in_the_order_of_the_clips():
    found = pooled([predictions([[1, 0], [0, 3]], [1, 0], ["d", "a"]), predictions([[5, 0]], [0], ["b"])])
    assert found.clip_ids == ["a", "b", "d"]
    assert found.logits_BN.tolist() == [[0, 3], [5, 0], [1, 0]]
    assert found.classes_B.tolist() == [0, 0, 1]
    with pytest.raises(ValueError, match="clip 'a' is a test clip of two folds"):
        pooled([predictions([[1, 0]], [1], ["a"])] * 2)
