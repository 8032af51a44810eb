"""The configuration with where each value came from, and the commented file that a new project starts from."""

import dataclasses
import os
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from pipelines.config import VIDEOS_VARIABLE, ClipsOptions, Config, load_config
from stores import files

_VALUE_COLUMNS = 44


def annotated(path: str | None, overrides: Mapping[str, Any]) -> str:
    """The whole configuration as YAML, each value with a comment: default, file and line, command line, environment.

    Raises:
        ValueError: as `load_config` does.
    """
    config = load_config(path, overrides)
    lines = _lines_of(path) if path else {}
    written = []
    for name, value in _leaves(config):
        *section, last = name.split(".")
        if section and section[0] not in written:
            written += [f"{section[0]}:", section[0]]
        text = f"{'  ' * len(section)}{_scalar(last)}: {_scalar(value)}"
        written.append(f"{text:<{_VALUE_COLUMNS}}  # {_source(name, value, path, lines, overrides)}")
    sections = {field.name for field in dataclasses.fields(Config)}
    return "\n".join(line for line in written if line not in sections) + "\n"


def _leaves(config: Config) -> Iterator[tuple[str, Any]]:
    """(section.key, value) in the order of the configuration."""
    for name, value in dataclasses.asdict(config).items():
        if isinstance(value, dict):
            yield from ((f"{name}.{key}", inner) for key, inner in value.items())
        else:
            yield name, value


def _scalar(value: Any) -> str:
    """A value in one line of YAML."""
    plain = _lists(value)
    text = yaml.safe_dump(plain, default_flow_style=True, allow_unicode=True, width=float("inf"))
    return text.removesuffix("\n").removesuffix("\n...")


def _lists(value: Any) -> Any:
    return [_lists(inner) for inner in value] if isinstance(value, tuple | list) else value


def _source(
    name: str, value: Any, path: str | None, lines: Mapping[str, int], overrides: Mapping[str, Any]
) -> str:
    if name in overrides:
        return f"command line, --{name}"
    from_environment = name == "clips.folder" and value is not None
    if from_environment and value == os.environ.get(VIDEOS_VARIABLE) and not _given(path, name):
        return f"environment, {VIDEOS_VARIABLE}"
    if path and name in lines:
        return f"{files.printable(path)}:{lines[name]}"
    return "default"


def _given(path: str | None, name: str) -> bool:
    """Whether the file itself has a value, not null, for the key."""
    values: Any = yaml.safe_load(files.read_bytes(path)) if path else {}
    for part in name.split("."):
        values = (values or {}).get(part)
    return values is not None


def _lines_of(path: str) -> dict[str, int]:
    """section.key → its line in the file, counted from 1."""
    root = yaml.compose(files.read_bytes(path), Loader=yaml.SafeLoader)
    return dict(_lines_below(root, "")) if root else {}


def _lines_below(node: yaml.Node, prefix: str) -> Iterator[tuple[str, int]]:
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        yield name, key.start_mark.line + 1
        yield from _lines_below(value, f"{name}.")


_BATCH_SIZE = 8
STARTER = """\
# A perfnet configuration. Every key can be left out, and be given on the command line: --train.epochs 30.
# `perfnet config --config {path}` shows all keys with their values; numbers here suit two CPU cores.
#
#   perfnet run --config {path}       everything that is stale: stores, trainings, evaluation
#   perfnet status --config {path}    what is fresh, what is stale and why
#   perfnet report --config {path}    one HTML page about it all
workspace: {workspace}      # stores, runs and reports go here; also gs://bucket/folder

clips:
  folder: {videos}          # one sub-folder of videos for each class
  test_share: {test_share}          # of the clips; the networks are judged on them
  {group}group_pattern: {group_pattern}   # its first group names what must not be split: one scene, one person

frames:
  shorter_side_px: 128      # 256 is the paper's

pose:
  backend: mediapipe        # one or two people; movenet finds up to six (perfnet models fetch movenet)

network:
  width: 0.25               # of the channels; 1.0 is the paper's
  blocks: [1, 1, 1, 1]      # 3, 4, 6, 3 are the paper's

data:
  window_frames: 16         # what a network sees at once: 16 frames
  stride_frames: 4          # every fourth: 2.6 s at 25 frames a second
  crop_height_px: 96
  crop_width_px: 96
  cache_mb: 2000            # memory for decoded clips

train:
  epochs: 60
  batch_size: {batch_size}             # clips a step; no more than there are to train on
  learning_rate: 0.03
  warmup_steps: 20
  norm_momentum: 0.1
  recalibration_batches: 12

student:
  weight: 0.05              # of the teachers' pull; few classes pull harder than the paper's 600, at 1.0

evaluate:
  frames: 20
  stride_frames: 4
  crop_height_px: 128
  crop_width_px: 128
  batch_size: 4
"""


def starter(path: str, clips: ClipsOptions, *, workspace: str, train_clips: int) -> str:
    """The commented configuration of a new project; its batch is no larger than its train split."""
    return STARTER.format(
        path=path,
        workspace=_scalar(workspace),
        videos=_scalar(clips.folder),
        test_share=clips.test_share,
        batch_size=max(1, min(_BATCH_SIZE, train_clips)),
        group="" if clips.group_pattern else "# ",
        group_pattern=_scalar(clips.group_pattern or r"(scene\d+)"),
    )
