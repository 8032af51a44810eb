"""The whole chain as one table: stores, then training runs, then the evaluation; and what of it is stale."""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from models import runs
from models.options import RUNS, ModelOptions
from models.selection import check_batch
from pipelines import prepare
from pipelines.config import Config
from pipelines.importers import clips_from_folder, describe
from pipelines.progress import Screen
from pipelines.stages import STAGES, store_name
from stores import files
from stores.checks import StageFailed
from stores.clips import ClipsTable, read_clips, write_clips
from stores.commit import build_snapshot, check_rejected
from stores.cost import Work, work_of
from stores.identities import Identity, identify_all
from stores.plan import StagePlan
from stores.summaries import Snapshot

ITEMS = (*STAGES, *(f"train-{run}" for run in RUNS), "evaluate")


def needs(item: str, config: Config) -> tuple[str, ...]:
    """What an item reads, directly."""
    stages = {"frames": (), "pose": ("frames",), "render": ("frames", "pose"), "flow": ("frames",)}
    if item in stages:
        return stages[item]
    if item == "evaluate":
        return tuple(f"train-{run}" for run in RUNS)
    if item != "train-student":
        return _read_by(item.removeprefix("train-"), config)
    streams = runs.streams_of("student", config.model_options())
    stores = dict.fromkeys(store for stream in streams for store in _read_by(stream, config))
    return (*stores, *(f"train-{teacher}" for teacher in config.student.teachers if teacher in RUNS))


def _read_by(stream: str, config: Config) -> tuple[str, ...]:
    """Stages whose stores a stream is read from."""
    pose = ("render",) if config.pose.source == "rendered" else ("frames", "pose")
    return {"rgb": ("frames",), "pose": pose, "flow": ("flow",)}[stream]


def selection(wanted: Sequence[str], config: Config) -> list[str]:
    """The wanted items and all that they need, in order; everything where nothing is named.

    Raises:
        ValueError: an unknown item.
    """
    for item in wanted:
        if item not in ITEMS:
            raise ValueError(f"unknown stage {files.quoted(item)}; known: {', '.join(ITEMS)}")
    everything = [item for item in ITEMS if item != "render" or config.pose.source == "rendered"]
    chosen: set[str] = set(wanted or everything)
    for item in reversed(ITEMS):
        if item in chosen:
            chosen.update(needs(item, config))
    return [item for item in ITEMS if item in chosen]


def forced(wanted: Sequence[str], config: Config) -> list[str]:
    """The stages that run.force computes again: those that are named.

    Raises:
        ValueError: none is named, or one that fills no store.
    """
    if not config.run.force:
        return []
    if not wanted:
        raise ValueError("--force: name the stages to compute again, as in `perfnet run flow --force`")
    for item in wanted:
        if item not in STAGES:
            raise ValueError(
                f"--force: found {item}, expected only stages that fill a store: {', '.join(STAGES)}"
            )
    return list(wanted)


