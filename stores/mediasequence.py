"""Records of each store as features of a SequenceExample, with the keys of MediaPipe's MediaSequence, and back.

Feature lists have one time step a record. What MediaSequence has no exact key for is added under a prefix of our own:
its boxes and points are shares of the picture, from which pixels cannot be had back bit for bit.

Shape legend: P people, K = 17 keypoints.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from stores.records import KEYPOINT_NAMES, NUM_KEYPOINTS, Y_IN_X, FlowPair, Frame, People, Record
from stores.sequence_example import MAX_BYTES, SequenceExample

FLOW_PREFIX = "FORWARD_FLOW/"
_FORMATS = {b"\x89PNG": "PNG", b"\xff\xd8": "JPEG"}
_SPARE_BYTES = 1 << 20  # keys and lengths, beside the images


@dataclass
class _Size:
    """Refuses a clip that one message cannot hold, before it is assembled."""

    clip_id: str
    used_bytes: int = _SPARE_BYTES

    def add(self, *images: bytes) -> None:
        self.used_bytes += sum(map(len, images))
        if self.used_bytes > MAX_BYTES:
            raise ValueError(
                f"clip {self.clip_id!r} needs more than 2 GiB and a TFRecord clip is one message; "
                "use store.format parquet, or lower frames.max_frames"
            )


def put_clip(example: SequenceExample, clip_id: str) -> None:
    example.context_bytes("example/id", clip_id)
    example.context_bytes("clip/media_id", clip_id)


def put_picture_size(example: SequenceExample, width_px: int, height_px: int, prefix: str = "") -> None:
    example.context_ints(f"{prefix}image/width", width_px)
    example.context_ints(f"{prefix}image/height", height_px)


def put_frames(
    example: SequenceExample, clip_id: str, records: Iterable[Frame], *, width_px: int, height_px: int
) -> list[int]:
    """One JPEG a time step; returns the times in µs."""
    size, times_us = _Size(clip_id), []
    for record in records:
        size.add(record.image)
        example.step_bytes("image/encoded", record.image)
        example.step_ints("image/timestamp", record.time_us)
        times_us.append(record.time_us)
    example.context_bytes("image/format", "JPEG")
    example.context_bytes("image/colorspace", "RGB")
    example.context_ints("image/channels", 3)
    put_picture_size(example, width_px, height_px)
    put_rate(example, times_us)
    return times_us


def put_rate(example: SequenceExample, times_us: list[int], prefix: str = "") -> None:
    """Frames a second, where there are two to tell it by."""
    if len(times_us) > 1 and times_us[-1] > times_us[0]:
        rate = 1e6 * (len(times_us) - 1) / (times_us[-1] - times_us[0])
        example.context_floats(f"{prefix}image/frame_rate", round(rate, 3))


def put_flow(
    example: SequenceExample, clip_id: str, records: Iterable[FlowPair], *, width_px: int, height_px: int
) -> int:
    """Both planes a time step, as they are; one image where it holds both. Returns the number of pairs."""
    pairs, size = list(records), _Size(clip_id)
    in_one = all(pair.y == Y_IN_X for pair in pairs)
    for pair in pairs:
        size.add(pair.x, pair.y)
        if in_one:
            example.step_bytes(f"{FLOW_PREFIX}image/encoded", pair.x)
        else:
            example.step_bytes(f"{FLOW_PREFIX}image/multi_encoded", pair.x, pair.y)
    put_picture_size(example, width_px, height_px, FLOW_PREFIX)
    image_format = next(
        (name for mark, name in _FORMATS.items() if pairs and pairs[0].x.startswith(mark)), None
    )
    if image_format:
        example.context_bytes(f"{FLOW_PREFIX}image/format", image_format)
    example.context_ints(f"{FLOW_PREFIX}image/channels", 3 if in_one else 1)
    return len(pairs)


def put_people(
    example: SequenceExample, records: Iterable[People], *, width_px: int, height_px: int
) -> tuple[int, int]:
    """Boxes and points as shares of the picture, and the exact pixels; returns (frames, people)."""
    frames = people = 0
    for record in records:
        _put_regions(example, record, width_px, height_px)
        example.step_floats("POSE/feature/floats", record.keypoints_PK3.ravel().tolist())
        example.step_floats("POSE_BOX/feature/floats", record.boxes_P4.ravel().tolist())
        frames, people = frames + 1, people + len(record.scores_P)
    example.context_ints("POSE/feature/dimensions", NUM_KEYPOINTS, 3)
    example.context_ints("POSE_BOX/feature/dimensions", 4)
    example.context_bytes("region/parts", *KEYPOINT_NAMES)
    put_picture_size(example, width_px, height_px)
    return frames, people


def _put_regions(example: SequenceExample, record: People, width_px: int, height_px: int) -> None:
    """Shares are measured from the picture's edge, pixels from the centre of the first pixel."""
    size_px = np.array([width_px, height_px], np.float32)
    corners_P22 = (record.boxes_P4.reshape(-1, 2, 2) + np.float32(0.5)) / size_px
    points_PK2 = (record.keypoints_PK3[..., :2] + np.float32(0.5)) / size_px
    example.step_ints("region/is_annotated", 1)  # with no regions it says: looked, nobody there
    example.step_ints("region/num_regions", len(record.scores_P))
    example.step_floats("region/label/confidence", record.scores_P.tolist())
    for axis, name in enumerate("xy"):
        for corner, end in enumerate(("min", "max")):
            example.step_floats(f"region/bbox/{name}{end}", corners_P22[:, corner, axis].tolist())
        for keypoint, part in enumerate(KEYPOINT_NAMES):
            example.step_floats(
                f"POSE/{part.upper()}/region/point/{name}", points_PK2[:, keypoint, axis].tolist()
            )


