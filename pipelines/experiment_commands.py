"""The command that runs a table of the paper."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.command_setup import check_libraries
from pipelines.progress import Screen


def experiment(
    recipe: str,
    *,
    rows: list[str] | None = None,
    dry_run: bool = False,
    retrain: bool = False,
    quiet: bool = False,
    overrides: Mapping[str, Any],
    beam_args: Sequence[str],
) -> int:
    """Run a table of the paper: stores, trainings and evaluations that are missing, then the rows beside the paper's.

    Rerun it at any time: what is done is not done again. The table is also written to
    <workspace>/experiments/<recipe>/results.json and results.csv.
    Example: perfnet experiment recipes/table4.yaml --rows RGB "Flow+Pose (SL)"

    Args:
        recipe: YAML file in recipes/.
        rows: only these, with the baseline; all where none is named.
        dry_run: print what would be computed, trained and evaluated, and stop.
        retrain: also train runs again that were trained with another configuration.
        quiet: print the table only.
    """
    from pipelines.experiment import choose_rows, load_experiment
    from pipelines.experiment_run import ExperimentRun
    from pipelines.experiment_table import results, table_lines, write_results

    loaded = load_experiment(recipe, overrides)
    chosen = choose_rows(loaded, rows)
    trainings = loaded.trainings(chosen)
    check_libraries()
    work = ExperimentRun(loaded, Screen(quiet=quiet), retrain=retrain, beam_args=beam_args)
    work.show_plan(trainings)
    if dry_run:
        return 0
    work.check(trainings)
    work.prepare(trainings)
    work.train(trainings)
    records = results(loaded, chosen, failed=work.failed)
    written = write_results(loaded, records, failed=work.failed)
    print(*table_lines(loaded, records), *written, sep="\n")
    work.raise_failed(len(trainings))
    return 0
