"""What evaluated runs predicted: reading and writing it, measuring it, adding it up. Free of torch.

Shape legend: B clips, N classes.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from models.runs import RunFolder
from stores import files, keys
from stores.checks import require


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
        chance: share that the most frequent class would get.
        p_value: probability of as many hits or more by chance (one-sided binomial test against 1 / classes).
    """

    clips: int
    classes: int
    top1: float
    top5: float
    chance: float
    p_value: float


def measure(predictions: Predictions) -> Metrics:
    """Top-1, top-5 and the probability of the top-1 hits by chance."""
    clips, classes = predictions.logits_BN.shape
    # A stable order: of equal logits the first class counts as the higher.
    order_BN = np.argsort(-predictions.logits_BN, axis=1, kind="stable")
    hits_BN = order_BN == predictions.classes_B[:, None]
    top1 = int(hits_BN[:, 0].sum())
    return Metrics(
        clips=clips,
        classes=classes,
        top1=top1 / clips,
        top5=float(hits_BN[:, :5].any(axis=1).mean()),
        chance=float(np.bincount(predictions.classes_B).max() / clips),
        p_value=binomial_p_value(top1, clips, 1 / classes),
    )


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
    """
    uri = RunFolder(workspace, run).uri("predictions.parquet")
    if not files.exists(uri):
        raise ValueError(f"run {run} is not evaluated; run `perfnet evaluate {run}`")
    with files.open_read(uri) as file:
        table = pq.read_table(file)
    labels = json.loads(table.schema.metadata[b"perfnet.labels"])
    index = {label: i for i, label in enumerate(labels)}
    classes = np.array([index[label] for label in table["label"].to_pylist()], np.int64)
    logits = np.array(table["logits"].to_pylist(), np.float32)
    return Predictions(labels, table["clip_id"].to_pylist(), classes, logits)


def fuse(runs: Sequence[str], *, workspace: str, weights: Sequence[float] | None = None) -> Metrics:
    """Late fusion: the weighted sum of the runs' logits, on the clips that all of them predicted.

    Args:
        weights: one a run; None weighs all alike.

    Raises:
        ValueError: a run is not evaluated, they know different classes, or share no clip.
    """
    require("fuse", list(runs), len(runs) >= 1, "at least one run")
    if weights is None:
        weights = [1.0] * len(runs)
    require("--weights", list(weights), len(weights) == len(runs), f"{len(runs)} numbers, one for each run")
    return measure(fused({run: read_predictions(run, workspace=workspace) for run in runs}, weights))


def fused(predictions: Mapping[str, Predictions], weights: Sequence[float]) -> Predictions:
    """The weighted sum of logits, clip by clip; raises ValueError as `fuse` does."""
    (first_run, first), *others = predictions.items()
    for run, other in others:
        if list(other.labels) != list(first.labels):
            raise ValueError(
                f"runs {first_run} and {run} know different classes; train them on one clips table"
            )
    rows = [{clip_id: i for i, clip_id in enumerate(p.clip_ids)} for p in predictions.values()]
    shared = [clip_id for clip_id in first.clip_ids if all(clip_id in row for row in rows)]
    if not shared:
        raise ValueError(
            f"runs {', '.join(predictions)} have no predicted clip in common; run `perfnet evaluate`"
        )
    logits_BN = sum(
        weight * p.logits_BN[[row[clip_id] for clip_id in shared]]
        for weight, p, row in zip(weights, predictions.values(), rows, strict=True)
    )
    classes_B = first.classes_B[[rows[0][clip_id] for clip_id in shared]]
    return Predictions(first.labels, shared, classes_B, np.asarray(logits_BN, np.float32))
