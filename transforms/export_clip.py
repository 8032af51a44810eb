"""One clip as a complete MediaSequence example: frames, flow as MediaPipe writes it, people and the label.

Shape legend: H rows, W columns, 2 = (x, y) components.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from stores import mediasequence
from stores.records import FlowPair, Frame, People
from stores.sequence_example import SequenceExample
from transforms import flow

SATURATION_PX = 20.0
"""MediaPipe clips flow to [-20, 20] px, whatever the size of the picture."""


@dataclass(frozen=True)
class ClipLabel:
    """What the clips table says of a clip, and the index of its label in the label map."""

    clip_id: str
    uri: str
    start_s: float
    stop_s: float | None
    label: str
    label_index: int


@lru_cache
def requantised(bound_px: float) -> NDArray[np.uint8]:
    """Each of our 256 levels in MediaPipe's: uint8(clip((v + 20) / 40) · 255), which truncates, so that 0 px is 127.

    Args:
        bound_px: of our quantiser.
    """
    v_px = (np.arange(256) - 128.0) * bound_px / 127
    return (np.clip((v_px + SATURATION_PX) / (2 * SATURATION_PX), 0, 1) * 255).astype(np.uint8)


def flow_jpeg(pair: FlowPair, bound_px: float, *, jpeg_quality: int) -> bytes:
    """A stored pair as MediaSequence's colour JPEG: red = x, green = y, blue = 0."""
    planes_HW2 = requantised(bound_px)[flow.decode(pair.x, pair.y)]
    return flow.encode(planes_HW2, "jpeg3", jpeg_quality=jpeg_quality)[0]


def mediasequence_example(
    clip: ClipLabel,
    *,
    frames: Iterable[Frame],
    pairs: Iterable[FlowPair],
    people: Iterable[People],
    size_px: tuple[int, int],
    bound_px: float,
    jpeg_quality: int,
) -> bytes:
    """The serialised SequenceExample.

    Args:
        size_px: (width, height) of the frames.
        bound_px: of the stored flow.
        jpeg_quality: of the exported flow; frames are passed on as they are.
    """
    example = SequenceExample()
    mediasequence.put_clip(example, clip.clip_id)
    _put_label(example, clip)
    width_px, height_px = size_px
    times_us = mediasequence.put_frames(example, clip.clip_id, frames, width_px=width_px, height_px=height_px)
    jpegs = (flow_jpeg(pair, bound_px, jpeg_quality=jpeg_quality) for pair in pairs)
    _put_flow(example, clip.clip_id, jpegs, times_us, size_px)
    mediasequence.put_people(example, people, width_px=width_px, height_px=height_px)
    for time_us in times_us:
        example.step_ints("region/timestamp", time_us)
    return example.serialise()


def _put_label(example: SequenceExample, clip: ClipLabel) -> None:
    """DMVR reads the name under `text`, MediaSequence under `string`."""
    example.context_ints("clip/label/index", clip.label_index)
    example.context_bytes("clip/label/string", clip.label)
    example.context_bytes("clip/label/text", clip.label)
    example.context_bytes("clip/data_path", clip.uri)
    example.context_ints("clip/start/timestamp", round(clip.start_s * 1e6))
    if clip.stop_s is not None:
        example.context_ints("clip/end/timestamp", round(clip.stop_s * 1e6))


def _put_flow(
    example: SequenceExample,
    clip_id: str,
    jpegs: Iterable[bytes],
    times_us: list[int],
    size_px: tuple[int, int],
) -> None:
    prefix = mediasequence.FLOW_PREFIX
    pairs = (FlowPair(index, jpeg, mediasequence.Y_IN_X) for index, jpeg in enumerate(jpegs))
    count = mediasequence.put_flow(example, clip_id, pairs, width_px=size_px[0], height_px=size_px[1])
    for time_us in times_us[:count]:
        example.step_ints(f"{prefix}image/timestamp", time_us)
    example.context_floats(f"{prefix}image/saturation", SATURATION_PX)
    mediasequence.put_rate(example, times_us, prefix)
