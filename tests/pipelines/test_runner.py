"""The Beam job on real local runners: in this process, and in worker processes."""

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
from fake_stages import CountingFrames, Deadly, plan_frames, table_of
from test_plan import LENGTHS, VIDEOS, shards_of

from pipelines import runner
from pipelines.prepare import _write_job
from pipelines.progress import clips_in_flight
from stores.checks import StageFailed
from stores.commit import commit
from stores.plan import build_tasks
from transforms.shards import UpdateShards
from transforms.update import ShardUpdate


def job(
    workspace: str,
    stage: CountingFrames,
    *,
    workers: int,
    beam_args: Sequence[str] = (),
    **commit_options: float,
) -> dict[str, int]:
    """Plans, runs and commits the first stage over the counting videos."""
    planned, videos = plan_frames(workspace, stage, table_of(VIDEOS), num_shards=8)
    folder = _write_job(workspace, planned, build_tasks(planned, videos=videos))
    update = UpdateShards(ShardUpdate(stage, planned.store, planned.encoding, planned.spec), folder)
    counters = runner.run_job(planned.stale, update, scratch=folder, workers=workers, beam_args=beam_args)
    commit(planned, max_rejected=commit_options.get("max_rejected", 0.0))
    return counters


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes find the fake stages."""
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parents[2]}:{Path(__file__).parents[1]}")


def test_counters_count_clips_frames_and_bytes(tmp_path: Path) -> None:
    counters = job(str(tmp_path), CountingFrames(LENGTHS), workers=1)
    assert (counters["clips"], counters["computed"], counters["copied"]) == (12, 12, 0)
    assert counters["frames"] == sum(LENGTHS.values())
    assert counters["rejected"] == 0
    assert counters["bytes"] > 0


def test_worker_processes_write_what_one_process_writes(tmp_path: Path) -> None:
    one, many = str(tmp_path / "one"), str(tmp_path / "many")
    job(one, CountingFrames(LENGTHS), workers=1)
    counters = job(many, CountingFrames(LENGTHS), workers=2)
    assert counters["computed"] == 12
    assert shards_of(one, "frames") == shards_of(many, "frames")


def test_a_dead_worker_is_named_and_costs_nothing_else(tmp_path: Path) -> None:
    calm, ws = str(tmp_path / "calm"), str(tmp_path / "ws")
    job(calm, CountingFrames(LENGTHS), workers=1)
    with pytest.raises(
        StageFailed, match=r"clips being worked on: (c\d\d, )*c05(, c\d\d)*; finished shards are kept"
    ):
        job(ws, Deadly(LENGTHS, deadly="c05", shards=f"{ws}/frames/shards"), workers=2)
    counters = job(ws, CountingFrames(LENGTHS), workers=1)
    assert counters["computed"] < 12
    assert shards_of(ws, "frames") == shards_of(calm, "frames")


@pytest.mark.parametrize(
    "beam_args",
    [[], ["--runner=DirectRunner"], ["--runner=DirectRunner", "--direct_running_mode=multi_processing"]],
)
def test_prism_is_never_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, beam_args: list[str]
) -> None:
    """Beam's own DirectRunner would download the Prism binary first."""
    from apache_beam.runners.direct import direct_runner
    from apache_beam.runners.portability import prism_runner

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("Prism or the switching DirectRunner was tried")

    monkeypatch.setattr(prism_runner.PrismRunner, "__init__", refuse)
    monkeypatch.setattr(direct_runner.SwitchingDirectRunner, "run_pipeline", refuse)
    with caplog.at_level(logging.DEBUG):
        assert job(str(tmp_path), CountingFrames(LENGTHS), workers=1, beam_args=beam_args)["computed"] == 12
    assert not [r for r in caplog.records if "prism" in r.name]


def test_clips_in_flight_are_begun_and_not_done(tmp_path: Path) -> None:
    folder = tmp_path / "progress"
    folder.mkdir()
    (folder / "1.jsonl").write_text(
        '{"start": "a"}\n{"done": "a", "frames": 1, "rejected": null}\n{"start": "b"}\n{"sta'
    )
    assert clips_in_flight(str(tmp_path)) == ["b"]
