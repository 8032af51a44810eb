"""Brings one store up to date: plan, job, commit."""

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.config import Config
from pipelines.progress import LOGS, Screen, job_log, shard_progress, stage_progress
from pipelines.stages import make_stage, put_models, store_name
from pipelines.units import duration
from stores import files, keys, leases
from stores.checks import StageFailed
from stores.clips import ClipsTable
from stores.commit import commit
from stores.earlier import written_num_shards
from stores.identities import Identity
from stores.lineage import follows
from stores.plan import (
    ShardTask,
    StagePlan,
    VideoClips,
    build_tasks,
    choose_num_shards,
    expected_from_inputs,
    expected_from_videos,
    plan_stage,
)
from stores.store import Store
from stores.summaries import Encoding, Snapshot
from transforms.stage import Stage

LAST_JOB, LAST_LOG = "last_job.json", "last_job.log"
_TASKS_PER_ROW_GROUP = 16


class InputMissing(ValueError):
    """An input store has no committed snapshot yet, or one that does not go with the others."""


@dataclass(frozen=True)
class Planned:
    """A stage, what it has to do, and what it needs for that."""

    stage: Stage
    plan: StagePlan
    videos: VideoClips | None
    inputs: tuple[tuple[Store, Snapshot], ...]
    clip_specs: dict[str, str] | None = None
    clips: ClipsTable | None = None

    @property
    def clips_in(self) -> int:
        """Clips that the stage should have an answer for."""
        if self.videos is not None:
            return self.videos.num_clips
        return min(snapshot.totals["clips"] for _, snapshot in self.inputs)


@dataclass(frozen=True)
class Outcome:
    """What became of one stage: its counters are empty when nothing was stale."""

    store: str
    clips_in: int
    snapshot: Snapshot
    counters: dict[str, int]
    seconds: float


def spec_of(stage: Stage) -> dict[str, Any]:
    """What, apart from the inputs, determines a stage's output."""
    return {"stage": stage.name.split("/")[0], "version": stage.version, "options": dict(stage.spec())}


def encoding_of(config: Config, clips: ClipsTable) -> Encoding:
    """Shard format and number: as configured, else as the frames store has it, else by the number of clips."""
    if config.store.num_shards:
        return Encoding(config.store.format, config.store.num_shards)
    frames = Store(config.workspace, "frames")
    snapshot = frames.snapshot()
    written = snapshot.encoding.num_shards if snapshot else written_num_shards(frames.listing())
    return Encoding(config.store.format, written or choose_num_shards(len(clips)))


def plan(
    stage_name: str,
    config: Config,
    clips: ClipsTable,
    identities: dict[str, Identity],
    *,
    force: bool = False,
) -> Planned:
    """Plans one stage from the committed snapshots of its inputs.

    Args:
        force: plan to compute everything again.

    Raises:
        InputMissing: an input store has no snapshot, or another number of shards than the others.
    """
    stage = make_stage(stage_name, config)
    spec, encoding = spec_of(stage), encoding_of(config, clips)
    store = Store(config.workspace, store_name(stage_name, config))
    how = {"retry_rejected": config.run.retry_rejected, "force": force}
    if not stage.inputs:
        videos = VideoClips(clips, identities, spec, encoding.num_shards)
        expected = expected_from_videos(spec, videos)
        planned = plan_stage(store, spec=spec, encoding=encoding, expected=expected, **how)
        return Planned(stage, planned, videos, ())
    stores = [Store(config.workspace, name) for name in stage.inputs]
    inputs = tuple((s, _input_snapshot(s)) for s in stores)
    _check_layouts(inputs)
    encoding = Encoding(encoding.format, inputs[0][1].encoding.num_shards)
    clip_specs = _clip_specs(stage, clips)
    expected = expected_from_inputs(spec, [snapshot for _, snapshot in inputs], clip_specs)
    planned = plan_stage(store, spec=spec, encoding=encoding, expected=expected, **how)
    return Planned(stage, planned, None, inputs, clip_specs, clips)


def _clip_specs(stage: Stage, clips: ClipsTable) -> dict[str, str] | None:
    """What determines single clips beside their inputs, such as keypoints that a user brings."""
    clip_spec = getattr(stage, "clip_spec", None)
    return {c: keys.digest(clip_spec(c)) for c in clips.clip_ids} if clip_spec else None


def _input_snapshot(store: Store) -> Snapshot:
    try:
        return store.require_snapshot()
    except ValueError as error:
        raise InputMissing(str(error)) from error


