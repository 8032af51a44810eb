"""What evaluated runs predicted: reading and writing it, measuring it, adding it up. Free of torch.

Shape legend: B clips, N classes.
"""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from models.runs import RunFolder
from stores import files, keys
from stores.checks import Damaged


@dataclass(frozen=True)
class Predictions:
    """Logits of clips, sorted by clip_id.

    Attributes:
        labels: the label map, N names.
        clip_ids, classes_B: the clips and their true classes.
        logits_BN: float32.
    """

    labels: Sequence[str]
    clip_ids: Sequence[str]
    classes_B: NDArray[np.int64]
    logits_BN: NDArray[np.float32]


class Metrics(TypedDict):
    """How good predictions are.

    Keys:
        clips, classes: how many there are.
        top1, top5: share of clips whose class is the first, or among the first five.
        mean_class: top-1 of each class that has clips, averaged over these classes.
        chance: share that the most frequent class would get.
        p_value: probability of as many hits or more by chance (one-sided binomial test against 1 / classes).
    """

    clips: int
    classes: int
    top1: float
    top5: float
    mean_class: float
    chance: float
    p_value: float


def hits(predictions: Predictions, *, among: int = 1) -> NDArray[np.bool_]:
    """Whether a clip's class is among the first few, [B]. Of equal logits the first class counts as the higher."""
    order_BN = np.argsort(-predictions.logits_BN, axis=1, kind="stable")[:, :among]
    return (order_BN == predictions.classes_B[:, None]).any(axis=1)


def measure(predictions: Predictions) -> Metrics:
    """Top-1, top-5, mean class accuracy and the probability of the top-1 hits by chance."""
    clips, classes = predictions.logits_BN.shape
    hits_B = hits(predictions)
    return Metrics(
        clips=clips,
        classes=classes,
        top1=float(hits_B.mean()),
        top5=float(hits(predictions, among=5).mean()),
        mean_class=float(np.nanmean(class_accuracy(predictions))),
        chance=float(np.bincount(predictions.classes_B).max() / clips),
        p_value=binomial_p_value(int(hits_B.sum()), clips, 1 / classes),
    )


def class_accuracy(predictions: Predictions) -> NDArray[np.float64]:
    """Top-1 of each class, [N]; NaN for classes without clips."""
    counts_NN = confusion(predictions)
    clips_N = counts_NN.sum(axis=1)
    return np.divide(np.diag(counts_NN), clips_N, out=np.full(len(clips_N), np.nan), where=clips_N > 0)


def confusion(predictions: Predictions) -> NDArray[np.int64]:
    """Clips by true class (row) and predicted class (column), [N, N]."""
    classes = predictions.logits_BN.shape[1]
    pairs_B = classes * predictions.classes_B + predictions.logits_BN.argmax(axis=1)
    return np.bincount(pairs_B, minlength=classes**2).reshape(classes, classes)


def binomial_p_value(hits: int, trials: int, chance: float) -> float:
    """Probability of `hits` or more in `trials` independent guesses that are right with probability `chance`."""
    if chance >= 1:
        return 1.0
    terms = (
        math.lgamma(trials + 1)
        - math.lgamma(k + 1)
        - math.lgamma(trials - k + 1)
        + k * math.log(chance)
        + (trials - k) * math.log1p(-chance)
        for k in range(hits, trials + 1)
    )
    return min(1.0, math.fsum(math.exp(term) for term in terms))


def write_predictions(folder: RunFolder, predictions: Predictions) -> None:
    """Writes `predictions.parquet`: clip_id, logits in the order of the label map, label."""
    flat = pa.array(predictions.logits_BN.astype(np.float32).ravel())
    logits = pa.FixedSizeListArray.from_arrays(flat, predictions.logits_BN.shape[1])
    labels = [predictions.labels[i] for i in predictions.classes_B]
    table = pa.table({"clip_id": list(predictions.clip_ids), "logits": logits, "label": labels})
    table = table.replace_schema_metadata({"perfnet.labels": keys.canonical_json(list(predictions.labels))})
    with files.staged(folder.uri("predictions.parquet")) as path:
        pq.write_table(table, path)


