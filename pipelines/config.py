"""The configuration: one YAML file, one section per stage and per model, everything overridable on the command line."""

import dataclasses
import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import yaml

from models.options import (
    DataOptions,
    EvaluateOptions,
    ModelOptions,
    NetworkOptions,
    StudentOptions,
    TrainOptions,
)
from pipelines.wrong_values import expected_of, wrong_value
from stores import files
from stores.checks import require
from transforms.options import FlowOptions, FramesOptions, PoseOptions, RenderOptions

VIDEOS_VARIABLE = "PERFNET_VIDEOS"


@dataclass(frozen=True)
class ClipsOptions:
    """Where the clips come from, for recipes that make the clips table themselves.

    Attributes:
        folder: folder of videos, one sub-folder a class; the environment variable PERFNET_VIDEOS stands in for it.
            None means that `clips.parquet` is there already.
        group_pattern: regular expression searched in each path; its first group names what must not be split.
        test_pattern: groups that match it are the test split; None means by test_share.
        test_share, val_share: share of the clips that become test and val, whole groups at a time.
        folds: columns split_1 … split_k beside the column split: in each another k-th of the groups is test.
    """

    folder: str | None = None
    group_pattern: str | None = None
    test_pattern: str | None = None
    test_share: float = 0.3
    val_share: float = 0.0
    folds: int = 0

    def __post_init__(self) -> None:
        for name in ("group_pattern", "test_pattern"):
            _check_pattern(f"clips.{name}", getattr(self, name))
        for name in ("test_share", "val_share"):
            share = getattr(self, name)
            require(f"clips.{name}", share, 0 <= share < 1, "at least 0, less than 1")
        both = self.test_share + self.val_share
        require("clips.test_share + clips.val_share", both, both < 1, "less than 1")
        require("clips.folds", self.folds, self.folds == 0 or 2 <= self.folds <= 100, "0 or 2 to 100")


def _check_pattern(name: str, pattern: str | None) -> None:
    try:
        compiled = re.compile(pattern or "")
    except re.error as error:
        raise ValueError(f"{name}: {pattern!r} is not a regular expression ({error})") from error
    if name.endswith("group_pattern") and pattern:
        require(name, pattern, compiled.groups >= 1, "a pattern with a group in parentheses")


@dataclass(frozen=True)
class StoreOptions:
    """How stores are laid out.

    Attributes:
        format: of the shard files.
        num_shards: None keeps what there is, or chooses by the number of clips.
    """

    format: Literal["parquet", "tfrecord"] = "parquet"
    num_shards: int | None = None

    def __post_init__(self) -> None:
        shards = self.num_shards
        require("store.num_shards", shards, shards is None or 1 <= shards <= 99_999, "between 1 and 99999")


@dataclass(frozen=True)
class RunOptions:
    """How stages are run.

    Attributes:
        workers: local worker processes; 0 means one a core.
        max_rejected: largest share of rejected clips with which a store is committed.
        retry_rejected: also try clips again that were rejected because of their data.
        force: compute the stores that are named on the command line again, fresh or not, and copy nothing.
        leave_running: a job on Dataflow goes on when this process is stopped; the next run waits for it.
    """

    workers: int = 0
    max_rejected: float = 0.01
    retry_rejected: bool = False
    force: bool = False
    leave_running: bool = False

    def __post_init__(self) -> None:
        require("run.workers", self.workers, 0 <= self.workers <= 1024, "between 0 and 1024")
        require("run.max_rejected", self.max_rejected, 0 <= self.max_rejected <= 1, "between 0 and 1")


@dataclass(frozen=True)
class Config:
    """Everything a run depends on.

    Attributes:
        workspace: folder that holds clips.parquet, the stores and the runs; local or gs://.
    """

    workspace: str = "workspace"
    clips: ClipsOptions = field(default_factory=ClipsOptions)
    store: StoreOptions = field(default_factory=StoreOptions)
    run: RunOptions = field(default_factory=RunOptions)
    frames: FramesOptions = field(default_factory=FramesOptions)
    pose: PoseOptions = field(default_factory=PoseOptions)
    render: RenderOptions = field(default_factory=RenderOptions)
    flow: FlowOptions = field(default_factory=FlowOptions)
    network: NetworkOptions = field(default_factory=NetworkOptions)
    data: DataOptions = field(default_factory=DataOptions)
    train: TrainOptions = field(default_factory=TrainOptions)
    student: StudentOptions = field(default_factory=StudentOptions)
    evaluate: EvaluateOptions = field(default_factory=EvaluateOptions)

    def __post_init__(self) -> None:
        require("workspace", self.workspace, bool(self.workspace), "a folder")
        files.check_uri(self.workspace)

    def model_options(self) -> ModelOptions:
        """What the models need to know: their sections, and which store the pose stream reads."""
        return ModelOptions(
            pose_store=f"render/{self.render.variant}",
            drawn=self.render if self.pose.source == "drawn" else None,
            network=self.network,
            data=self.data,
            train=self.train,
            student=self.student,
            evaluate=self.evaluate,
        )

    def to_yaml(self) -> str:
        return yaml.safe_dump(_plain(dataclasses.asdict(self)), sort_keys=False, allow_unicode=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (tuple, list)) else value


