"""A table of the paper as data: which runs there are, which of them each row adds up, what the paper found.

config: kinetics600.yaml             the base configuration, beside this file
folder: kinetics600                  runs lie in <workspace>/runs/kinetics600/; tables with one folder share them
splits: [split_1, split_2]           split columns, each trained and judged by itself; one by default: [split]
combine: pool                        pool: splits share no test clip and count as one; mean: of their accuracies
seeds: [0]                           of training; teachers are always those of the first seed
baseline: RGB                        the row that the others are compared with
draw: clip                           what the bootstrap draws: clip or group
runs:                                name, which begins with its role: what differs from the base
  rgb: {}
  student-UL: {student.teachers: [flow, pose], student.loss: unified}
rows:
  RGB: {fuse: [rgb], seeds: [0, 1, 2], paper: {top1: 80.4, top5: 95.2}}
  RGB+RGB: {fuse: [rgb, rgb@1]}      run@seed; run=weight where it is not 1
  S3D-G Flow: {fuse: [flow-s3dg], baseline: S3D-G RGB}    where it is not the table's
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import yaml

from models.options import ModelOptions, role_of
from models.runs import teachers_of
from pipelines.config import Config, load_config
from stores import files

_KEYS = ("config", "folder", "splits", "combine", "seeds", "baseline", "draw", "runs", "rows")
_ROW_KEYS = ("fuse", "seeds", "baseline", "paper")
_TERM = re.compile(r"(?P<run>[^@=]+)(@(?P<seed>\d+))?(=(?P<weight>[^@=]+))?")
_OURS = ("data.split", "train.seed", "workspace")


@dataclass(frozen=True)
class Term:
    """A run that a row adds up; seed None means the row's own."""

    run: str
    seed: int | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        baseline: the row that it is compared with; None where there is none, or where it is that row.
        paper: top1 and top5 in percent, as far as the paper has the row.
    """

    name: str
    terms: tuple[Term, ...]
    seeds: tuple[int, ...]
    baseline: str | None
    paper: Mapping[str, float]


@dataclass(frozen=True)
class Training:
    """One run that the experiment needs, on one split, with one seed.

    Attributes:
        run: its full name.
        teachers: full names.
    """

    run: str
    config: Config
    teachers: tuple[str, ...]

    @cached_property
    def options(self) -> ModelOptions:
        return self.config.model_options()


@dataclass(frozen=True)
class Experiment:
    """A recipe for a table; see the head of this file."""

    name: str
    config: str
    folder: str
    splits: tuple[str, ...]
    combine: str
    seeds: tuple[int, ...]
    draw: str
    runs: Mapping[str, Mapping[str, Any]]
    rows: Sequence[Row]
    overrides: Mapping[str, Any] = field(default_factory=dict)
    _configs: dict[str, Config] = field(default_factory=dict, repr=False)

    @cached_property
    def base(self) -> Config:
        """The base configuration with what the command line changes."""
        return load_config(self.config, self.overrides)

    def full_name(self, run: str, seed: int, split: str) -> str:
        """`<folder>/<run>-seed0`, and the split column behind it where it is not the column `split`."""
        suffix = "" if split == "split" else f"-{split}"
        return f"{self.folder}/{run}-seed{seed}{suffix}"

    def names_of(self, row: Row, seed: int, split: str) -> list[str]:
        """The runs that a row adds up, with their full names."""
        return [self.full_name(t.run, seed if t.seed is None else t.seed, split) for t in row.terms]

    def trainings(self, rows: Sequence[Row]) -> list[Training]:
        """What the rows need, each run once, teachers before their students.

        Raises:
            ValueError: a run's configuration is refused, or a student and its teachers do not fit together.
        """
        found: dict[str, Training] = {}
        wanted = [
            (t.run, seed if t.seed is None else t.seed, split)
            for split in self.splits
            for row in rows
            for seed in row.seeds
            for t in row.terms
        ]
        for run, seed, split in dict.fromkeys(wanted):
            self._add(found, run, seed, split)
        return list(found.values())

    def _config(self, run: str) -> Config:
        """The configuration of a run, whatever its split and seed; reading it takes a while."""
        if run not in self._configs:
            self._configs[run] = load_config(self.config, {**self.runs[run], **self.overrides})
        return self._configs[run]

    def _add(self, found: dict[str, Training], run: str, seed: int, split: str) -> None:
        name = self.full_name(run, seed, split)
        if name in found:
            return
        if run not in self.runs:
            raise ValueError(f"{self.name}: a student learns from {run!r}, which is none of the runs")
        config = self._config(run)
        config = replace(
            config, data=replace(config.data, split=split), train=replace(config.train, seed=seed)
        )
        if role_of(run) == "student":
            local = config.student.teachers
            for teacher in local:
                self._add(found, teacher, self.seeds[0], split)
            teachers = tuple(self.full_name(teacher, self.seeds[0], split) for teacher in local)
            config = replace(config, student=replace(config.student, teachers=teachers))
        training = Training(name, config, teachers_of(name, config.model_options()))
        _check_streams(training, found)
        found[name] = training


def _check_streams(student: Training, found: Mapping[str, Training]) -> None:
    """A student feeds its teachers from its own stores: they must be those that the teachers were trained on."""
    for teacher in student.teachers:
        stream = role_of(teacher)
        theirs, ours = (t.options.store_of(stream) for t in (found[teacher], student))
        if theirs != ours:
            raise ValueError(
                f"{student.run} would feed {teacher} from {ours}, it is trained on {theirs}; "
                "give both runs the same render.variant and pose.source"
            )


def load_experiment(path: str, overrides: Mapping[str, Any] | None = None) -> Experiment:
    """Reads a recipe.

    Args:
        overrides: keys of the configuration for all runs, as typed on the command line.

    Raises:
        ValueError: no such file, an unknown key, a row of a run that is not there, and the like; one line each.
    """
    where = files.printable(path)
    values = _mapping(_read(path), where, "", _KEYS)
    for key in ("config", "runs", "rows"):
        if key not in values:
            raise ValueError(f"{where}: key {key!r} is missing")
    given = dict(overrides or {})
    for key in _OURS[:2]:
        if key in given:
            raise ValueError(f"--{key}: the experiment sets it itself; change splits and seeds in {where}")
    name = os.path.splitext(os.path.basename(path))[0]
    seeds = _integers(values.get("seeds", [0]), f"{where}: seeds")
    runs = {str(run): _run(spec, f"{where}: runs.{run}", str(run)) for run, spec in values["runs"].items()}
    experiment = Experiment(
        name=name,
        config=os.path.join(os.path.dirname(path), str(values["config"])),
        folder=str(values.get("folder", name)),
        splits=tuple(map(str, _list(values.get("splits", ["split"]), f"{where}: splits"))),
        combine=_one_of(values.get("combine", "pool"), ("pool", "mean"), f"{where}: combine"),
        seeds=seeds,
        draw=_one_of(values.get("draw", "clip"), ("clip", "group"), f"{where}: draw"),
        runs=runs,
        rows=[
            _row(str(row), spec, seeds, values.get("baseline"), where) for row, spec in values["rows"].items()
        ],
        overrides=given,
    )
    _check(experiment, where)
    return experiment


def choose_rows(experiment: Experiment, names: Sequence[str] | None) -> list[Row]:
    """The rows of these names; all where none is named. What they are compared with comes along.

    Raises:
        ValueError: there is no such row.
    """
    known = [row.name for row in experiment.rows]
    for name in names or ():
        if name not in known:
            raise ValueError(f"--rows: found {files.quoted(name)}; {experiment.name} has {', '.join(known)}")
    chosen = set(names or known)
    chosen |= {row.baseline for row in experiment.rows if row.name in chosen and row.baseline}
    return [row for row in experiment.rows if row.name in chosen]


def _read(path: str) -> Any:
    try:
        return yaml.safe_load(files.read_bytes(path))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ValueError(f"{files.printable(path)} is not a file; recipes/ has the paper's tables") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{files.printable(path)} is not YAML: {' '.join(str(error).split())}") from error


def _mapping(value: Any, where: str, name: str, known: Sequence[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: {name or 'the file'} holds {value!r:.60}, expected keys with values")
    for key in value:
        if key not in known:
            raise ValueError(
                f"{where}: unknown key {files.quoted(f'{name}.{key}'.lstrip('.'))}; known: {', '.join(known)}"
            )
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{where}: found {value!r:.60}, expected a list with something in it")
    return value


def _integers(value: Any, where: str) -> tuple[int, ...]:
    found = _list(value, where)
    if not all(isinstance(item, int) and item >= 0 for item in found) or len(set(found)) < len(found):
        raise ValueError(f"{where}: found {value!r:.60}, expected distinct whole numbers")
    return tuple(found)


def _one_of(value: Any, known: Sequence[str], where: str) -> str:
    if value not in known:
        raise ValueError(f"{where}: found {value!r:.60}, expected {' or '.join(known)}")
    return str(value)


def _run(spec: Any, where: str, run: str) -> dict[str, Any]:
    """The overrides of a run with dotted keys: {"student": {"loss": …}} becomes {"student.loss": …}."""
    if "/" in run:
        raise ValueError(f"{where}: found {run!r}, expected a name without /; `folder` says where runs lie")
    role_of(run)
    if not isinstance(spec or {}, dict):
        raise ValueError(f"{where}: found {spec!r:.60}, expected keys of the configuration")
    flat = dict(_flatten(spec or {}))
    for key in _OURS:
        if key in flat:
            raise ValueError(f"{where}: {key} cannot be set for one run; use splits, seeds or the base")
    return flat


def _flatten(spec: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in spec.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _row(name: str, spec: Any, seeds: tuple[int, ...], baseline: str | None, where: str) -> Row:
    values = _mapping(spec, where, f"rows.{name}", _ROW_KEYS)
    place = f"{where}: rows.{name}"
    terms = tuple(_term(str(text), place) for text in _list(values.get("fuse"), f"{place}.fuse"))
    paper = _mapping(values.get("paper", {}), where, f"rows.{name}.paper", ("top1", "top5"))
    own = _integers(values["seeds"], f"{place}.seeds") if "seeds" in values else seeds
    baseline = values.get("baseline", baseline)
    return Row(
        name,
        terms,
        own,
        None if baseline == name else baseline,
        {key: float(value) for key, value in paper.items()},
    )


def _term(text: str, where: str) -> Term:
    match = _TERM.fullmatch(text)
    try:
        if not match:
            raise ValueError(text)
        seed = match["seed"]
        return Term(match["run"], None if seed is None else int(seed), float(match["weight"] or 1))
    except ValueError as error:
        raise ValueError(f"{where}: found {text!r}, expected run, run@seed or run=weight") from error


def _check(experiment: Experiment, where: str) -> None:
    names = [row.name for row in experiment.rows]
    for row in experiment.rows:
        if row.baseline is not None and row.baseline not in names:
            raise ValueError(f"{where}: baseline {row.baseline!r} is none of the rows: {', '.join(names)}")
        for term in row.terms:
            if term.run not in experiment.runs:
                raise ValueError(f"{where}: rows.{row.name}: {term.run!r} is none of the runs")
    for run, spec in experiment.runs.items():
        for teacher in spec.get("student.teachers", ()):
            if teacher not in experiment.runs:
                raise ValueError(f"{where}: runs.{run}: teacher {teacher!r} is none of the runs")
