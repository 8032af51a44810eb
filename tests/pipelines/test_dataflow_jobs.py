"""Jobs on Dataflow: meeting one that runs, committing what it has left, stopping, repeating, the launchers' entry."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dataflow_stub import Service, dataflow
from fake_stages import CountingFrames, plan_frames, table_of, update
from gcs import BUCKET, gcs
from test_plan import LENGTHS, VIDEOS

from pipelines import prepare
from pipelines.beam_main import split
from pipelines.chain import Chain
from pipelines.config import load_config
from pipelines.dataflow import RECORD, await_running, job_name
from pipelines.prepare import Outcome, Planned, _write_job, commit_only, keep_counters, last_job
from pipelines.progress import Screen
from pipelines.runner import wait
from stores import files
from stores.checks import StageFailed
from stores.commit import commit
from stores.plan import StagePlan, build_tasks
from stores.rejections import ClipRejected
from stores.store import Store
from transforms.shards import DONE, UpdateShards, _UpdateShard
from transforms.stage import ClipOutput, Video
from transforms.update import ShardUpdate

__all__ = ["gcs"]
ROOT = Path(__file__).parents[2]
TYPED = [
    "--runner=DataflowRunner",
    "--project=p",
    "--region=europe-west4",
    "--temp_location=gs://bucket/temp",
]


# Meeting a job that runs.


@pytest.fixture
def service() -> Iterator[Service]:
    with dataflow() as found:
        yield found


def met(service: Service, plan: StagePlan, *options: str) -> tuple[Any, str]:
    """What waiting for a running job gives, and what is said."""
    said: list[str] = []
    screen = Screen(quiet=True)
    screen.line = said.append  # type: ignore[method-assign]
    beam = [*TYPED, f"--dataflow_endpoint={service.endpoint}", "--no_auth", *options]
    return await_running(plan, load_config(None, {"workspace": "gs://b/w"}), beam, screen), "\n".join(said)


def later(do: Any, *arguments: Any, **keywords: Any) -> None:
    threading.Timer(1.0, do, arguments, keywords).start()


@pytest.fixture
def plan(tmp_path: Path) -> StagePlan:
    return plan_frames(str(tmp_path), CountingFrames(LENGTHS), table_of(VIDEOS))[0]


def test_nothing_runs(service: Service, plan: StagePlan) -> None:
    service.queue("perfnet-frames-other")
    assert met(service, plan) == (None, "")


def test_a_template_does_not_wait_for_the_job_that_waits_for_it(service: Service, plan: StagePlan) -> None:
    """The service creates that job, of the name that the launcher is given, before the launcher runs."""
    service.queue("perfnet-frames")
    own = ("--job_name=perfnet-frames", "--template_location=gs://bucket/launch/job")
    assert met(service, plan, *own) == (None, "")


def test_a_job_that_is_being_cancelled_is_waited_out(service: Service, plan: StagePlan) -> None:
    job = service.queue(job_name(plan))
    service.jobs[job["id"]]["currentState"] = "JOB_STATE_CANCELLING"
    later(service.cancelled, job)
    assert met(service, plan) == (None, f"Dataflow still stops {job['name']}; waiting until it has")
    assert service.active == []


def test_computing_again_does_not_take_a_plain_job_for_its_own(service: Service, plan: StagePlan) -> None:
    service.queue(job_name(plan))
    assert met(service, replace(plan, force=True)) == (None, "")


def test_a_plain_run_takes_a_job_that_computes_everything_again(service: Service, plan: StagePlan) -> None:
    job = service.queue(job_name(replace(plan, force=True)))
    later(service.finish, job, counters={"computed": 3})
    found, said = met(service, plan)
    assert found == {"computed": 3}
    assert said == f"frames: Dataflow runs {job['name']} already; waiting for it"


class Flaky(CountingFrames):
    """Cannot read one of its videos today."""

    def process(self, *clips: Video) -> ClipOutput:
        if clips[0].clip_id == "c00":
            raise ClipRejected("io_error", "the network is away")
        return super().process(*clips)


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chain:
    """Its frames come from `Flaky`, on what it takes for Dataflow."""
    stage = Flaky(LENGTHS)

    def plan(*_: Any, force: bool = False) -> Planned:
        found, videos = plan_frames(str(tmp_path), stage, table_of(VIDEOS))
        return Planned(stage, replace(found, force=force), videos, ())

    monkeypatch.setattr(prepare, "plan", plan)
    monkeypatch.setattr("pipelines.dataflow.check_videos", lambda clips: None)
    made = Chain(load_config(None, {"workspace": str(tmp_path), "run.max_rejected": 0.5}), Screen(quiet=True))
    vars(made).update(clips=table_of(VIDEOS), identities={}, _on_dataflow=True)
    return made


def compute(chain: Chain, shards: slice = slice(None)) -> list[int]:
    """Does what workers would; returns the shards."""
    now = prepare.plan("frames", chain.config, chain.clips, {})
    tasks = build_tasks(now.plan, videos=now.videos)[shards]
    for task in tasks:
        ShardUpdate(now.stage, now.plan.store, now.plan.encoding, now.plan.spec).run(task)
    return [task.shard for task in tasks]


@pytest.mark.parametrize("forced", [(), ("frames",)])
def test_a_job_that_was_met_is_never_followed_by_a_second_one(
    chain: Chain, monkeypatch: pytest.MonkeyPatch, forced: tuple[str, ...]
) -> None:
    """Not for a clip to try again either: nobody would know of that job, and no retry would wait for it."""

    def runs(*_: Any) -> dict[str, int]:
        compute(chain)
        return {"computed": 12}

    def submit(*_: Any, **__: Any) -> Outcome:
        raise AssertionError("a second job")

    monkeypatch.setattr("pipelines.dataflow.await_running", runs)
    monkeypatch.setattr(prepare, "execute", submit)
    chain.forced = forced
    assert chain.run(["frames"])
    (outcome,) = chain.outcomes
    assert (outcome.counters, outcome.snapshot.rejected) == ({"computed": 12}, 1)
    assert outcome.snapshot == Store(chain.config.workspace, "frames").snapshot()


def test_what_a_job_that_was_met_left_undone_is_for_the_next_run(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "pipelines.dataflow.await_running", lambda *_: {"computed": len(compute(chain, slice(2)))}
    )
    with pytest.raises(
        StageFailed, match="frames: that job has left 2 of 4 shards undone; run the same command"
    ):
        chain.run(["frames"])


# Committing what a job has left, without computing.


def test_commit_takes_what_is_there_and_computes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ws, stage = str(tmp_path), CountingFrames(LENGTHS)
    planned, videos = plan_frames(ws, stage, table_of(VIDEOS))
    tasks = build_tasks(planned, videos=videos)
    config = load_config(None, {"workspace": ws})
    for task in tasks[:-1]:
        ShardUpdate(stage, planned.store, planned.encoding, planned.spec).run(task)
    later = Planned(stage, plan_frames(ws, stage, table_of(VIDEOS))[0], videos, ())
    with pytest.raises(StageFailed, match="frames: 1 of 4 shards are not computed"):
        commit_only(later, config)
    ShardUpdate(stage, planned.store, planned.encoding, planned.spec).run(tasks[-1])
    seen = list(stage.seen)
    later = Planned(stage, plan_frames(ws, stage, table_of(VIDEOS))[0], videos, ())
    assert commit_only(later, config).snapshot == Store(ws, "frames").require_snapshot()
    assert stage.seen == seen


def test_commit_tells_what_the_job_has_counted(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    """Its launcher is gone: the shards that it noted as done say what it did, its record since when."""
    chain.screen = Screen()
    ws, now = chain.config.workspace, prepare.plan("frames", chain.config, chain.clips, {})
    compute(chain, slice(1))  # an earlier run's, which no job on Dataflow has done
    folder = _write_job(ws, now.plan, build_tasks(now.plan, videos=now.videos))
    files.put_bytes(files.join(folder, RECORD), json.dumps({"started_s": time.time() - 3600}).encode())
    for shard in compute(chain):
        files.put_bytes(files.join(folder, DONE, str(shard)), b"")
    assert chain.commit("frames")
    (outcome,) = chain.outcomes
    first = min(outcome.snapshot.shards, key=lambda shard: shard.shard)
    assert outcome.counters["computed"] == 12 - first.clips - first.rejected_transient
    assert outcome.counters["clips"] + outcome.counters["rejected"] == outcome.counters["computed"]
    assert last_job(ws, "frames")["counters"] == outcome.counters  # type: ignore[index]
    assert 3600 <= last_job(ws, "frames")["seconds"] < 3700  # type: ignore[index]
    assert f"computed {outcome.counters['computed']}, copied 0; 1 h" in capsys.readouterr().err


def test_committing_what_was_there_is_not_nothing(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    chain.screen = Screen()
    compute(chain)
    assert chain.commit("frames")
    assert "computed 0, copied 0" in capsys.readouterr().err
    assert last_job(chain.config.workspace, "frames") is None


def test_counters_are_kept_for_status(tmp_path: Path) -> None:
    ws = str(tmp_path)
    planned, videos = plan_frames(ws, CountingFrames(LENGTHS), table_of(VIDEOS))
    update(planned, CountingFrames(LENGTHS), videos=videos)
    snapshot = commit(planned, max_rejected=0)
    assert last_job(ws, "frames") is None
    keep_counters(ws, Outcome("frames", 12, snapshot, {"computed": 3, "bytes": 7}, 61.2))
    kept = last_job(ws, "frames")
    assert kept is not None
    assert (kept["counters"], kept["seconds"]) == ({"computed": 3, "bytes": 7}, 61)
    keep_counters(ws, Outcome("frames", 12, snapshot, {}, 1.0))  # nothing was done: the last job stays
    assert last_job(ws, "frames") == kept


# Stopping, repeating, and the entry for launchers.


class Remote:
    """A job elsewhere whose launcher is stopped."""

    def __init__(self) -> None:
        self.cancelled = False

    def wait_until_finish(self) -> None:
        raise KeyboardInterrupt

    def cancel(self) -> None:
        self.cancelled = True


@pytest.mark.parametrize("leave", [True, False])
def test_a_job_can_be_left_running(leave: bool) -> None:
    job = Remote()
    with pytest.raises(KeyboardInterrupt):
        wait(job, leave_running=leave)
    assert job.cancelled is not leave


def test_a_repeated_bundle_computes_nothing_again(gcs: str) -> None:
    """Dataflow repeats a bundle whose worker was lost: shards that it had finished are only counted."""
    ws, stage = f"gs://{BUCKET}/repeated", CountingFrames(LENGTHS)
    planned, videos = plan_frames(ws, stage, table_of(VIDEOS))
    folder = _write_job(ws, planned, build_tasks(planned, videos=videos))
    work = _UpdateShard(
        UpdateShards(ShardUpdate(stage, planned.store, planned.encoding, planned.spec), folder).update, folder
    )
    work.setup()
    first = [list(work.process(shard)) for shard in planned.stale]
    seen = list(stage.seen)
    assert sorted(seen) == sorted(VIDEOS)
    assert [list(work.process(shard)) for shard in planned.stale] == first
    assert stage.seen == seen
    again, _ = plan_frames(ws, stage, table_of(VIDEOS))
    assert update(again, stage, videos=videos) == []


def test_flags_are_told_apart() -> None:
    flags = [
        "--stage=flow",
        "--config=c.yaml",
        "--flow.bound_px=15",
        "--force",
        *TYPED,
        '--labels={"a": "b"}',
    ]
    stage, ours, beam = split(flags)
    assert (stage, ours) == ("flow", ["--config=c.yaml", "--flow.bound_px=15", "--force"])
    assert beam == [*TYPED, '--labels={"a": "b"}']
    assert split(["--stage=flow", "--force=true", "--retry_rejected=false"])[1] == ["--force"]
    for wrong in (["flow"], ["--config=c.yaml"], ["--", "--stage=flow"]):
        with pytest.raises(ValueError, match=r"--stage|only flags"):
            split(wrong)


def test_beam_main_outlives_its_reader(tmp_path: Path) -> None:
    """Airflow's operator reads the job's id and nothing more: neither a full nor a closed pipe stops the launcher."""
    code = (
        "import sys; from pipelines.beam_main import _Outlet; sys.stderr = _Outlet()\n"
        "print('Created job with id: [x]', file=sys.stderr)\n"
        "for _ in range(3000): print('x' * 100, file=sys.stderr)\n"
        f"open({str(tmp_path / 'reached')!r}, 'w').close()\n"
        "sys.stdin.read(1)\n"
        "print('after', file=sys.stderr)\n"
        f"open({str(tmp_path / 'closed')!r}, 'w').close()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr
    assert process.stdin
    assert process.stderr.readline() == "Created job with id: [x]\n"
    for _ in range(600):
        if (tmp_path / "reached").exists():
            break
        time.sleep(0.1)
    assert (tmp_path / "reached").exists()
    process.stderr.close()
    process.stdin.write("x")
    process.stdin.close()
    assert process.wait(60) == 0
    assert (tmp_path / "closed").exists()
