"""Whether training can start: all that it reads is up to date, and what that holds."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from test_gcs_chain import videos

from pipelines import cli
from pipelines.chain import Chain
from pipelines.config import Config, load_config
from pipelines.exit_codes import EXIT_FAILED, EXIT_NOTHING
from pipelines.progress import Screen
from pipelines.readiness import holdings, obstacle
from stores.clips import make_clips, read_clips, write_clips
from stores.store import Store

__all__ = ["videos"]
OPTIONS = {"frames.shorter_side_px": 48, "store.num_shards": 2, "run.workers": 1}
STORES = ("frames", "pose", "render/rgb-bar-13-ratio", "flow")


@pytest.fixture(scope="module")
def config(videos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A workspace with all stores but the rendered one."""
    workspace = str(tmp_path_factory.mktemp("ready"))
    splits = ("train", "test", "train")
    rows = [
        {"clip_id": v.parent.name, "uri": str(v), "stop_s": 0.2, "label": v.parent.name, "split": split}
        for v, split in zip(videos, splits, strict=True)
    ]
    write_clips(workspace, make_clips(rows))
    found = load_config(None, {"workspace": workspace, **OPTIONS})
    Chain(found, Screen(quiet=True)).run(["frames", "pose", "flow"])
    return found


def look(config: Config) -> Chain:
    return Chain(config, Screen(quiet=True), look_only=True)


def test_a_store_that_is_missing_or_made_otherwise_stands_in_the_way(config: Config) -> None:
    assert obstacle(look(config)) == "render/rgb-bar-13-ratio is not up to date"
    drawn = replace(config, pose=replace(config.pose, source="drawn"))
    assert obstacle(look(drawn)) == ""
    assert set(holdings(look(drawn))) == {"clips", "frames", "pose", "flow"}
    coarse = replace(drawn, flow=replace(drawn.flow, bound_px=15.0))
    assert obstacle(look(coarse)) == "flow is not up to date"


def test_training_needs_a_local_workspace(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["ready", "--workspace", "gs://bucket/work"]
    assert cli.run([*arguments, "--skip_code"]) == EXIT_NOTHING
    assert cli.run(arguments) == EXIT_FAILED
    line = "not ready: workspace: gs://bucket/work is not local, and training writes its runs to a local workspace"
    assert capsys.readouterr().out.splitlines() == [line, line]


def test_what_it_holds_changes_with_labels_and_splits(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    Chain(config, Screen(quiet=True)).run(["render"])
    flags = [f"--{name}={value}" for name, value in {"workspace": config.workspace, **OPTIONS}.items()]
    assert cli.run(["ready", *flags]) == 0
    before = json.loads(capsys.readouterr().out)
    assert set(before) == {"clips", *STORES}
    table = read_clips(config.workspace)
    write_clips(config.workspace, replace(table, splits={"split": ["test", "train", "train"]}))
    assert cli.run(["ready", *flags]) == 0
    after = json.loads(capsys.readouterr().out)
    assert {name for name in before if before[name] != after[name]} == {"clips"}


def test_clips_to_try_again_stand_in_nobodys_way(config: Config) -> None:
    """They keep a store stale for ever, if a video never comes: that must not keep training from starting."""
    store = Store(config.workspace, "flow")
    snapshot = store.require_snapshot()
    lost = replace(snapshot.shards[0], rejected_transient=1, clips=snapshot.shards[0].clips - 1)
    store.put_snapshot(replace(snapshot, shards=(lost, *snapshot.shards[1:])))
    try:
        assert look(config).reason("flow")
        assert look(config).committed("flow") is not None
        assert look(replace(config, flow=replace(config.flow, bound_px=15.0))).committed("flow") is None
    finally:
        store.put_snapshot(snapshot)
