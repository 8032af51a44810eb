"""The commands of `perfnet` and the functions of those that prepare data. Heavy libraries are imported where used."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.clips_commands import clips_check, clips_hmdb51, clips_kinetics, clips_ucf101
from pipelines.command_setup import check_libraries, config_of, in_flags, record_config
from pipelines.config import ClipsOptions
from pipelines.config_commands import doctor, init, show_config
from pipelines.exit_codes import EXIT_NOTHING
from pipelines.experiment_commands import experiment
from pipelines.export_commands import export_coco, export_mediasequence
from pipelines.look_commands import look
from pipelines.model_commands import compare, evaluate, fuse, train
from pipelines.progress import Screen
from pipelines.report_commands import report
from pipelines.upkeep_commands import gc, ready, verify
from pipelines.use_commands import export_model, fetch_model, gradcam, pose_score, predict, preview
from stores import files


def run(
    stages: list[str],
    *,
    config: str | None = None,
    max_rejected: float | None = None,
    workers: int | None = None,
    retry_rejected: bool = False,
    force: bool = False,
    dry_run: bool = False,
    skip_code: bool = False,
    quiet: bool = False,
    verbose: bool = False,
    overrides: Mapping[str, Any],
    beam_args: Sequence[str],
) -> int:
    """Bring everything that is stale up to date: stores, training, evaluation.

    Example: perfnet run --config recipes/ut_interaction.yaml --clips.folder videos

    Args:
        stages: only these and what they need: frames pose render flow train-rgb train-pose train-flow
            train-student evaluate.
        config: YAML file.
        max_rejected: largest share of rejected clips with which a store is committed (run.max_rejected).
        workers: local worker processes, 0 = one a core (run.workers).
        retry_rejected: try clips again that were rejected for their data.
        force: compute the stores of the named stages again, fresh or not.
        dry_run: print the plan and stop.
        skip_code: exit with 99 when there was nothing to do.
        quiet: print the result only.
        verbose: show what Beam and its workers log, otherwise in last_job.log of each store.
    """
    from pipelines.chain import Chain, forced, selection
    from pipelines.costs import show_costs

    flags = {
        "max_rejected": max_rejected,
        "workers": workers,
        "retry_rejected": retry_rejected,
        "force": force,
    }
    loaded = config_of(config, overrides, **flags)
    items = selection(stages, loaded)
    check_libraries()  # planning makes the stages, which load OpenCV
    chain = Chain(
        loaded, Screen(quiet=quiet, verbose=verbose), beam_args, forced(stages, loaded), look_only=dry_run
    )
    reasons = chain.plan(items)
    chain.show_plan(reasons)
    if dry_run:
        show_costs(chain, reasons, chain.screen.line)
        return EXIT_NOTHING if skip_code and not any(reasons.values()) else 0
    record_config(loaded)
    worked = chain.run(items)
    if "evaluate" in items:
        from pipelines.results import show_results

        show_results(loaded.workspace)
    return EXIT_NOTHING if skip_code and not worked else 0


def prepare(
    stage: str,
    *,
    config: str | None = None,
    max_rejected: float | None = None,
    workers: int | None = None,
    retry_rejected: bool = False,
    force: bool = False,
    dry_run: bool = False,
    commit: bool = False,
    skip_code: bool = False,
    quiet: bool = False,
    verbose: bool = False,
    overrides: Mapping[str, Any],
    beam_args: Sequence[str],
) -> int:
    """Bring one store up to date from the stores that it reads, which must be there.

    Example: perfnet prepare flow --config perfnet.yaml -- --direct_num_workers=8

    Args:
        stage: frames, pose, render or flow.
        config: YAML file.
        max_rejected: largest share of rejected clips with which the store is committed (run.max_rejected).
        workers: local worker processes, 0 = one a core (run.workers).
        retry_rejected: try clips again that were rejected for their data.
        force: compute all of it again, fresh or not.
        dry_run: print the plan and stop; fails where the store is up to date with too many rejected clips.
        commit: compute nothing; commit what a job elsewhere has computed since its launcher left.
        skip_code: exit with 99 when there was nothing to do.
        quiet: print the result only.
        verbose: show what Beam and its workers log, otherwise in last_job.log of each store.
    """
    from pipelines.chain import Chain, forced
    from pipelines.costs import show_costs
    from pipelines.stages import STAGES

    if stage not in STAGES:
        raise ValueError(f"unknown stage {files.quoted(stage)}; known: {', '.join(STAGES)}")
    flags = {
        "max_rejected": max_rejected,
        "workers": workers,
        "retry_rejected": retry_rejected,
        "force": force,
    }
    loaded = config_of(config, overrides, **flags)
    check_libraries()
    chain = Chain(
        loaded, Screen(quiet=quiet, verbose=verbose), beam_args, forced([stage], loaded), look_only=dry_run
    )
    reason = chain.reason(stage)
    chain.show_plan({stage: reason})
    if dry_run:
        chain.check_finished(stage)
        show_costs(chain, {stage: reason}, chain.screen.line)
        return EXIT_NOTHING if skip_code and not reason else 0
    record_config(loaded)
    worked = chain.commit(stage) if commit else chain.run([stage])
    return EXIT_NOTHING if skip_code and not worked else 0


def status(
    *,
    config: str | None = None,
    rejected: bool = False,
    output: str | None = None,
    json: bool = False,
    overrides: Mapping[str, Any],
) -> int:
    """Say what is fresh, what is stale and why, what was rejected, and how large it all is.

    Example: perfnet status --config perfnet.yaml --rejected

    Args:
        config: YAML file.
        rejected: list every rejected clip instead: store, clip, cause, reason, detail.
        output: write that list into this Parquet file.
        json: print the table as JSON, for machines.
    """
    from pipelines.chain import Chain
    from pipelines.results import show_rejected
    from pipelines.status import show_status, status_json, status_of

    check_libraries()
    chain = Chain(config_of(config, overrides), Screen(quiet=True), look_only=True)
    if output and not rejected:
        raise ValueError(
            f"--output {files.printable(output)}: writes the list of rejected clips; add --rejected"
        )
    if rejected and json:
        raise ValueError("--json: prints the table of stores; for rejected clips give --output FILE.parquet")
    if rejected:
        show_rejected(chain, output)
    elif json:
        print(status_json(chain.config.workspace, status_of(chain)))
    else:
        show_status(status_of(chain))
    return 0


def demo(*, folder: str = "demo", quiet: bool = False, overrides: Mapping[str, Any]) -> int:
    """Make sample videos and run the whole chain on them: stores, three teachers, the distilled student.

    Example: perfnet demo --folder /tmp/demo

    Args:
        folder: where videos and workspace go.
        quiet: print the result only.
    """
    check_libraries()
    from pipelines.demo import run_demo

    return run_demo(folder, overrides, Screen(quiet=quiet))


def clips_folder(
    folder: str,
    *,
    workspace: str = "workspace",
    group: str | None = None,
    test: str | None = None,
    test_share: float = 0.3,
    val_share: float = 0.0,
    folds: int = 0,
) -> int:
    """Write clips.parquet from a folder of videos with one sub-folder a class.

    Example: perfnet clips folder videos --workspace work --group '(set._seq..)' --test_share 0.4

    Args:
        folder: holds one folder of videos for each class.
        workspace: where clips.parquet goes.
        group: regular expression; its first group names clips that must stay on one side of a split.
        test: regular expression; groups (or clips, where there are no groups) that match it are the test split.
        test_share: share of the clips that become the test split, whole groups at a time.
        val_share: the same for the validation split.
        folds: also write the columns split_1 … split_k for cross-validation: in each another k-th of the groups is
            test.
    """
    from pipelines.importers import clips_from_folder

    flags = {f"clips.{name}": f"--{name}" for name in ("test_share", "val_share", "folds")}
    with in_flags({"clips.group_pattern": "--group", "clips.test_pattern": "--test", **flags}):
        options = ClipsOptions(folder, group, test, test_share, val_share, folds)
        clips = clips_from_folder(folder, options)
    return _write_clips(workspace, clips)


def clips_csv(path: str, *, workspace: str = "workspace", videos: str | None = None) -> int:
    """Write clips.parquet from a CSV file with the columns uri and label.

    Further columns: clip_id, start_s, stop_s, group, split and split_1, split_2, ... (train, val, test or nothing).
    Example: perfnet clips csv labels.csv --workspace work --videos /data/videos

    Args:
        path: the CSV file, with a header, in UTF-8.
        workspace: where clips.parquet goes.
        videos: folder that relative uris start from; none means the folder of the CSV file.
    """
    from pipelines.importers import clips_from_csv

    return _write_clips(workspace, clips_from_csv(path, videos=videos))


def _write_clips(workspace: str, clips: Any) -> int:
    from pipelines.importers import describe
    from stores.clips import write_clips

    write_clips(workspace, clips)
    print(*describe(clips), files.join(workspace, "clips.parquet"), sep="\n")
    return 0


COMMANDS: dict[str, Any] = {
    "demo": demo,
    "init": init,
    "config": show_config,
    "doctor": doctor,
    "clips": {
        "folder": clips_folder,
        "csv": clips_csv,
        "kinetics": clips_kinetics,
        "ucf101": clips_ucf101,
        "hmdb51": clips_hmdb51,
        "check": clips_check,
    },
    "run": run,
    "prepare": prepare,
    "train": train,
    "evaluate": evaluate,
    "fuse": fuse,
    "compare": compare,
    "experiment": experiment,
    "predict": predict,
    "status": status,
    "ready": ready,
    "report": report,
    "verify": verify,
    "gc": gc,
    "preview": preview,
    "look": look,
    "gradcam": gradcam,
    "export": {"mediasequence": export_mediasequence, "coco": export_coco},
    "pose-score": pose_score,
    "models": {"fetch": fetch_model, "export": export_model},
}