def load_config(path: str | None, overrides: Mapping[str, Any] | None = None) -> Config:
    """Reads the YAML file and applies overrides such as {"flow.bound_px": 15}.

    Raises:
        ValueError: unreadable file, unknown key (names the nearest), wrong type or value; one line each.
    """
    values = _read_yaml(path) if path else {}
    if "rows" in values:
        shown = files.printable(path or "")
        raise ValueError(f"--config: {shown} is a table; run `perfnet experiment {shown}`")
    for name, value in (overrides or {}).items():
        _assign(values, name, value)
    _refuse_unknown(values, Config, "", path)
    _refuse_nothing(values, Config, "")
    if os.environ.get(VIDEOS_VARIABLE) and "clips" in values:
        values["clips"] = {"folder": os.environ[VIDEOS_VARIABLE]} | {
            k: v for k, v in (values["clips"] or {}).items() if v is not None
        }
    return _build(values, path)


def _read_yaml(path: str) -> dict[str, Any]:
    try:
        found = yaml.safe_load(files.read_bytes(path))
    except FileNotFoundError as error:
        raise ValueError(f"--config: {files.printable(path)} does not exist") from error
    except OSError as error:
        raise ValueError(f"--config: {files.printable(path)} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise ValueError(f"--config: {files.printable(path)} is not YAML: {problem}") from error
    if not isinstance(found or {}, dict):
        raise ValueError(
            f"--config: {files.printable(path)} holds a {type(found).__name__}, expected sections with keys"
        )
    return dict(found or {})


def _assign(values: dict[str, Any], name: str, value: Any) -> None:
    *sections, last = name.split(".")
    for section in sections:
        inner = values.get(section)
        values[section] = dict(inner) if isinstance(inner, dict) else {}
        values = values[section]
    values[last] = value


def _refuse_unknown(values: Mapping[str, Any], kind: type, prefix: str, path: str | None) -> None:
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for name, value in values.items():
        if name not in fields:
            shown = files.printable(f"{prefix}{name}")
            raise ValueError(
                f"unknown key '{shown}'{f' in {path}' if path else ''}; {_nearest(str(name), prefix, list(fields))}"
            )
        section = fields[name].type
        if dataclasses.is_dataclass(section):
            if value is not None and not isinstance(value, Mapping):
                raise ValueError(f"{prefix}{name}: found {value!r}, expected a section with keys")
            _refuse_unknown(value or {}, section, f"{prefix}{name}.", path)  # type: ignore[arg-type]


def _refuse_nothing(values: Mapping[str, Any], kind: type, prefix: str) -> None:
    """A key with nothing behind it is null in YAML; only a section, or a key that takes null, may be left so."""
    kinds: dict[str, Any] = {f.name: f.type for f in dataclasses.fields(kind)}
    for name, value in values.items():
        if dataclasses.is_dataclass(kinds[name]):
            _refuse_nothing(value or {}, kinds[name], f"{prefix}{name}.")
        elif value is None and type(None) not in get_args(kinds[name]):
            raise ValueError(
                f"{prefix}{name}: found nothing, expected {expected_of(kinds[name])}; give a value or leave the key out"
            )


def _nearest(name: str, prefix: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {prefix}{close[0]!r}?" if not prefix else f"did you mean '{prefix}{close[0]}'?"
    return f"known: {', '.join(prefix + k for k in known)}"


def _build(values: Mapping[str, Any], path: str | None) -> Config:
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Config)
    try:
        parsed = parser.parse_object({k: _with_defaults(k, v) for k, v in values.items() if v is not None})
        return Config(**vars(parser.instantiate(parsed)))
    except ArgumentError as error:
        raise ValueError(_one_line(str(error))) from error


def _with_defaults(name: str, given: Any) -> Any:
    """A section with the defaults of its class beside what is given.

    The parser would take them from a finished section, in which one default may already follow from another: the
    blocks of a network from its backbone.
    """
    section = {f.name: f.type for f in dataclasses.fields(Config)}[name]
    if not dataclasses.is_dataclass(section):
        return given
    return {f.name: f.default for f in dataclasses.fields(section)} | dict(given)


def _one_line(message: str) -> str:
    """jsonargparse explains over several indented lines; ours say it in one: key, what was found, what was expected."""
    told = wrong_value(message)
    if told:
        return ": ".join(told)
    text = " ".join(message.split())
    match = re.search(r'key "([^"]+)"[^:]*: (.*)', text)
    return f"{match[1]}: {match[2]}" if match else text