def has_present_spec(stage_name: str, config: Config) -> bool:
    """Whether the store that readers see was made with the options of this configuration."""
    snapshot = Store(config.workspace, store_name(stage_name, config)).snapshot()
    spec = spec_of(make_stage(stage_name, config))
    return snapshot is not None and keys.canonical_json(snapshot.spec) == keys.canonical_json(spec)


def _check_layouts(inputs: Sequence[tuple[Store, Snapshot]]) -> None:
    """Refuses stores of which a killed run has given only some another number of shards."""
    (first, snapshot), *others = inputs
    for store, found in others:
        if found.encoding.num_shards != snapshot.encoding.num_shards:
            raise InputMissing(
                f"store {store.name} has {found.encoding.num_shards} shards and {first.name} "
                f"{snapshot.encoding.num_shards}; run `perfnet run {store.name}` first"
            )


def _check_inputs(planned: Planned, config: Config) -> None:
    """Refuses inputs that do not belong together: pose of other frames would be drawn on these.

    Raises:
        InputMissing: names the store that is behind.
    """
    snapshots = {store.name: snapshot for store, snapshot in planned.inputs}
    for name, snapshot in snapshots.items():
        stage = name.split("/")[0]
        if len(snapshots) == 1 or stage == "frames" or planned.clips is None:
            continue
        own = own_specs(stage, config, planned.clips)
        if not follows(snapshot, [snapshots["frames"]], own):
            raise InputMissing(
                f"store {name} was computed from other frames than there are now; run `perfnet run {stage}` first"
            )


def own_specs(stage_name: str, config: Config, clips: ClipsTable) -> dict[str, str] | None:
    """What determines single clips of a stage beside its inputs; None for stages that have no such thing."""
    brought = stage_name == "pose" and config.pose.backend == "file"  # no model need be there to say so
    return _clip_specs(make_stage(stage_name, config), clips) if brought else None


def execute(planned: Planned, config: Config, *, beam_args: Sequence[str], screen: Screen) -> Outcome:
    """Computes what is stale and commits the store.

    Raises:
        InputMissing: the stores that it reads do not belong together.
        StageFailed: clips failed or too many were rejected, or a worker died; finished shards are kept.
    """
    started = time.monotonic()
    plan = planned.plan
    counters: dict[str, int] = {}
    if plan.reason:
        _check_inputs(planned, config)
    if plan.stale:
        tasks = tasks_of(planned, config)
        with _job(config.workspace, planned, tasks) as folder:
            counters = _run(planned, config, tasks, folder, beam_args=beam_args, screen=screen)
            snapshot = _commit(planned, config)
    else:
        snapshot = _commit(planned, config)
    return Outcome(plan.store.name, planned.clips_in, snapshot, counters, time.monotonic() - started)


def commit_only(planned: Planned, config: Config) -> Outcome:
    """Commits the store from the shards that are there.

    Raises:
        StageFailed: shards are missing, or too many clips were rejected.
    """
    started, plan = time.monotonic(), planned.plan
    missing = len(plan.expected) - len(plan.standing)
    if missing:
        raise StageFailed(
            f"{plan.store.name}: {missing} of {len(plan.expected)} shards are not computed; "
            "run the same command without --commit"
        )
    if plan.reason:
        _check_inputs(planned, config)
    snapshot = _commit(planned, config)
    return Outcome(plan.store.name, planned.clips_in, snapshot, {}, time.monotonic() - started)


def keep_counters(workspace: str, outcome: Outcome) -> None:
    """Keeps what a job counted beside its store, for `perfnet status`."""
    if outcome.counters:
        about = {
            "counters": outcome.counters,
            "seconds": round(outcome.seconds),
            "ended_s": round(time.time()),
        }
        uri = files.join(Store(workspace, outcome.store).folder, LAST_JOB)
        files.put_bytes(uri, json.dumps(about, sort_keys=True).encode())


def last_job(workspace: str, store: str) -> dict[str, Any] | None:
    """The last job of a store: counters, seconds, ended_s (POSIX time); None where there was none."""
    try:
        return dict(json.loads(files.read_bytes(files.join(Store(workspace, store).folder, LAST_JOB))))
    except (FileNotFoundError, ValueError):
        return None


def _commit(planned: Planned, config: Config) -> Snapshot:
    return commit(
        planned.plan,
        max_rejected=config.run.max_rejected,
        check=lambda snapshot: _check_counts(planned, snapshot),
    )


def _check_counts(planned: Planned, snapshot: Snapshot) -> None:
    found = snapshot.totals["clips"] + snapshot.rejected
    if found != planned.clips_in:
        raise StageFailed(
            f"{planned.plan.store.name}: {planned.clips_in} clips went in, {found} are out or rejected; "
            "run the same command again"
        )


