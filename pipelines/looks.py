"""Looking at clips and at the pose estimator: previews and scores, wired from the stores."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.config import Config
from stores import files
from stores.reader import StoreReader
from stores.records import People
from stores.store import Store
from stores.summaries import ClipEntry
from transforms.options import FlowOptions, PoseOptions


class Streams(NamedTuple):
    """One clip as the stores have it; a stream that is not computed is None.

    Attributes:
        rgb_THWC, pose_THWC: decoded pictures; pose is the rendered one.
        flow_THW2: px a frame, dequantised; one less than there are frames.
        people: the pose store's records.
        bound_px: largest flow that the store can hold.
        fps: of the frames.
    """

    rgb_THWC: list[NDArray[np.uint8]]
    pose_THWC: list[NDArray[np.uint8]] | None
    flow_THW2: list[NDArray[np.float32]] | None
    people: list[People] | None
    bound_px: float
    fps: float


def read_streams(clip_id: str, config: Config) -> Streams:
    """Reads one clip from all stores.

    Raises:
        ValueError: the frames store is not there or does not hold the clip.
    """
    from transforms.flow import decode, dequantise
    from transforms.images import decode_rgb

    frames = StoreReader(config.workspace, "frames")
    rgb = [decode_rgb(frame.image) for frame in frames.records(clip_id)]
    pose, flow, found = (
        _reader(config, n, clip_id) for n in (f"render/{config.render.variant}", "flow", "pose")
    )
    entry = frames.clips[clip_id]
    bound_px = bound_of(flow, entry) if flow else 0.0
    return Streams(
        rgb_THWC=rgb,
        pose_THWC=[decode_rgb(frame.image) for frame in pose.records(clip_id)] if pose else None,
        flow_THW2=[dequantise(decode(p.x, p.y), bound_px) for p in flow.records(clip_id)] if flow else None,
        people=list(found.records(clip_id)) if found else None,
        bound_px=bound_px,
        fps=float(frames.options["fps"]),
    )


def bound_of(flow: StoreReader, entry: ClipEntry) -> float:
    """The bound that a flow store was made with, in px, whatever the configuration says by now."""
    from transforms.flow import bound_for

    given = flow.options.get("bound_px")  # in words, where it follows the size of the clip
    made_with = FlowOptions(bound_px=float(given)) if isinstance(given, int | float) else FlowOptions()
    return bound_for(made_with, width_px=entry.width_px, height_px=entry.height_px)


def preview_clip(clip_id: str, config: Config, *, out: str | None, people: bool) -> list[str]:
    """Writes rgb | pose | flow of one clip and returns the paths; streams that are not computed are left out.

    Raises:
        ValueError: the frames store is not there or does not hold the clip.
    """
    from transforms.preview import preview

    streams = read_streams(clip_id, config)
    stem = clip_id.rsplit("/", 1)[-1].replace("..", "_")
    paths = [out] if out else [f"{stem}.mp4", f"{stem}.png"]
    for path in paths:
        preview(path, **(streams if people else streams._replace(people=None))._asdict())
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
        raise ValueError(f"pose-score needs {error.name}: pip install -e '.[score]'") from error
    from transforms.pose import make_estimator, model_file

    if not files.exists(annotations):
        raise ValueError(f"pose-score: {files.printable(annotations)} does not exist")
    estimator = make_estimator(options, model_file(options))
    return pose_score(images, annotations, estimator, options=options)
