"""What a workspace tells about itself, read for the report: data set, stores, rejected clips, runs, versions."""

import csv
import io
import json
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from models.options import RUNS
from models.predictions import Predictions, fused, read_predictions
from models.runs import RunFolder
from pipelines.chain import Chain
from pipelines.config import Config
from pipelines.progress import Screen
from pipelines.results import FUSED
from pipelines.stages import STAGES, store_name
from stores import files
from stores.checks import Damaged
from stores.clips import ClipsTable
from stores.rejections import REASONS
from stores.store import Store
from stores.summaries import PACKAGES, ShardReference, ShardSummary, Snapshot

_SPLIT_ORDER = ("train", "val", "test", "")
_MOST_REJECTED = 300
_MOST_SUMMARIES = 64
_MORE_PACKAGES = ("apache-beam", "pytorch-lightning", "matplotlib")


@dataclass(frozen=True)
class ClassRow:
    """Clips of one class, by split in the order of `DataSet.splits`."""

    label: str
    counts: Sequence[int]

    @property
    def total(self) -> int:
        return sum(self.counts)


@dataclass(frozen=True)
class DataSet:
    """The clips table in numbers.

    Attributes:
        split_column: the one that is counted; "" where the table has none.
        other_columns: further split columns.
        splits: those that have clips; "" is named unused.
        totals: clips a split, in the same order.
        groups: how many there are, 0 where none are known.
    """

    clips: int
    videos: int
    groups: int
    split_column: str
    other_columns: Sequence[str]
    splits: Sequence[str]
    totals: Sequence[int]
    classes: Sequence[ClassRow]


def data_set(clips: ClipsTable, split_column: str) -> DataSet:
    """Counts clips by class and split."""
    column = split_column if split_column in clips.splits else ""
    split_of = clips.splits[column] if column else [""] * len(clips)
    counts = Counter(zip(clips.labels, split_of, strict=True))
    splits = [name for name in _SPLIT_ORDER if name in set(split_of)]
    classes = [
        ClassRow(label, [counts[label, name] for name in splits]) for label in sorted(set(clips.labels))
    ]
    totals = [sum(row.counts[i] for row in classes) for i in range(len(splits))]
    shown = [name or ("unused" if column else "clips") for name in splits]
    others = [name for name in clips.splits if name != column]
    groups = len(set(clips.groups) - {""})
    return DataSet(len(clips), len(set(clips.uris)), groups, column, others, shown, totals, classes)


@dataclass(frozen=True)
class StoreFacts:
    """What one stage did.

    Attributes:
        snapshot: the committed view; None where nothing is committed.
        milliseconds: computing time of its clips, all workers together.
        versions: library → versions that made it, of a sample of the shards.
    """

    stage: str
    name: str
    snapshot: Snapshot | None
    milliseconds: int = 0
    versions: Mapping[str, str] | None = None


def store_facts(config: Config) -> list[StoreFacts]:
    """The stages in order; the rendered pose only where there is a store of it or it is read."""
    found = []
    for stage in STAGES:
        store = Store(config.workspace, store_name(stage, config))
        snapshot = store.snapshot()
        if snapshot is not None:
            time_ms = sum(shard.milliseconds for shard in snapshot.shards)
            found.append(StoreFacts(stage, store.name, snapshot, time_ms, _versions(store, snapshot)))
        elif stage != "render" or config.pose.source == "rendered":
            found.append(StoreFacts(stage, store.name, None))
    return found