def get_frames(example: SequenceExample, start: int, stop: int) -> Iterator[Record]:
    """Frames [start, stop) of a clip."""
    times_us = example.steps("image/timestamp", start, stop)
    images = example.steps("image/encoded", start, stop)
    for frame, (time_us, image) in enumerate(zip(times_us, images, strict=True), start):
        yield Frame(frame, time_us[0], image[0])


def get_flow(example: SequenceExample, start: int, stop: int) -> Iterator[Record]:
    """Pairs [start, stop) of a clip."""
    if example.length(f"{FLOW_PREFIX}image/encoded"):
        images = example.steps(f"{FLOW_PREFIX}image/encoded", start, stop)
        yield from (FlowPair(frame, image[0], Y_IN_X) for frame, image in enumerate(images, start))
        return
    planes = example.steps(f"{FLOW_PREFIX}image/multi_encoded", start, stop)
    yield from (FlowPair(frame, x, y) for frame, (x, y) in enumerate(planes, start))


def get_people(example: SequenceExample, start: int, stop: int) -> Iterator[Record]:
    """People of the frames [start, stop) of a clip."""
    names = ("region/label/confidence", "POSE_BOX/feature/floats", "POSE/feature/floats")
    columns = (example.steps(name, start, stop) for name in names)
    for frame, values in enumerate(zip(*columns, strict=True), start):
        scores_P, boxes, keypoints = (np.array(v, np.float32) for v in values)
        yield People(frame, scores_P, boxes.reshape(-1, 4), keypoints.reshape(-1, NUM_KEYPOINTS, 3))


FIRST_KEYS: dict[type, tuple[str, ...]] = {
    Frame: ("image/encoded",),
    FlowPair: (f"{FLOW_PREFIX}image/encoded", f"{FLOW_PREFIX}image/multi_encoded"),
    People: ("POSE/feature/floats",),
}
"""The feature list, or the one of two, that tells how many records a clip has."""

GET: dict[type, Callable[[SequenceExample, int, int], Iterator[Record]]] = {
    Frame: get_frames,
    FlowPair: get_flow,
    People: get_people,
}
