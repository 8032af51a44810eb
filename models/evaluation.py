"""Judges trained runs by one central crop a clip, and fuses their predictions.

Shape legend: B clips, N classes.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from models.callbacks import Progress
from models.checkpoint import Checkpoint, load_checkpoint
from models.data import AlignedWindows, CentralWindows, batches_in_order
from models.hardware import autocast, device, use_threads
from models.options import ModelOptions
from models.runs import RunFolder, evaluation_document, select_evaluation
from models.selection import LabelledClip
from models.streams import network_input
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


def evaluate(
    run: str, *, workspace: str, options: ModelOptions, progress: Progress = lambda line: None
) -> Metrics:
    """Predicts the clips of `evaluate.on` with a trained run; writes predictions.parquet and metrics.json.

    Raises:
        ValueError: the run is not trained, has seen a clip on which it would be judged, does not know a label,
            or there is no clip to judge it by.
    """
    folder = RunFolder(workspace, run)
    use_threads(options.train.threads)
    document = evaluation_document(run, workspace=workspace, options=options)
    checkpoint = load_checkpoint(folder.checkpoint)
    selection = select_evaluation(run, workspace=workspace, options=options)
    clips = selection.require(options.evaluate.on, options.data.split)
    _check_unseen(folder, clips)
    classes = _classes(clips, checkpoint, run)
    dataset = AlignedWindows(
        {checkpoint.stream: selection.readers[checkpoint.stream]},
        clips,
        choose=CentralWindows(options.evaluate),
    )
    logits_BN = _logits(checkpoint, dataset, options, lambda n: progress(f"{run}: {n} of {len(clips)} clips"))
    found = Predictions(checkpoint.labels, [c.clip_id for c in clips], classes, logits_BN)
    _write(folder, found)
    metrics = measure(found)
    folder.put_json("metrics.json", metrics)
    folder.put_json("evaluation.json", {"key": keys.digest(document), "document": document})
    return metrics


def _check_unseen(folder: RunFolder, clips: Sequence[LabelledClip]) -> None:
    trained_on = {clip_id for clip_id, row in folder.clips().items() if row["split"] == "train"}
    seen = [clip.clip_id for clip in clips if clip.clip_id in trained_on]
    if seen:
        raise ValueError(
            f"run {folder.run} was trained on {len(seen)} of the clips that would judge it, the first is {seen[0]!r}; "
            f"run `perfnet train {folder.run}`"
        )


def _classes(clips: Sequence[LabelledClip], checkpoint: Checkpoint, run: str) -> NDArray[np.int64]:
    index = {label: i for i, label in enumerate(checkpoint.labels)}
    for clip in clips:
        if clip.label not in index:
            raise ValueError(
                f"clip {clip.clip_id!r} has the label {clip.label!r}, which run {run} was not trained on; "
                f"run `perfnet train {run}`"
            )
    return np.array([index[clip.label] for clip in clips], np.int64)


@torch.inference_mode()
def _logits(
    checkpoint: Checkpoint, dataset: AlignedWindows, options: ModelOptions, progress: Callable[[int], None]
) -> NDArray[np.float32]:
    network = checkpoint.build().to(device())
    found: list[NDArray[np.float32]] = []
    with autocast(options.train.precision):
        for batch in batches_in_order(dataset, options.evaluate.batch_size):
            on_device = {k: v.to(device()) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
            logits_BN = network(network_input(on_device, checkpoint.stream, checkpoint.normalisation))
            found.append(logits_BN.float().cpu().numpy())
            done = sum(map(len, found))
            if done // 100 > (done - len(logits_BN)) // 100:
                progress(done)
    return np.concatenate(found)


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


def _write(folder: RunFolder, predictions: Predictions) -> None:
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
