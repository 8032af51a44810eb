"""Garbage is what nobody needs: not a reader, not the plan, not a running job, not a training, and nothing young."""

import json
import os
import time
from pathlib import Path

import pytest
from fake_stages import CountingFrames, plan_frames, table_of
from gcs import BUCKET, emulator, environment
from test_plan import LENGTHS, VIDEOS, run_flow, run_frames

from stores import files, leases
from stores.gc import delete, find_garbage
from stores.plan import build_tasks
from stores.reader import StoreReader
from stores.store import Store
from transforms.update import ShardUpdate

DAY_S = 86_400.0
SOME = {c: u for c, u in VIDEOS.items() if c != "c03"}


def names(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def collect(workspace: Path, *, now_s: float | None = None, **kw: object) -> set[str]:
    """Deletes the garbage of a workspace as it is two days later; returns the names of what is gone."""
    before = names(workspace)
    found = find_garbage(
        str(workspace),
        **{"plans": [], "min_age_s": DAY_S, "now_s": now_s or time.time() + 2 * DAY_S} | kw,  # type: ignore[arg-type]
    )
    delete(str(workspace), found)
    gone = before - names(workspace)
    assert gone == {g.name for g in found}
    return gone


@pytest.fixture
def superseded(tmp_path: Path) -> Path:
    """Frames and flow with one clip, then without: the first shard of that clip is garbage in both."""
    for clips in (VIDEOS, SOME):
        run_frames(str(tmp_path), table_of(clips))
        run_flow(str(tmp_path))
    return tmp_path


def test_superseded_shards_go_and_readers_keep_theirs(superseded: Path) -> None:
    gone = collect(superseded)
    assert sorted(n.split("/")[0] for n in gone) == ["flow", "flow", "frames", "frames"]
    assert sorted(Path(n).suffix for n in gone) == [".json", ".json", ".parquet", ".parquet"]
    for store in ("frames", "flow"):
        left = Store(str(superseded), store)
        assert {n for s in left.require_snapshot().shards for n in (s.data, s.summary)} == left.listing()
    assert run_frames(str(superseded), table_of(SOME)).seen == []
    assert collect(superseded) == set()


def test_the_young_stay_also_when_the_clock_steps_back(superseded: Path) -> None:
    assert collect(superseded, now_s=time.time() + DAY_S / 2) == set()
    assert collect(superseded, now_s=time.time() - 30 * DAY_S) == set()


def test_strangers_stay(superseded: Path) -> None:
    strangers = {
        "frames/shards/notes.txt",
        "frames/shards/00001-of-00004-0123456789abcdef.json",
        "frames/shards/00001-of-00004-0123456789abcdef-0123456789abcdef.csv",
        "frames/other/00001-of-00004-0123456789abcdef-0123456789abcdef.json",
        "mine/.part-abcdefgh-x",
        ".part-short",
        "jobs/my-notes/job.log",
        "jobs/flow-20200101T000000-1/thesis.tex",
        "models/not-a-digest/model.task",
        "runs/rgb/metrics.csv",
    }
    for name in strangers:
        (superseded / name).parent.mkdir(parents=True, exist_ok=True)
        (superseded / name).write_text("mine")
    (superseded / "link").symlink_to(superseded / "frames")
    collect(superseded)
    assert strangers <= names(superseded)


def test_partial_files_and_dead_jobs_go(superseded: Path) -> None:
    ours = {
        ".part-ab12_xyz-clips.parquet",
        "frames/shards/.part-ab12_xyz-00001-of-00004.parquet",
        "runs/rgb/checkpoints/.part-ab12_xyz-last.ckpt",
        "jobs/render-rgb-bar-13-ratio-20200101T000000-1/job.log",
        "jobs/render-rgb-bar-13-ratio-20200101T000000-1/progress/7-8.jsonl",
    }
    for name in ours:
        (superseded / name).parent.mkdir(parents=True, exist_ok=True)
        (superseded / name).write_text("ours")
    assert ours <= collect(superseded)
    assert not (superseded / "jobs" / "render-rgb-bar-13-ratio-20200101T000000-1").exists()


def test_the_log_of_a_failed_job_stays_while_any_file_of_it_is_young(superseded: Path) -> None:
    folder = superseded / "jobs" / "flow-20200101T000000-1"
    folder.mkdir(parents=True)
    for name in ("job.json", "job.log"):
        (folder / name).write_text("{}")
    os.utime(folder / "job.json", (0, 0))
    assert not [n for n in collect(superseded, now_s=time.time()) if n.startswith("jobs/")]
    assert len([n for n in collect(superseded) if n.startswith("jobs/")]) == 2


def test_a_training_keeps_what_it_has_pinned(superseded: Path, tmp_path: Path) -> None:
    (old,) = (n for n in names(superseded / "flow") - _listed(superseded, "flow") if n.endswith("parquet"))
    pins = superseded / "runs" / "trial" / "flow-seed1" / "pins.json"
    pins.parent.mkdir(parents=True)
    pins.write_text(json.dumps({"stores": {"flow": [Path(old).name]}}))
    assert f"flow/{old}" not in collect(superseded)
    pins.write_text("{half")
    with pytest.raises(ValueError, match=r"pins\.json cannot be read"):
        collect(superseded)
    pins.unlink()
    assert collect(superseded) == {f"flow/{old}"}


def _listed(workspace: Path, store: str) -> set[str]:
    shards = Store(str(workspace), store).require_snapshot().shards
    return {f"shards/{n}" for s in shards for n in (s.data, s.summary)} | {"snapshot.json"}


def test_what_a_running_job_reads_copies_and_writes_stays(tmp_path: Path) -> None:
    """The job began days ago, and every file is old; then its lease runs out."""
    ws = str(tmp_path)
    run_frames(ws, table_of(SOME))
    stage = CountingFrames(LENGTHS)
    planned, videos = plan_frames(ws, stage, table_of(VIDEOS))
    tasks = build_tasks(planned, videos=videos)
    folder = tmp_path / "jobs" / "frames-20200101T000000-1"
    folder.mkdir(parents=True)
    needs = leases.needs_of(planned, tasks, [])
    (folder / leases.JOB).write_text(json.dumps({"spec": {}, "needs": needs}))
    run_frames(ws, table_of({c: u for c, u in SOME.items() if c != "c05"}))  # meanwhile somebody else commits
    ShardUpdate(stage, planned.store, planned.encoding, planned.spec).run(tasks[0])
    now_s = time.time() + 2 * DAY_S
    (folder / leases.LEASE).write_text(json.dumps({"renewed_s": now_s - 60}))
    assert collect(tmp_path, now_s=now_s) == set()
    (folder / leases.LEASE).unlink()
    (folder / leases.ON_DATAFLOW).write_text("{}")  # there it may go on without its launcher, for ten days
    assert collect(tmp_path, now_s=now_s) == set()
    now_s += leases.DATAFLOW_S
    (folder / leases.LEASE).write_text(json.dumps({"renewed_s": now_s - leases.LIVE_S}))
    gone = collect(tmp_path, now_s=now_s)
    assert {n.split("/")[0] for n in gone} == {"frames", "jobs"}
    assert len([n for n in gone if n.endswith(".parquet")]) == 2  # one that it copies from, one that it wrote


def test_an_interrupted_run_keeps_its_finished_shards(superseded: Path) -> None:
    """While the configuration asks for them."""
    ws, stage = str(superseded), CountingFrames(LENGTHS, {"fps": 10})
    planned, videos = plan_frames(ws, stage, table_of(SOME))
    ShardUpdate(stage, planned.store, planned.encoding, planned.spec).run(
        build_tasks(planned, videos=videos)[0]
    )
    planned, _ = plan_frames(ws, stage, table_of(SOME))
    assert len(planned.standing) == 1
    kept = {f"frames/shards/{n}" for r in planned.standing.values() for n in (r.summary, r.data)}
    assert not kept & collect(superseded, plans=[planned])
    assert kept == collect(superseded)


@pytest.mark.parametrize("damage", ["missing", "half"])
def test_a_store_without_a_readable_snapshot_is_left_alone(superseded: Path, damage: str) -> None:
    path = superseded / "frames" / "snapshot.json"
    path.write_bytes(path.read_bytes()[:50])
    if damage == "missing":
        path.unlink()
    assert {n.split("/")[0] for n in collect(superseded)} == {"flow"}
    assert collect(superseded, unplanned=["flow"]) == set()


def test_models_that_no_spec_names_go(superseded: Path) -> None:
    used, unused = "a" * 64, "b" * 64
    run_frames_with = CountingFrames(LENGTHS, {"model_sha256": used})
    planned, _ = plan_frames(str(superseded), run_frames_with, table_of(SOME))
    for digest in (used, unused):
        (superseded / "models" / digest).mkdir(parents=True)
        (superseded / "models" / digest / "pose.task").write_text("model")
    gone = collect(superseded, plans=[planned])
    assert [n for n in gone if n.startswith("models")] == [f"models/{unused}/pose.task"]


def test_a_lease_is_renewed_and_removed(tmp_path: Path) -> None:
    path = tmp_path / leases.LEASE
    with leases.held_lease(str(tmp_path), renew_s=0.01):
        first = json.loads(path.read_text())
        for _ in range(500):
            time.sleep(0.01)
            if json.loads(path.read_text())["renewed_s"] > first["renewed_s"]:
                break
        assert json.loads(path.read_text())["renewed_s"] > first["renewed_s"]
        assert leases.is_live(first, time.time())
    assert not path.exists()
    assert not leases.is_live(first, first["renewed_s"] + leases.LIVE_S)
    assert leases.is_live(first, first["renewed_s"] - DAY_S)


def test_garbage_on_an_object_store(tmp_path: Path) -> None:
    """Listing, ages and deletion through gcsfs; nothing else differs."""
    with emulator() as url, environment(url):
        ws = f"gs://{BUCKET}/ws"
        for clips in (VIDEOS, SOME):
            run_frames(ws, table_of(clips))
        files.put_bytes(files.join(ws, "frames", "shards", "notes.txt"), b"mine")
        for name in ("job.log", "done/0", "done/1"):
            files.put_bytes(files.join(ws, "jobs", "frames-20200101T000000-1", *name.split("/")), b"ours")
        young = find_garbage(ws, plans=[], min_age_s=DAY_S, now_s=time.time())
        assert young == []
        found = find_garbage(ws, plans=[], min_age_s=DAY_S, now_s=time.time() + 2 * DAY_S)
        assert [g.kind for g in found] == ["summary file", "data file", *["job file"] * 3]
        delete(ws, found)
        assert not {g.name for g in found} & set(files.list_tree(ws))
        assert "frames/shards/notes.txt" in files.list_tree(ws)
        assert not [n for n in files.list_tree(ws) if n.startswith("jobs/")]
        assert list(StoreReader(ws, "frames").clips) == sorted(SOME)
