"""How much better one run is than another, with the uncertainty that few test clips leave. Free of torch.

Shape legend: B clips, U units that are drawn anew (clips, or groups of clips), R resamples, V columns, N classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.predictions import Predictions, binomial_p_value, class_accuracy, confusion, hits

RESAMPLES = 10_000
_LEVEL = 0.95
_CHUNK_CELLS = 10_000_000


@dataclass(frozen=True)
class Score:
    """Weighted hits of clips: accuracy is the sum of the hits over the sum of the weights.

    Attributes:
        hits_B: each clip's weight where the prediction is right, its share of it where several were averaged.
        weights_B: each clip's weight.
    """

    clip_ids: Sequence[str]
    hits_B: NDArray[np.float64]
    weights_B: NDArray[np.float64]

    @property
    def accuracy(self) -> float:
        return float(self.hits_B.sum() / self.weights_B.sum())


def score(parts: Sequence[Predictions], *, among: int = 1) -> Score:
    """Averages accuracies: each part weighs the same, a clip in several parts counts once with all its hits.

    Args:
        parts: of seeds, or of splits.
        among: a hit is a class among the first few.
    """
    total: dict[str, NDArray[np.float64]] = {}
    for part in parts:
        weight = 1 / len(part.clip_ids)
        for clip_id, hit in zip(part.clip_ids, hits(part, among=among), strict=True):
            total[clip_id] = total.get(clip_id, np.zeros(2)) + np.array([weight * hit, weight])
    clip_ids = sorted(total)
    sums_B2 = np.array([total[clip_id] for clip_id in clip_ids])
    return Score(clip_ids, sums_B2[:, 0], sums_B2[:, 1])


def interval(found: Score, *, groups: Mapping[str, str] | None = None, seed: int = 0) -> tuple[float, float]:
    """Bootstrap interval (95 %, percentiles) of an accuracy.

    Args:
        groups: clip_id → group: whole groups are drawn, because clips of one sequence are alike; None draws clips.
    """
    columns_BV = np.stack([found.hits_B, found.weights_B], axis=1)
    sums_RV = resampled_sums(_by_group(found.clip_ids, columns_BV, groups), seed=seed)
    return percentiles(sums_RV[:, 0] / sums_RV[:, 1])


@dataclass(frozen=True)
class Difference:
    """How much more accurate the second run is.

    Attributes:
        clips: that both predicted.
        first, second, difference: accuracies on these, and second − first.
        low, high: paired bootstrap interval (95 %) of the difference.
        p_value: share of resamples on the other side of no difference, twice; the sample itself counts as one
            resample, so it is never zero (Davison & Hinkley 1997, section 4.2).
    """

    clips: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    p_value: float


def compare(
    first: Score, second: Score, *, groups: Mapping[str, str] | None = None, seed: int = 0
) -> Difference:
    """Paired: both runs are judged on the same draws of the clips that they share.

    Raises:
        ValueError: they share no clip.
    """
    rows = {clip_id: i for i, clip_id in enumerate(second.clip_ids)}
    shared = [(i, rows[clip_id]) for i, clip_id in enumerate(first.clip_ids) if clip_id in rows]
    if not shared:
        raise ValueError("the two runs have no predicted clip in common; evaluate them on one split")
    ours, theirs = map(list, zip(*shared, strict=True))
    columns_BV = np.stack(
        [first.hits_B[ours], first.weights_B[ours], second.hits_B[theirs], second.weights_B[theirs]], axis=1
    )
    units_UV = _by_group([first.clip_ids[i] for i in ours], columns_BV, groups)
    sums_RV = resampled_sums(units_UV, seed=seed)
    differences_R = sums_RV[:, 2] / sums_RV[:, 3] - sums_RV[:, 0] / sums_RV[:, 1]
    total_V = columns_BV.sum(axis=0)
    accuracies = float(total_V[0] / total_V[1]), float(total_V[2] / total_V[3])
    low, high = percentiles(differences_R)
    # Sums of the same hits in another order differ in the last bit: that is no difference.
    beyond = min(int((differences_R <= 1e-12).sum()), int((differences_R >= -1e-12).sum()))
    tail = (beyond + 1) / (len(differences_R) + 1)
    return Difference(len(shared), *accuracies, accuracies[1] - accuracies[0], low, high, min(1.0, 2 * tail))


def resampled_sums(
    units_UV: NDArray[np.float64], *, resamples: int = RESAMPLES, seed: int = 0
) -> NDArray[np.float64]:
    """Sums of the columns over U units drawn with replacement, [R, V].

    Units with equal values are drawn together, as a multinomial number of them: the same distribution, and of cost
    that does not grow with the number of clips.
    """
    distinct_DV, counts_D = np.unique(units_UV, axis=0, return_counts=True)
    random = np.random.Generator(np.random.Philox(key=np.array([seed, 0], np.uint64)))
    step = max(1, _CHUNK_CELLS // len(distinct_DV))
    sums = [
        random.multinomial(len(units_UV), counts_D / len(units_UV), size=min(step, resamples - begin))
        @ distinct_DV
        for begin in range(0, resamples, step)
    ]
    return np.concatenate(sums)


def percentiles(values_R: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 %."""
    low, high = np.quantile(values_R, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)


def _by_group(
    clip_ids: Sequence[str], columns_BV: NDArray[np.float64], groups: Mapping[str, str] | None
) -> NDArray[np.float64]:
    if groups is None:
        return columns_BV
    names = [groups.get(clip_id) or clip_id for clip_id in clip_ids]
    index = {name: i for i, name in enumerate(dict.fromkeys(names))}
    units_UV = np.zeros((len(index), columns_BV.shape[1]))
    np.add.at(units_UV, [index[name] for name in names], columns_BV)
    return units_UV


@dataclass(frozen=True)
class Disagreement:
    """McNemar's exact test on the clips that only one of two runs gets right.

    Attributes:
        only_first, only_second: numbers of such clips.
        p_value: two-sided probability of as uneven numbers, were both runs equally good.
    """

    only_first: int
    only_second: int
    p_value: float


def mcnemar(first: Predictions, second: Predictions) -> Disagreement:
    """On the clips that both predicted."""
    right = dict(zip(second.clip_ids, hits(second), strict=True))
    pairs = [(a, right[c]) for c, a in zip(first.clip_ids, hits(first), strict=True) if c in right]
    only_first, only_second = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
    trials = only_first + only_second
    tail = binomial_p_value(max(only_first, only_second), trials, 0.5) if trials else 1.0
    return Disagreement(only_first, only_second, min(1.0, 2 * tail))


@dataclass(frozen=True)
class ClassGain:
    """One class under two runs: its clips and both accuracies."""

    label: str
    clips: int
    first: float
    second: float

    @property
    def gain(self) -> float:
        return self.second - self.first


def class_gains(first: Predictions, second: Predictions) -> list[ClassGain]:
    """By class, the largest gain first; classes without clips are left out.

    Raises:
        ValueError: the runs know different classes.
    """
    if list(first.labels) != list(second.labels):
        raise ValueError("the runs know different classes; train them on one clips table")
    clips_N = confusion(first).sum(axis=1).tolist()
    rows = zip(first.labels, clips_N, class_accuracy(first), class_accuracy(second), strict=True)
    found = [ClassGain(label, clips, float(a), float(b)) for label, clips, a, b in rows if clips]
    return sorted(found, key=lambda row: (-row.gain, row.label))
