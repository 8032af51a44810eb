"""The one PTransform: shard indices in, committed shards out. No image ever crosses a shuffle."""

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import apache_beam as beam
import pyarrow.parquet as pq
from apache_beam.metrics import Metrics

from stores import files
from stores.plan import ShardTask
from stores.store import summary_name
from stores.summaries import ShardSummary
from transforms.update import ShardUpdate

PLAN = "plan.parquet"
PROGRESS = "progress"
DONE = "done"


@dataclass(eq=False)
class UpdateShards(beam.PTransform):
    """PCollection of shard indices → PCollection of (shard, summary name is committed) indices.

    Attributes:
        update: stage, store, encoding and spec.
        job_folder: holds the plan; on a local disk also the workers' progress files, on an object store one small
            object for each finished shard.
    """

    update: ShardUpdate
    job_folder: str

    def expand(self, shards: beam.PCollection) -> beam.PCollection:
        return (
            shards
            | "Share out" >> beam.Reshuffle()
            | "Update shard" >> beam.ParDo(_UpdateShard(self.update, self.job_folder)).with_output_types(int)
        )


class _UpdateShard(beam.DoFn):
    def __init__(self, update: ShardUpdate, job_folder: str) -> None:
        self._update, self._job_folder = update, job_folder

    def setup(self) -> None:
        self._update.stage.setup()
        self._progress = _ProgressFile(self._job_folder)

    def process(self, shard: int) -> Iterator[int]:
        summary = self._finished(shard)
        if summary is None:
            task = read_task(self._job_folder, shard)
            summary = self._update.run(task, on_start=self._progress.start, on_done=self._progress.done)
            self._note_finished(shard, summary)
        _count(summary)
        yield shard

    def _finished(self, shard: int) -> ShardSummary | None:
        """What an earlier try of this job made of the shard: runners elsewhere repeat whole bundles of shards."""
        if files.is_local(self._job_folder):
            return None
        try:
            name = files.read_bytes(files.join(self._job_folder, DONE, str(shard))).decode()
        except FileNotFoundError:
            return None
        return self._update.store.summary(name)

    def _note_finished(self, shard: int, summary: ShardSummary) -> None:
        if not files.is_local(self._job_folder):
            name = summary_name(summary).encode()
            files.put_bytes(files.join(self._job_folder, DONE, str(shard)), name)


def read_task(job_folder: str, shard: int) -> ShardTask:
    """One shard's task from the job's plan, without reading the others'."""
    with files.open_read(files.join(job_folder, PLAN)) as file:
        rows = pq.read_table(file, filters=[("shard", "=", shard)]).to_pylist()
    return ShardTask.from_json(rows[0]["task"])


def counted(summary: ShardSummary) -> dict[str, int]:
    """What one shard adds to a job's counters: the same things in every stage."""
    return {
        "clips": len(summary.clips),
        "computed": summary.computed,
        "copied": summary.copied,
        "frames": sum(c.frames for c in summary.clips),
        "rejected": len(summary.rejected),
        "bytes": summary.size_bytes,
        "milliseconds": summary.milliseconds,
    }


def _count(summary: ShardSummary) -> None:
    for name, value in counted(summary).items():
        Metrics.counter(summary.store.split("/")[0], name).inc(value)


class _ProgressFile:
    """Start and done lines of one worker thread, for the progress line and for naming the clip a dead worker was at.

    Beam's own metrics arrive only when a local run ends. Object stores cannot append: there it does nothing.
    """

    def __init__(self, job_folder: str) -> None:
        self._folder = files.local_path(job_folder) if files.is_local(job_folder) else None
        if self._folder:
            folder = os.path.join(self._folder, PROGRESS)
            os.makedirs(folder, exist_ok=True)
            self._path = os.path.join(folder, f"{os.getpid()}-{threading.get_native_id()}.jsonl")

    def _append(self, line: dict[str, object]) -> None:
        if self._folder:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def start(self, clip_id: str) -> None:
        self._append({"start": clip_id})

    def done(self, clip_id: str, frames: int, reason: str | None) -> None:
        self._append({"done": clip_id, "frames": frames, "rejected": reason})
