"""Looking at clips and at the pose estimator: previews and scores, wired from the stores."""

from typing import Any

from pipelines.config import Config
from stores import files
from stores.reader import StoreReader
from stores.store import Store
from transforms.options import PoseOptions


def preview_clip(clip_id: str, config: Config, *, out: str | None, people: bool) -> list[str]:
    """Writes rgb | pose | flow of one clip and returns the paths; streams that are not computed are left out.

    Raises:
        ValueError: the frames store is not there or does not hold the clip.
    """
    from transforms.flow import bound_for, decode, dequantise
    from transforms.images import decode_rgb
    from transforms.preview import preview

    frames = StoreReader(config.workspace, "frames")
    rgb = [decode_rgb(frame.image) for frame in frames.records(clip_id)]
    pose, flow, found = (
        _reader(config, n, clip_id) for n in (f"render/{config.render.variant}", "flow", "pose")
    )
    entry = frames.clips[clip_id]
    bound_px = bound_for(config.flow, width_px=entry.width_px, height_px=entry.height_px)
    streams: dict[str, Any] = {
        "rgb_THWC": rgb,
        "pose_THWC": [decode_rgb(frame.image) for frame in pose.records(clip_id)] if pose else None,
        "flow_THW2": [dequantise(decode(p.x, p.y), bound_px) for p in flow.records(clip_id)]
        if flow
        else None,
        "people": list(found.records(clip_id)) if found and people else None,
    }
    stem = clip_id.rsplit("/", 1)[-1].replace("..", "_")
    paths = [out] if out else [f"{stem}.mp4", f"{stem}.png"]
    for path in paths:
        preview(path, **streams, bound_px=bound_px, fps=float(frames.options["fps"]))
    return paths


def _reader(config: Config, name: str, clip_id: str) -> StoreReader | None:
    if Store(config.workspace, name).snapshot() is None:
        return None
    reader = StoreReader(config.workspace, name)
    return reader if clip_id in reader.clips else None


def score_pose(images: str, annotations: str, options: PoseOptions) -> dict[str, Any]:
    """People found, mean OKS and more, of the estimator that the options name.

    Raises:
        ValueError: no estimator to score, no such folder or file.
    """
    if options.backend == "file":
        raise ValueError("pose.backend: file has no estimator to score; name mediapipe or movenet")
    try:
        from transforms.pose_score import pose_score
    except ModuleNotFoundError as error:
        raise ValueError(f"pose-score needs {error.name}: pip install 'perfnet[score]'") from error
    from transforms.pose import make_estimator, model_file

    if not files.exists(annotations):
        raise ValueError(f"pose-score: {files.printable(annotations)} does not exist")
    estimator = make_estimator(options, model_file(options))
    return pose_score(images, annotations, estimator, options=options)
