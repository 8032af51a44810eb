"""The commands that train, judge and compare: one function each. Heavy libraries are imported where they are used."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.command_setup import check_libraries, config_of
from pipelines.exit_codes import EXIT_NOTHING
from pipelines.progress import Screen
from stores import files


def train(
    run: str,
    *,
    config: str | None = None,
    skip_code: bool = False,
    quiet: bool = False,
    overrides: Mapping[str, Any],
) -> int:
    """Train one network over the committed stores; goes on from its last checkpoint.

    Example: perfnet train student --config perfnet.yaml --student.weight 0.1

    Args:
        run: rgb, pose, flow or student; also with an ending, rgb-seed1, which keeps it apart.
        config: YAML file.
        skip_code: exit with 99 when there was nothing to do.
        quiet: print the result only.
    """
    from models.options import role_of
    from models.runs import stale_reason

    role_of(run)
    loaded = config_of(config, overrides)
    speaks = os.environ.get("RANK", "0") == "0"  # torchrun starts this command once for each device
    options, screen = loaded.model_options(), Screen(quiet=quiet or not speaks)
    reason = stale_reason(run, workspace=loaded.workspace, options=options)
    if not reason:
        screen.line(f"{run}: fresh, nothing to do")
        return EXIT_NOTHING if skip_code else 0
    check_libraries()
    from models.train import train as train_run

    screen.line(f"{run}: {reason}")
    folder = train_run(run, workspace=loaded.workspace, options=options, progress=screen.say)
    screen.close()
    if speaks:
        print(f"{run}: {folder}")
    return 0


def evaluate(
    runs: list[str],
    *,
    config: str | None = None,
    skip_code: bool = False,
    quiet: bool = False,
    overrides: Mapping[str, Any],
) -> int:
    """Judge trained networks by one central crop of each test clip.

    Example: perfnet evaluate rgb student --config perfnet.yaml

    Args:
        runs: names of runs; rgb pose flow student where none is named.
        config: YAML file.
        skip_code: exit with 99 when there was nothing to do.
        quiet: print the result only.
    """
    from models.options import RUNS, role_of
    from models.runs import evaluation_stale_reason

    for name in runs:
        role_of(name)
    loaded = config_of(config, overrides)
    check_libraries()
    from pipelines.results import show_runs

    chosen, screen = tuple(runs) or RUNS, Screen(quiet=quiet)
    stale = [
        name
        for name in chosen
        if evaluation_stale_reason(name, workspace=loaded.workspace, options=loaded.model_options())
    ]
    for name in stale:
        from models.evaluation import evaluate as evaluate_run

        evaluate_run(name, workspace=loaded.workspace, options=loaded.model_options(), progress=screen.say)
    screen.close()
    show_runs(loaded.workspace, chosen)
    return EXIT_NOTHING if skip_code and not stale else 0


def fuse(
    runs: list[str],
    *,
    config: str | None = None,
    overrides: Mapping[str, Any],
) -> int:
    """Add the logits of evaluated runs and judge the sum (late fusion).

    Example: perfnet fuse rgb=1 flow=0.5 --config perfnet.yaml

    Args:
        runs: names of runs, each with its weight after = where it is not 1; rgb pose flow where none is named.
        config: YAML file.
    """
    loaded = config_of(config, overrides)
    from models.predictions import fuse as fuse_runs
    from models.predictions import measure
    from pipelines.results import show_header, show_metrics

    weights = _weights(runs or ["rgb", "pose", "flow"])
    show_header()
    show_metrics(" + ".join(weights), measure(fuse_runs(weights, workspace=loaded.workspace)))
    return 0


def _weights(terms: Sequence[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for term in terms:
        run, equals, text = term.partition("=")
        try:
            weight = float(text) if equals else 1.0
        except ValueError as error:
            raise ValueError(
                f"fuse: found {files.quoted(term)}, expected a run and its weight: rgb=0.5"
            ) from error
        if not math.isfinite(weight):
            raise ValueError(f"fuse: found {files.quoted(term)}, expected a finite weight")
        if run in found:
            raise ValueError(
                f"fuse: run {files.quoted(run)} is named twice; give it a larger weight: {run}=2"
            )
        found[run] = weight
    return found


def compare(
    first: str,
    second: str,
    *,
    config: str | None = None,
    groups: bool = False,
    classes: bool = False,
    overrides: Mapping[str, Any],
) -> int:
    """Say how much better the second of two evaluated runs is than the first, and how sure that is.

    Prints the difference of their top-1 on the clips that both predicted with its paired bootstrap interval (95 %),
    and McNemar's exact test on the clips that only one of them gets right.
    Example: perfnet compare rgb student --classes --config perfnet.yaml

    Args:
        first: name of a run.
        second: name of a run.
        config: YAML file.
        groups: draw whole groups of the clips table instead of clips: those of one sequence are alike.
        classes: also list the gain of each class, the largest first.
    """
    loaded = config_of(config, overrides)
    from models.predictions import read_predictions
    from pipelines.results import show_class_gains, show_comparison
    from stores.clips import read_clips

    found = [read_predictions(run, workspace=loaded.workspace) for run in (first, second)]
    table = read_clips(loaded.workspace) if groups else None
    by_clip = dict(zip(table.clip_ids, table.groups, strict=True)) if table else None
    show_comparison((first, second), (found[0], found[1]), groups=by_clip)
    if classes:
        show_class_gains(found[0], found[1])
    return 0
