"""What evaluated runs got right and wrong, as rows of the report's tables.

Shape legend: N classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.comparison import ClassGain, class_gains, interval, score
from models.predictions import Metrics, Predictions, confusion, measure

_MOST_CLASSES = 25
_MOST_MISTAKES = 20


@dataclass(frozen=True)
class Accuracy:
    """One network; low and high are the ends of the 95 % interval of its top-1."""

    run: str
    metrics: Metrics
    low: float
    high: float


def accuracies(evaluated: Mapping[str, Predictions], groups: Mapping[str, str] | None) -> list[Accuracy]:
    """A row a run; `groups` as in `models.comparison.interval`."""
    return [
        Accuracy(run, measure(predictions), *interval(score([predictions]), groups=groups))
        for run, predictions in evaluated.items()
    ]


def gains_over_rgb(evaluated: Mapping[str, Predictions]) -> dict[str, list[ClassGain]]:
    """Run → gain of each class, the largest first; empty where rgb or all others are missing."""
    rgb = evaluated.get("rgb")
    return {
        run: class_gains(rgb, predictions)
        for run, predictions in evaluated.items()
        if rgb and run in ("pose", "flow", "student") and list(predictions.labels) == list(rgb.labels)
    }


def gain_rows(gains: Mapping[str, Sequence[ClassGain]]) -> list[tuple[str, int, float, list[float]]]:
    """(class, clips, accuracy of rgb, gain of each run), in the order of the first run."""
    by_label = [{row.label: row.gain for row in rows} for rows in gains.values()]
    first = next(iter(gains.values()), [])
    return [
        (row.label, row.clips, row.first, [found.get(row.label, 0.0) for found in by_label]) for row in first
    ]


@dataclass(frozen=True)
class Confusion:
    """One run's confusion matrix.

    Attributes:
        cells: row a true class → (clips, share of the row); empty for more classes than a page can show.
        mistakes: (true class, taken for, clips, share of the class), the most frequent first.
    """

    run: str
    labels: Sequence[str]
    cells: Sequence[Sequence[tuple[int, float]]]
    mistakes: Sequence[tuple[str, str, int, float]]


def confusions(evaluated: Mapping[str, Predictions]) -> list[Confusion]:
    """One a run, the student's first."""
    runs = sorted(evaluated, key=lambda run: run != "student")
    return [_confusion(run, evaluated[run]) for run in runs]


def _confusion(run: str, predictions: Predictions) -> Confusion:
    counts_NN = confusion(predictions)
    clips_N1 = np.maximum(counts_NN.sum(axis=1, keepdims=True), 1)
    shares_NN = counts_NN / clips_N1
    cells = []
    if len(predictions.labels) <= _MOST_CLASSES:
        cells = [
            list(zip(counts, shares, strict=True))
            for counts, shares in zip(counts_NN.tolist(), shares_NN.tolist(), strict=True)
        ]
    wrong_NN = counts_NN - np.diag(np.diag(counts_NN))
    order = np.argsort(-wrong_NN, axis=None, kind="stable")[:_MOST_MISTAKES]
    places = [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, wrong_NN.shape), strict=True)]
    labels = predictions.labels
    mistakes = [
        (labels[i], labels[j], int(wrong_NN[i, j]), float(shares_NN[i, j]))
        for i, j in places
        if wrong_NN[i, j]
    ]
    return Confusion(run, labels, cells, mistakes)


def guesses(predictions: Predictions | None) -> dict[str, str]:
    """clip_id → what a run takes it for."""
    if predictions is None:
        return {}
    taken = predictions.logits_BN.argmax(axis=1).tolist()
    return {c: predictions.labels[i] for c, i in zip(predictions.clip_ids, taken, strict=True)}