def tasks_of(planned: Planned, config: Config) -> list[ShardTask]:
    """What each stale shard needs: clips to copy, rejections to keep, clips to compute."""
    return build_tasks(
        planned.plan,
        videos=planned.videos,
        inputs=planned.inputs,
        clip_specs=planned.clip_specs,
        retry_rejected=config.run.retry_rejected,
    )


@contextlib.contextmanager
def _job(workspace: str, planned: Planned, tasks: Sequence[ShardTask]) -> Iterator[str]:
    """The folder of a job with its plan, under a lease; one that fails stays there with its logs, for `perfnet gc`."""
    folder = _write_job(workspace, planned.plan, tasks, [store.name for store, _ in planned.inputs])
    with leases.held_lease(folder):
        yield folder
    _keep_logs(folder, planned.plan.store.folder)
    leases.remove_job(folder)


def _keep_logs(job_folder: str, store_folder: str) -> None:
    """Keeps what a local job logged as one file beside its store, until the next job of that store."""
    found = [files.join(job_folder, name) for name in LOGS]
    logs = [files.read_bytes(uri) for uri in found if files.is_local(uri) and files.exists(uri)]
    if logs:
        files.put_bytes(files.join(store_folder, LAST_LOG), b"".join(logs))


def _run(
    planned: Planned,
    config: Config,
    tasks: Sequence[ShardTask],
    job_folder: str,
    *,
    beam_args: Sequence[str],
    screen: Screen,
) -> dict[str, int]:
    """Runs the Beam job over the stale shards."""
    from pipelines.beam_options import is_dataflow, is_local
    from pipelines.dataflow import complete
    from pipelines.runner import run_job
    from transforms.shards import UpdateShards
    from transforms.update import ShardUpdate

    plan = planned.plan
    put_models(planned.stage, config)
    if is_dataflow(beam_args):
        beam_args = complete(beam_args, plan, config)
    if plan.store.name == "flow" and is_local(beam_args):
        from transforms.flow import warm_up

        warm_up(config.flow)  # compiles once, so that worker processes find it on disk
    work = sum(c.copy is None and c.sealed is None for t in tasks for c in t.clips)
    workers = config.run.workers or len(os.sched_getaffinity(0))
    update = UpdateShards(ShardUpdate(planned.stage, plan.store, plan.encoding, plan.spec), job_folder)
    local = files.is_local(job_folder)
    scratch = files.local_path(job_folder) if local else tempfile.mkdtemp(prefix="perfnet-job-")
    shown = (
        stage_progress(screen, plan.store.name, scratch, work)
        if local
        else shard_progress(screen, plan.store.name, job_folder, len(plan.stale))
    )
    try:
        with job_log(scratch, verbose=screen.verbose), shown:
            counters = run_job(
                plan.stale,
                update,
                scratch=scratch,
                workers=workers,
                beam_args=beam_args,
                leave_running=config.run.leave_running,
            )
    except StageFailed as error:
        raise StageFailed(f"{error}\nthe logs are in {files.printable(scratch)}") from error
    if not local:
        shutil.rmtree(scratch)
    return counters


def _write_job(
    workspace: str, plan: StagePlan, tasks: Sequence[ShardTask], inputs: Sequence[str] = ()
) -> str:
    """Puts the plan under `jobs/<id>/`, one row a shard, and returns that folder."""
    folder = leases.new_job(workspace, plan.store.name)
    table = pa.table({"shard": [t.shard for t in tasks], "task": [t.to_json() for t in tasks]})
    with files.staged(files.join(folder, "plan.parquet")) as path:
        pq.write_table(table, path, row_group_size=_TASKS_PER_ROW_GROUP)
    about = {
        "store": plan.store.name,
        "spec": dict(plan.spec),
        "reason": plan.reason,
        "shards": len(tasks),
        "needs": leases.needs_of(plan, tasks, inputs),
    }
    files.put_bytes(files.join(folder, leases.JOB), keys.canonical_json(about).encode())
    return folder


def outcome_line(outcome: Outcome) -> str:
    """One line on what a stage did: clips in, out, rejected; frames; time."""
    totals, rejected = outcome.snapshot.totals, outcome.snapshot.rejected
    did = f"computed {outcome.counters.get('computed', 0)}, copied {outcome.counters.get('copied', 0)}"
    if not outcome.counters:
        did = "nothing to do"
    return (
        f"{outcome.store}: {outcome.clips_in} clips in, {totals['clips']} out, {rejected} rejected; "
        f"{totals['frames']} frames; {did}; {duration(outcome.seconds)}"
    )