def read_predictions(run: str, *, workspace: str) -> Predictions:
    """The predictions of an evaluated run.

    Raises:
        ValueError: it is not evaluated yet.
        Damaged: the file is not what was written.
    """
    uri = RunFolder(workspace, run).uri("predictions.parquet")
    if not files.exists(uri):
        raise ValueError(f"run {run} is not evaluated; run `perfnet evaluate {run}`")
    try:
        with files.open_read(uri) as file:
            return _predictions(pq.read_table(file))
    except (pa.ArrowException, LookupError, TypeError, ValueError) as error:
        where = files.printable(uri)
        raise Damaged(f"{where} is damaged; remove it and run `perfnet evaluate {run}`") from error


def _predictions(table: pa.Table) -> Predictions:
    labels = json.loads(table.schema.metadata[b"perfnet.labels"])
    index = {label: i for i, label in enumerate(labels)}
    classes = np.array([index[label] for label in table["label"].to_pylist()], np.int64)
    logits = np.array(table["logits"].to_pylist(), np.float32)
    return Predictions(labels, table["clip_id"].to_pylist(), classes, logits)


def write_confusion(folder: RunFolder, predictions: Predictions) -> None:
    """Writes `confusion.csv`: one row a true class, one column a predicted class."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["true", *predictions.labels])
    for label, row in zip(predictions.labels, confusion(predictions).tolist(), strict=True):
        writer.writerow([label, *row])
    files.put_bytes(folder.uri("confusion.csv"), text.getvalue().encode())


def fuse(weights: Mapping[str, float], *, workspace: str) -> Predictions:
    """Late fusion: the weighted sum of the runs' logits, on the clips that all of them predicted.

    Args:
        weights: by run.

    Raises:
        ValueError: a run is not evaluated, they know different classes, or share no clip.
    """
    return fused([(read_predictions(run, workspace=workspace), weight) for run, weight in weights.items()])


def fused(parts: Sequence[tuple[Predictions, float]]) -> Predictions:
    """The weighted sum of logits, clip by clip; raises ValueError as `fuse` does."""
    first = parts[0][0]
    _check_labels([part for part, _ in parts])
    rows = [{clip_id: i for i, clip_id in enumerate(part.clip_ids)} for part, _ in parts]
    shared = [clip_id for clip_id in first.clip_ids if all(clip_id in row for row in rows)]
    if not shared:
        raise ValueError(
            "fusion: the runs have no predicted clip in common; evaluate them on one split with `perfnet evaluate`"
        )
    logits_BN = sum(
        weight * part.logits_BN[[row[clip_id] for clip_id in shared]]
        for (part, weight), row in zip(parts, rows, strict=True)
    )
    classes_B = first.classes_B[[rows[0][clip_id] for clip_id in shared]]
    return Predictions(first.labels, shared, classes_B, np.asarray(logits_BN, np.float32))


def pooled(parts: Sequence[Predictions]) -> Predictions:
    """The predictions of several folds as one, sorted by clip_id.

    Raises:
        ValueError: the folds know different classes, or a clip is in two of them.
    """
    _check_labels(parts)
    clip_ids = [clip_id for part in parts for clip_id in part.clip_ids]
    order = sorted(range(len(clip_ids)), key=clip_ids.__getitem__)
    ordered = [clip_ids[i] for i in order]
    twice = next((a for a, b in pairwise(ordered) if a == b), None)
    if twice is not None:
        raise ValueError(f"clip {twice!r} is a test clip of two folds; pool folds that share no clip")
    classes_B = np.concatenate([part.classes_B for part in parts])[order]
    return Predictions(
        parts[0].labels, ordered, classes_B, np.concatenate([p.logits_BN for p in parts])[order]
    )


def _check_labels(parts: Sequence[Predictions]) -> None:
    if any(list(part.labels) != list(parts[0].labels) for part in parts):
        raise ValueError("the runs know different classes; train them on one clips table")
