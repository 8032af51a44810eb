"""The configuration: mistakes are named in one line, with the nearest known key."""

import dataclasses
from pathlib import Path
from typing import get_args

import pytest

from models.options import NetworkOptions
from pipelines.config import Config, load_config

ROOT = Path(__file__).parents[2]


def config_of(tmp_path: Path, text: str, overrides: dict | None = None) -> Config:
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(str(path), overrides)


def test_defaults_are_the_papers() -> None:
    config = load_config(None)
    assert (config.frames.fps, config.frames.shorter_side_px) == (25.0, 256)
    assert (config.data.window_frames, config.network.blocks) == (64, (3, 4, 6, 3))


def test_sections_and_overrides(tmp_path: Path) -> None:
    config = config_of(
        tmp_path, "flow: {bound_px: 10}\nnetwork: {width: 0.5}", {"flow.bound_px": 15, "workspace": "w"}
    )
    assert (config.flow.bound_px, config.network.width, config.workspace) == (15.0, 0.5, "w")


def test_yaml_lists_become_tuples(tmp_path: Path) -> None:
    assert config_of(tmp_path, "network: {blocks: [1, 1, 1, 1]}").network.blocks == (1, 1, 1, 1)


def test_the_environment_names_the_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERFNET_VIDEOS", "/data/videos")
    assert config_of(tmp_path, "clips: {folder: null, test_share: 0.5}").clips.folder == "/data/videos"
    assert config_of(tmp_path, "clips: {folder: /mine}").clips.folder == "/mine"
    assert config_of(tmp_path, "workspace: w").clips.folder is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flow: {bound_pix: 3}", r"unknown key 'flow.bound_pix' in .*c.yaml; did you mean 'flow.bound_px'\?"),
        ("flows: {}", r"unknown key 'flows' in .*; did you mean 'flow'\?"),
        ("zzz: 1", r"unknown key 'zzz' in .*; known: workspace, clips"),
        ("flow: 3", "flow: found 3, expected a section with keys"),
        ("- a\n- b", "holds a list, expected sections"),
        ("a: [", "is not YAML"),
        ("frames: {fps: fast}", "frames.fps"),
        ("frames: {fps: 0}", "frames.fps: found 0.0, expected between"),
        (
            "render: {variant: rgb-bar-14-ratio}",
            "render.variant: found 'rgb-bar-14-ratio', expected one of rgb-bar-6",
        ),
        ("flow: {backend: cuda}", "flow.backend"),
        ("run: {max_rejected: 2}", "run.max_rejected: found 2.0, expected between 0 and 1"),
        ("store: {num_shards: 0}", "store.num_shards: found 0"),
        ("clips: {group_pattern: '('}", "clips.group_pattern: '\\(' is not a regular expression"),
        ("clips: {group_pattern: 'g'}", "a pattern with a group in parentheses"),
        ("workspace: http://x", "only local paths and gs://"),
        ("network: {blocks: [1, 2]}", "network.blocks"),
        ("train: {precision: 16}", "train.precision"),
        ("student: {teachers: [depth]}", "student.teachers"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        config_of(tmp_path, text)
    assert "\n" not in str(caught.value)


def leaves() -> list[tuple[str, type]]:
    """(section.key, type) of every key that holds a value."""
    top = {f.name: f.type for f in dataclasses.fields(Config)}
    sections = {name: kind for name, kind in top.items() if dataclasses.is_dataclass(kind)}
    inner = [(f"{n}.{f.name}", f.type) for n, k in sections.items() for f in dataclasses.fields(k)]
    return [*((name, kind) for name, kind in top.items() if name not in sections), *inner]


@pytest.mark.parametrize(("name", "kind"), leaves(), ids=lambda value: str(value))
def test_a_key_without_a_value_is_refused_where_it_needs_one(name: str, kind: type) -> None:
    if type(None) in get_args(kind):
        load_config(None, {name: None})
        return
    with pytest.raises(ValueError, match=rf"^{name}: found nothing, expected [^;]+; give a value"):
        load_config(None, {name: None})


def test_an_empty_section_is_all_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config_of(tmp_path, "train:\nflow:\n") == load_config(None)
    monkeypatch.setenv("PERFNET_VIDEOS", "/data/videos")
    assert config_of(tmp_path, "clips:\n").clips.folder == "/data/videos"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--config: .*nowhere.yaml does not exist"):
        load_config(str(tmp_path / "nowhere.yaml"))


def test_a_table_is_no_configuration() -> None:
    with pytest.raises(ValueError, match=r"table4.yaml is a table; run `perfnet experiment .*table4.yaml`"):
        load_config(str(ROOT / "recipes" / "table4.yaml"))


def test_a_written_configuration_reads_back(tmp_path: Path) -> None:
    config = load_config(str(ROOT / "recipes" / "ut_interaction.yaml"))
    assert config_of(tmp_path, config.to_yaml()) == config


def test_what_follows_from_a_backbone_follows_from_the_one_that_is_named(tmp_path: Path) -> None:
    assert load_config(None, {"network.backbone": "s3dg"}).network == NetworkOptions(backbone="s3dg")
    path = tmp_path / "c.yaml"
    path.write_text("network: {backbone: s3dg, width: 0.5}")
    assert load_config(str(path)).network == NetworkOptions(backbone="s3dg", width=0.5)
    assert load_config(None, {"train.epochs": 3}).network == NetworkOptions()