def _versions(store: Store, snapshot: Snapshot) -> dict[str, str]:
    """Library → version; several, where shards were made with several."""
    step = max(1, len(snapshot.shards) // _MOST_SUMMARIES)
    seen: dict[str, set[str]] = {}
    for summary in store.summaries(s.summary for s in snapshot.shards[::step]).values():
        for package, version in (summary.versions if summary else {}).items():
            seen.setdefault(package, set()).add(version)
    return {package: ", ".join(sorted(versions)) for package, versions in sorted(seen.items())}


@dataclass(frozen=True)
class RejectedRow:
    """One rejected clip; `meaning` says in words what the reason code stands for."""

    store: str
    clip_id: str
    cause: str
    reason: str
    meaning: str
    detail: str


@dataclass(frozen=True)
class RejectedClips:
    """The rejected clips of all stores.

    Attributes:
        counts: (store, cause, reason, meaning) → clips.
        rows: one a clip, as many as a page can hold.
    """

    counts: Mapping[tuple[str, str, str, str], int]
    rows: Sequence[RejectedRow]

    @property
    def total(self) -> int:
        return sum(self.counts.values())


def rejected_clips(config: Config, stores: Sequence[StoreFacts]) -> RejectedClips:
    """Reads the summaries of just those shards that rejected something."""
    chain = Chain(config, Screen(quiet=True), look_only=True)
    counts: Counter[tuple[str, str, str, str]] = Counter()
    rows: list[RejectedRow] = []
    for found in stores:
        for row in _rejected_rows(Store(config.workspace, found.name), _shards_now(chain, found)):
            counts[row.store, row.cause, row.reason, row.meaning] += 1
            if len(rows) < _MOST_REJECTED:
                rows.append(row)
    return RejectedClips(dict(counts.most_common()), rows)


def _shards_now(chain: Chain, found: StoreFacts) -> list[ShardReference]:
    """Committed shards, and those that wait for it: rejected clips are what a store is often not committed for."""
    committed = list(found.snapshot.shards) if found.snapshot else []
    try:
        planned = chain.planned(found.stage)
    except (ValueError, OSError):
        return committed  # nobody can tell any more what the store should hold
    if planned is None or not planned.standing:
        return committed
    same_layout = found.snapshot is not None and found.snapshot.encoding == planned.encoding
    held = {shard.shard: shard for shard in committed} if same_layout else {}
    return list((held | dict(planned.standing)).values())


def _rejected_rows(store: Store, shards: Sequence[ShardReference]) -> list[RejectedRow]:
    summaries = store.summaries(s.summary for s in shards if s.rejected).values()
    rows = [row for summary in summaries if summary for row in _rows_of(store.name, summary)]
    return sorted(rows, key=lambda row: row.clip_id)


def _rows_of(store: str, summary: ShardSummary) -> list[RejectedRow]:
    rows = []
    for rejection in summary.rejected:
        lines = rejection.detail.strip().splitlines()
        detail = files.printable(lines[-1]) if lines else ""
        meaning = REASONS[rejection.reason][1]
        rows.append(RejectedRow(store, rejection.clip_id, rejection.cause, rejection.reason, meaning, detail))
    return rows


def read_curves(workspace: str, run: str) -> dict[str, list[tuple[int, float]]]:
    """Metric → (step, value) of a run's `metrics.csv`; empty where it has none."""
    try:
        content = files.read_bytes(files.join(workspace, "runs", run, "metrics.csv")).decode()
    except FileNotFoundError:
        return {}
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in csv.DictReader(io.StringIO(content)):
        curves.setdefault(row["metric"], []).append((int(row["step"]), float(row["value"])))
    return curves


def read_evaluated(workspace: str) -> dict[str, Predictions]:
    """The evaluated runs of the chain by name, with the late fusion of the teachers among them."""
    found = {}
    for run in RUNS:
        if files.exists(files.join(workspace, "runs", run, "predictions.parquet")):
            found[run] = read_predictions(run, workspace=workspace)
    maps = {tuple(predictions.labels) for predictions in found.values()}
    if len(maps) == 1 and all(run in found for run in FUSED):
        fusion = {"fusion": fused([(found[run], 1.0) for run in FUSED])}
        student = {run: found.pop(run) for run in ("student",) if run in found}
        found = found | fusion | student
    return found


def outdated(workspace: str, evaluated: Sequence[str]) -> list[str]:
    """Runs that were trained again since they were judged."""
    folders = {run: RunFolder(workspace, run) for run in evaluated if run in RUNS}
    judged = {run: (folder.read_json("evaluation.json") or {}) for run, folder in folders.items()}
    trained = {run: (folder.done or {}) for run, folder in folders.items()}
    return [
        run
        for run in folders
        if trained[run]
        and trained[run].get("checkpoint") != judged[run].get("document", {}).get("checkpoint")
    ]


def read_experiments(workspace: str) -> list[dict[str, Any]]:
    """The tables that `perfnet experiment` wrote, by name.

    Raises:
        Damaged: one of them is.
    """
    folder = files.join(workspace, "experiments")
    found = []
    for name in sorted(files.list_tree(folder)):
        if name.endswith("/results.json"):
            try:
                found.append(json.loads(files.read_bytes(files.join(folder, name))))
            except ValueError as error:
                where = files.printable(files.join(folder, name))
                raise Damaged(f"{where} is not JSON; run `perfnet experiment` again") from error
    return found


def versions() -> dict[str, str]:
    """What this report was written with."""
    found: dict[str, Any] = {"python": platform.python_version()}
    for package in (*PACKAGES, *_MORE_PACKAGES):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found | {"platform": platform.platform()}