@dataclass
class Chain:
    """One workspace and its configuration.

    Attributes:
        beam_args: Beam options as typed after `--`.
        forced: stages whose stores are computed again, fresh or not.
        look_only: planning writes nothing, neither the clips table nor the identities of videos.
    """

    config: Config
    screen: Screen
    beam_args: Sequence[str] = ()
    forced: Collection[str] = ()
    look_only: bool = False
    outcomes: list[prepare.Outcome] = field(default_factory=list)
    _looked: dict[str, prepare.Planned] = field(default_factory=dict)
    _on_dataflow: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for Beam options that are unknown, or with which a job could not run."""
        if self.beam_args:
            from pipelines.beam_options import check_known, is_dataflow

            check_known(self.beam_args)
            self._on_dataflow = is_dataflow(self.beam_args)
        if self._on_dataflow:
            from pipelines.dataflow import check_job

            check_job(self.beam_args, self.config)

    @cached_property
    def clips(self) -> ClipsTable:
        """The clips table; made from `clips.folder` where the configuration names one."""
        options, workspace = self.config.clips, self.config.workspace
        if options.folder is None:
            return read_clips(workspace)
        clips = clips_from_folder(options.folder, options)
        if not self.look_only and self._is_new(clips):
            write_clips(workspace, clips)
        for line in describe(clips):
            self.screen.line(f"clips: {line}")
        return clips

    @property
    def clips_change(self) -> bool:
        """Whether `clips.folder` gives another clips table than the workspace holds."""
        return self.config.clips.folder is not None and self._is_new(self.clips)

    def _is_new(self, clips: ClipsTable) -> bool:
        """Whether the workspace holds another clips table, or none."""
        workspace = self.config.workspace
        return not files.exists(files.join(workspace, "clips.parquet")) or read_clips(workspace) != clips

    @cached_property
    def identities(self) -> dict[str, Identity]:
        def progress(done: int, total: int) -> None:
            if done % 1000 == 0 and self.screen.terminal:
                self.screen.live(f"videos: {done} of {total} identified")

        return identify_all(self.config.workspace, self.clips.uris, progress, keep=not self.look_only)

    @cached_property
    def model_options(self) -> ModelOptions:
        return self.config.model_options()

    def reason(self, item: str) -> str:
        """Why an item is stale by itself; "" where it is fresh."""
        if item in STAGES:
            return self._store_reason(item)
        workspace, options = self.config.workspace, self.model_options
        if item == "evaluate":
            found = [
                (run, runs.evaluation_stale_reason(run, workspace=workspace, options=options)) for run in RUNS
            ]
            return "; ".join(f"{run}: {reason}" for run, reason in found if reason)
        return runs.stale_reason(item.removeprefix("train-"), workspace=workspace, options=options) or ""

    def planned(self, stage: str) -> StagePlan | None:
        """The plan of a stage; None while a store that it reads is not committed."""
        try:
            return self._prepared(stage).plan
        except prepare.InputMissing:
            return None

    def work(self, stage: str) -> Work | None:
        """What a stage has to do as its inputs are now; None while a store that it reads is not committed."""
        try:
            return work_of(prepare.tasks_of(self._prepared(stage), self.config))
        except prepare.InputMissing:
            return None

    def _prepared(self, stage: str) -> prepare.Planned:
        if self.look_only:  # nothing changes meanwhile, and plans of large collections take seconds
            if stage not in self._looked:
                self._looked[stage] = self._plan_now(stage)
            return self._looked[stage]
        return self._plan_now(stage)

    def _plan_now(self, stage: str) -> prepare.Planned:
        return prepare.plan(stage, self.config, self.clips, self.identities, force=stage in self.forced)

    def _store_reason(self, stage: str) -> str:
        planned = self.planned(stage)
        return planned.reason if planned else "not computed yet"

    def committed(self, stage: str) -> Snapshot | None:
        """The snapshot of a store that is up to date, but for clips to try again; None of any other."""
        planned = self.planned(stage)
        if planned is None or planned.previous is None:
            return None
        held = {shard.shard: shard.key for shard in planned.previous.shards}
        return planned.previous if held == planned.expected else None

    def check_finished(self, stage: str) -> None:
        """Refuses a store that is up to date and holds too many rejected clips, as running the stage would.

        Raises:
            StageFailed: names the first of them.
        """
        planned = self.planned(stage)
        if planned and not planned.stale:
            check_rejected(planned, build_snapshot(planned), max_rejected=self.config.run.max_rejected)

    def plan(self, items: Sequence[str]) -> dict[str, str]:
        """Item → why it is stale ("" = fresh), counting what its inputs will become."""
        reasons: dict[str, str] = {}
        # Stores are planned from the table that will be, trainings look at the one that stands.
        becomes_new = self.look_only and self.clips_change
        for item in items:
            upstream = [n for n in needs(item, self.config) if reasons.get(n)]
            follows = (
                f"{' and '.join(upstream)} {'change' if len(upstream) > 1 else 'changes'}" if upstream else ""
            )
            # Predictions are stale by what their networks become, whatever is wrong with them before.
            reasons[item] = (item == "evaluate" and follows) or self.reason(item) or follows
            if becomes_new and item not in STAGES:
                reasons[item] = reasons[item] or "the clips table changes"
        return reasons

    def show_plan(self, reasons: dict[str, str]) -> None:
        for item, reason in reasons.items():
            name = store_name(item, self.config) if item in STAGES else item
            self.screen.line(f"plan: {name}: {'stale: ' + reason if reason else 'fresh'}")

    def run(self, items: Sequence[str]) -> bool:
        """Brings the items up to date, in order; returns whether anything was done.

        Raises:
            ValueError: something to train, in a workspace that is not local or from too few clips.
        """
        worked, stages = False, [item for item in items if item in STAGES]
        if len(stages) < len(items) and not files.is_local(self.config.workspace):
            raise ValueError(
                f"workspace: {files.printable(self.config.workspace)} is not local, and training writes its runs to a "
                f"local workspace; name only stages, as in `perfnet run {' '.join(stages) or 'flow'}`"
            )
        if any(item.startswith("train-") for item in items):
            self._check_split()
        if self._on_dataflow:
            from pipelines.dataflow import check_stages

            check_stages(stages, self.beam_args, self.config)
        for item in items:
            if item in STAGES:
                worked |= self._bring_up_to_date(item)
            elif self.reason(item):
                self._learn(item)
                worked = True
        self.screen.close()
        return worked

    def _check_split(self) -> None:
        """Refuses, before hours of work on stores, a clips table that no batch of the training could come from."""
        splits = self.clips.split(self.config.data.split)
        check_batch(list(splits.values()).count("train"), self.config.train.batch_size)

    def _bring_up_to_date(self, stage: str) -> bool:
        """Computes what is stale of one store and commits it; returns whether anything was stale."""
        planned = self._prepared(stage)
        outcome = self._met_on_dataflow(stage, planned)
        if outcome is None:
            outcome = prepare.execute(planned, self.config, beam_args=self.beam_args, screen=self.screen)
        return self._note(outcome, worked=bool(planned.plan.reason))

    def _met_on_dataflow(self, stage: str, planned: prepare.Planned) -> prepare.Outcome | None:
        """Waits for a job that already brings the store up to date, and commits; None where there is no such job.

        Whatever it has left undone is for the next run: a job that was met is never followed by a second one.
        """
        if not (self._on_dataflow and planned.plan.stale):
            return None
        from pipelines.dataflow import await_running, check_videos

        if planned.videos is not None:
            check_videos(self.clips)
        started = time.monotonic()
        found = await_running(planned.plan, self.config, self.beam_args, self.screen)
        if found is None:
            return None
        now = prepare.plan(stage, self.config, self.clips, self.identities)
        missing = len(now.plan.expected) - len(now.plan.standing)
        if missing:
            raise StageFailed(
                f"{now.plan.store.name}: that job has left {missing} of {len(now.plan.expected)} shards undone; "
                "run the same command again"
            )
        outcome = prepare.commit_only(now, self.config)
        return replace(outcome, counters=dict(found), seconds=time.monotonic() - started)

    def _note(self, outcome: prepare.Outcome, *, worked: bool) -> bool:
        """Keeps and shows what became of a stage; returns whether anything was done."""
        prepare.keep_counters(self.config.workspace, outcome)
        if worked and not outcome.counters:  # what was there already is committed, which is not nothing
            outcome = replace(outcome, counters={"computed": 0, "copied": 0})
        self.outcomes.append(outcome)
        self.screen.line(prepare.outcome_line(outcome))
        return worked

    def commit(self, stage: str) -> bool:
        """Commits what workers elsewhere have finished, and computes nothing; returns whether anything was new.

        Raises:
            StageFailed: shards are missing, or too many clips were rejected.
        """
        planned = self._prepared(stage)
        outcome = prepare.commit_only(planned, self.config)
        if planned.plan.reason:
            from pipelines.dataflow import left_by_jobs

            left = left_by_jobs(planned.plan, outcome.snapshot)
            seconds = time.time() - left.started_s if left.started_s else outcome.seconds
            outcome = replace(outcome, counters=dict(left.counters), seconds=seconds)
        return self._note(outcome, worked=bool(planned.plan.reason))

    def _learn(self, item: str) -> None:
        workspace, options = self.config.workspace, self.model_options
        if item == "evaluate":
            from models.evaluation import evaluate

            for run in RUNS:
                if runs.evaluation_stale_reason(run, workspace=workspace, options=options):
                    evaluate(run, workspace=workspace, options=options, progress=self.screen.say)
            return
        from models.train import train

        train(item.removeprefix("train-"), workspace=workspace, options=options, progress=self.screen.say)
