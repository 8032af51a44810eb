"""The report: one HTML page about a workspace, whole in itself: styles, plots and animations are inside."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from models.options import RUNS
from models.predictions import Predictions
from pipelines import report_facts, report_figures, report_results
from pipelines.config import Config
from pipelines.report_clips import animations
from pipelines.report_gradcam import Sheet, sheets
from pipelines.units import duration, size
from stores import files
from stores.clips import ClipsTable, read_clips

CLIPS = 10
_TEMPLATE = Path(__file__).with_name("report.html")
# Sections in the order of the page; each is shown where there is something in it.
SECTIONS = {
    "accuracy": "Accuracy",
    "experiments": "Tables of the paper",
    "data": "Data set",
    "clips": "Clips",
    "stages": "Stages",
    "rejected": "Rejected clips",
    "curves": "Learning curves",
    "gains": "Gain over RGB",
    "confusion": "Confusion",
    "gradcam": "Where networks look",
    "configuration": "Configuration and versions",
}


def write_report(
    config: Config, output: str | None, configuration: str, *, gradcam: int = 0
) -> tuple[str, int]:
    """Writes the page; returns where it is and its size in bytes.

    Args:
        output: local path or gs:// address; None means `reports/report.html` of the workspace.
        configuration: as text for people.
        gradcam: clips in which the page shows where networks look; each runs every network once.

    Raises:
        ValueError: the workspace has no clips table, or `output` is a folder.
    """
    uri = output or files.join(config.workspace, "reports", "report.html")
    content = page(config, configuration, gradcam=gradcam).encode()
    try:
        files.put_bytes(uri, content)
    except IsADirectoryError as error:
        raise ValueError(
            f"--output: {files.printable(uri)} is a folder, expected the name of a file"
        ) from error
    return uri, len(content)


def page(config: Config, configuration: str, *, gradcam: int = 0) -> str:
    """The page as text. Names from outside are escaped by the template engine."""
    clips = read_clips(config.workspace)
    facts = _prepared(config, clips) | _learned(config, clips, gradcam) | {"configuration": configuration}
    sections = [(id, name) for id, name in SECTIONS.items() if facts.get(id)]
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters |= {
        "number": "{:,}".format,
        "percent": "{:.1%}".format,
        "bytes": size,
        "duration": duration,
    }
    template = environment.from_string(_TEMPLATE.read_text("utf-8"))
    return template.render(
        facts,
        sections=sections,
        headline=_headline(facts),
        css=Markup(_TEMPLATE.with_suffix(".css").read_text("utf-8")),
        title=_title(config.workspace),
        workspace=config.workspace,
        written=datetime.now(UTC).strftime("%-d %B %Y, %H:%M UTC"),
    )


def _title(workspace: str) -> str:
    """The workspace's own name, which is its parent's where it is only called workspace."""
    names = [name for name in workspace.split("/") if name]
    return names[-2] if names[-1] == "workspace" and len(names) > 1 else names[-1]


def _prepared(config: Config, clips: ClipsTable) -> dict[str, Any]:
    """What the stores tell."""
    stores = report_facts.store_facts(config)
    rejected = report_facts.rejected_clips(config, stores)
    return {
        "data": report_facts.data_set(clips, config.data.split),
        "clips": animations(config, clips, CLIPS),
        "stages": True,
        "stores": stores,
        "rejected": rejected if rejected.total else None,
        "versions": report_facts.versions(),
    }


def _learned(config: Config, clips: ClipsTable, gradcam: int) -> dict[str, Any]:
    """What the runs tell."""
    evaluated = report_facts.read_evaluated(config.workspace)
    groups = dict(zip(clips.clip_ids, clips.groups, strict=True)) if any(clips.groups) else None
    accuracies = report_results.accuracies(evaluated, groups)
    gains = report_results.gains_over_rgb(evaluated)
    return {
        "accuracy": bool(accuracies),
        "accuracies": accuracies,
        "outdated": report_facts.outdated(config.workspace, list(evaluated)),
        "experiments": report_facts.read_experiments(config.workspace),
        "split": config.evaluate.on,
        "evaluated_clips": max((len(p.clip_ids) for p in evaluated.values()), default=0),
        "curves": _curves(config.workspace),
        "gains": list(gains),
        "gain_rows": report_results.gain_rows(gains),
        "gain_plot": _gain_plot(gains),
        "confusion": bool(evaluated),
        "confusions": report_results.confusions(evaluated),
        "gradcam": _gradcam(config, evaluated, gradcam) if gradcam else [],
        "guesses": report_results.guesses(evaluated.get("student")),
    }


def _curves(workspace: str) -> list[Any]:
    runs = {run: report_facts.read_curves(workspace, run) for run in RUNS}
    runs = {run: found for run, found in runs.items() if any(len(curve) > 1 for curve in found.values())}
    if not runs:
        return []
    names = ", ".join(runs)
    return [
        report_figures.curves(
            runs, metric=metric, name=f"curve-{metric}", title=f"{metric} of {names} over the training steps"
        )
        for metric in ("loss", "accuracy")
    ]


def _gradcam(config: Config, evaluated: Mapping[str, Predictions], number: int) -> Sequence[Sheet] | str:
    """The sheets, or why there are none: stores that have changed since are no reason to write no page."""
    try:
        return sheets(config, evaluated, number)
    except ValueError as error:
        return str(error)


def _gain_plot(gains: Mapping[str, Sequence[Any]]) -> Any:
    if not gains:
        return ""
    title = f"Gain of {', '.join(gains)} over rgb by class; the table below has the numbers"
    return report_figures.gains(gains, title=title, name="gain")


def _headline(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The few numbers at the top of the page."""
    frames = next((s.snapshot.totals["frames"] for s in facts["stores"] if s.snapshot), 0)
    found = [("clips", f"{facts['data'].clips:,}"), ("classes", f"{len(facts['data'].classes):,}")]
    found += [("frames", f"{frames:,}")] if frames else []
    found += [("rejected", f"{facts['rejected'].total:,}")] if facts["rejected"] else []
    return found + [(f"{row.run} top-1", f"{row.metrics['top1']:.1%}") for row in facts["accuracies"]]
