"""Tables for people: accuracies, rejected clips."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.chain import Chain
from pipelines.stages import STAGES
from stores import files
from stores.commit import rejected_in

if TYPE_CHECKING:
    from models.predictions import Predictions

FUSED = ("rgb", "pose", "flow")


def show_metrics(name: str, metrics: Mapping[str, Any]) -> None:
    """One row: name first, accuracies as 0.00 to 1.00."""
    print(
        f"{name:<10} {metrics['top1']:.2f}   {metrics['top5']:.2f}   {metrics['mean_class']:.2f}        "
        f"{metrics['clips']:>5}   {metrics['chance']:.2f}   {metrics['p_value']:.1e}"
    )


def show_header() -> None:
    print(f"{'stream':<10} top-1  top-5  mean class  clips  chance  p (better than chance)")


def show_runs(workspace: str, names: Sequence[str]) -> None:
    """The accuracy table of evaluated runs."""
    show_header()
    for name in names:
        content = files.read_bytes(files.join(workspace, "runs", name, "metrics.json"))
        show_metrics(name, json.loads(content))


def show_results(workspace: str) -> None:
    """The table of five accuracies: three teachers, their late fusion, the student."""
    from models.predictions import fuse, measure

    show_runs(workspace, FUSED)
    show_metrics("fusion", measure(fuse(dict.fromkeys(FUSED, 1.0), workspace=workspace)))
    content = files.read_bytes(files.join(workspace, "runs", "student", "metrics.json"))
    show_metrics("student", json.loads(content))


def show_comparison(
    names: tuple[str, str],
    found: "tuple[Predictions, Predictions]",
    *,
    groups: Mapping[str, str] | None,
) -> None:
    """The difference of two runs, its interval, and the exact test."""
    from models.comparison import compare, mcnemar, score

    difference = compare(score([found[0]]), score([found[1]]), groups=groups)
    odd = mcnemar(*found)
    print(f"{names[0]:<24} top-1 {difference.first:.3f}")
    print(f"{names[1]:<24} top-1 {difference.second:.3f}")
    drawn = "groups" if groups else "clips"
    print(
        f"difference {difference.difference:+.3f}, 95 % interval [{difference.low:+.3f}, {difference.high:+.3f}] "
        f"(paired bootstrap over {drawn}, {difference.clips} clips, p {difference.p_value:.2g})"
    )
    print(
        f"only the first is right on {odd.only_first} clips, only the second on {odd.only_second} "
        f"(McNemar's exact test, p {odd.p_value:.2g})"
    )


def show_class_gains(first: "Predictions", second: "Predictions") -> None:
    """One row a class, the largest gain first."""
    from models.comparison import class_gains

    print(f"\n{'clips':>5}  first  second   gain  class")
    for row in class_gains(first, second):
        print(
            f"{row.clips:>5}  {row.first:.3f}   {row.second:.3f}  {row.gain:+.3f}  {files.printable(row.label)}"
        )


_REJECTED = ("store", "clip_id", "cause", "reason", "detail")


def rejected_table(chain: Chain) -> pa.Table:
    """One row a rejected clip, also of stores that were refused for them: store, clip_id, cause, reason, detail."""
    rows = []
    for stage in STAGES:
        planned = chain.planned(stage)
        if planned is None:
            continue
        for rejection in rejected_in(planned.store, planned.standing.values()):
            row = (rejection.clip_id, rejection.cause, rejection.reason, rejection.detail)
            rows.append(dict(zip(_REJECTED, (planned.store.name, *row), strict=True)))
    return pa.Table.from_pylist(rows, pa.schema([(name, pa.string()) for name in _REJECTED]))


def show_rejected(chain: Chain, output: str | None) -> None:
    """Prints the rejected clips, one line each with the last line of its detail; as Parquet where a file is named."""
    table = rejected_table(chain)
    if output is not None:
        with files.staged(output) as path:
            pq.write_table(table, path)
        print(f"{table.num_rows} rejected clips in {files.printable(output)}")
        return
    for row in table.to_pylist():
        detail = row["detail"].strip().splitlines()[-1:]
        print("\t".join(files.printable(text) for text in (*list(row.values())[:-1], *(detail or [""]))))
