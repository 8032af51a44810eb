"""The table of an experiment: accuracies of its rows from the predictions that are there, beside the paper's."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from models.comparison import compare, interval, score
from models.predictions import Predictions, fused, measure, pooled, read_predictions
from models.runs import RunFolder
from pipelines.experiment import Experiment, Row
from stores import files
from stores.clips import read_clips

Parts = list[list[Predictions]]
"""For each seed the predictions over which its accuracy is averaged: one of all folds, or one a split."""


def results(
    experiment: Experiment, rows: Sequence[Row], *, failed: Mapping[str, str]
) -> list[dict[str, Any]]:
    """One record a row, in the order of the recipe; a row whose runs are missing names the first of them.

    Args:
        failed: runs whose predictions, if there are any, are not those of the recipe.
    """
    groups = _groups(experiment)
    found = {row.name: _parts(experiment, row, failed) for row in rows}
    records = []
    for row in rows:
        record: dict[str, Any] = {"row": row.name, "paper": dict(row.paper)}
        parts = found[row.name]
        if isinstance(parts, str):
            record["missing"] = parts
        else:
            record |= measure_row(parts, groups=groups)
            baseline = found.get(row.baseline or "")
            if isinstance(baseline, list):
                against = difference(baseline, parts, groups=groups)
                record["against"] = {"baseline": row.baseline, **against}
        records.append(record)
    return records


def _groups(experiment: Experiment) -> Mapping[str, str] | None:
    if experiment.draw == "clip":
        return None
    table = read_clips(experiment.base.workspace)
    return dict(zip(table.clip_ids, table.groups, strict=True))


def _parts(experiment: Experiment, row: Row, failed: Mapping[str, str]) -> Parts | str:
    """The parts of a row, or the run that is missing."""
    found: Parts = []
    for seed in row.seeds:
        folds = []
        for split in experiment.splits:
            names = experiment.names_of(row, seed, split)
            missing = [n for n in names if n in failed or not _evaluated(experiment.base.workspace, n)]
            if missing:
                return missing[0]
            read = [read_predictions(name, workspace=experiment.base.workspace) for name in names]
            folds.append(fused([(p, term.weight) for p, term in zip(read, row.terms, strict=True)]))
        found.append([pooled(folds)] if experiment.combine == "pool" else folds)
    return found


def _evaluated(workspace: str, run: str) -> bool:
    return files.exists(RunFolder(workspace, run).uri("predictions.parquet"))


def measure_row(seeds: Parts, *, groups: Mapping[str, str] | None) -> dict[str, Any]:
    """Accuracies averaged over the parts of each seed, and these over the seeds; with the interval of top-1."""
    by_seed = [[measure(part) for part in parts] for parts in seeds]

    def mean(name: str) -> list[float]:
        return [sum(m[name] for m in metrics) / len(metrics) for metrics in by_seed]  # type: ignore[literal-required]

    low, high = interval(score([part for parts in seeds for part in parts]), groups=groups)
    averages = {name: sum(mean(name)) / len(by_seed) for name in ("top1", "top5", "mean_class")}
    clips = len({clip_id for part in seeds[0] for clip_id in part.clip_ids})
    return averages | {"clips": clips, "top1_by_seed": mean("top1"), "interval": [low, high]}


def difference(
    first: Parts,
    second: Parts,
    *,
    groups: Mapping[str, str] | None,
) -> dict[str, float]:
    """The second row's top-1 minus the first's on the same clips, with its paired interval."""
    scores = [score([part for parts in seeds for part in parts]) for seeds in (first, second)]
    found = compare(scores[0], scores[1], groups=groups)
    return {"difference": found.difference, "low": found.low, "high": found.high, "p_value": found.p_value}


def write_results(
    experiment: Experiment, records: Sequence[Mapping[str, Any]], *, failed: Mapping[str, str]
) -> list[str]:
    """Writes results.json and results.csv under `<workspace>/experiments/<name>/`; returns their addresses.

    Rows of the recipe that were left out this time stay there as they were.

    Args:
        failed: run → why it could not be trained or evaluated.
    """
    folder = files.join(experiment.base.workspace, "experiments", experiment.name)
    records = _with_earlier(experiment, records, files.join(folder, "results.json"))
    document = {"experiment": experiment.name, "rows": records, "failed": dict(failed)}
    content = json.dumps(document, indent=1, ensure_ascii=False)
    files.put_bytes(files.join(folder, "results.json"), content.encode())
    text = io.StringIO()
    writer = csv.DictWriter(text, _CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow(_csv_row(record))
    files.put_bytes(files.join(folder, "results.csv"), text.getvalue().encode())
    return [files.join(folder, name) for name in ("results.json", "results.csv")]


def _with_earlier(
    experiment: Experiment, records: Sequence[Mapping[str, Any]], uri: str
) -> list[Mapping[str, Any]]:
    """The records and, for rows that are none of them, those of the file that is there; in the recipe's order."""
    try:
        earlier = json.loads(files.read_bytes(uri))["rows"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        earlier = []
    found = {record["row"]: record for record in [*earlier, *records]}
    return [found[row.name] for row in experiment.rows if row.name in found]


_CSV_COLUMNS = (
    *("row", "clips", "seeds", "top1", "low", "high", "top5", "mean_class"),
    *("difference", "difference_low", "difference_high", "p_value"),
    *("paper_top1", "paper_top5", "missing"),
)


def _csv_row(record: Mapping[str, Any]) -> dict[str, Any]:
    against, paper = record.get("against", {}), record["paper"]
    found = {name: record.get(name, "") for name in ("row", "clips", "top1", "top5", "mean_class", "missing")}
    low, high = record.get("interval", ("", ""))
    return found | {
        "seeds": len(record.get("top1_by_seed", ())) or "",
        "low": low,
        "high": high,
        "difference": against.get("difference", ""),
        "difference_low": against.get("low", ""),
        "difference_high": against.get("high", ""),
        "p_value": against.get("p_value", ""),
        "paper_top1": paper.get("top1", ""),
        "paper_top5": paper.get("top5", ""),
    }


def table_lines(experiment: Experiment, records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table for people: accuracies in percent, beside the paper's."""
    width = max(len(record["row"]) for record in records)
    baselines = {row.baseline for row in experiment.rows} - {None}
    against = (
        f"against {baselines.pop()}" if len(baselines) == 1 else "against its baseline" if baselines else ""
    )
    lines = [
        f"{'':{width}}  top-1  95 % interval   top-5  class  {against:<28}  paper top-1  top-5".rstrip(),
        *(_line(record, width) for record in records),
    ]
    return [line.rstrip() for line in lines]


def _line(record: Mapping[str, Any], width: int) -> str:
    paper = "".join(f"{record['paper'].get(k, ''):>{w}}" for k, w in (("top1", 13), ("top5", 7)))
    name = f"{files.printable(record['row']):{width}}"
    if "missing" in record:
        return f"{name}  {'missing: ' + record['missing']:<64}  {paper}"
    low, high = (100 * edge for edge in record["interval"])
    against = record.get("against")
    compared = ""
    if against:
        d, a, b = (100 * against[k] for k in ("difference", "low", "high"))
        compared = f"{d:+.1f} [{a:+.1f}, {b:+.1f}], p {against['p_value']:.2g}"
    seeds = record["top1_by_seed"]
    spread = f"  seeds {' '.join(f'{100 * s:.1f}' for s in seeds)}" if len(seeds) > 1 else ""
    return (
        f"{name}  {100 * record['top1']:5.1f}  [{low:5.1f}, {high:5.1f}]  {100 * record['top5']:5.1f}  "
        f"{100 * record['mean_class']:5.1f}  {compared:<28}  {paper}{spread}"
    )
