"""The animated look: rgb | pose | flow | what a network says, of a few clips one after the other, as a WebP picture.

Shape legend: T frames, H rows, W columns, C colour channels (RGB).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.config import Config
from pipelines.looks import Streams, read_streams
from stores import files, keys
from stores.clips import ClipsTable, read_clips
from transforms.preview import flow_colours, side_by_side

if TYPE_CHECKING:
    from models.predict import Predictor

STEP_FRAMES = 2
HEAD_PX = 22
MOST_LABELS = 6
_QUALITY = 60
_FULL_COLOUR = 1 / 3  # of the store's bound: at the bound itself everyday motion is nearly white
_PAPER, _INK, _BAR, _RIGHT = (250, 250, 248), (30, 32, 36), (130, 150, 185), (60, 150, 90)


def write_look(clip_ids: Sequence[str], config: Config, *, run: str | None, output: str) -> tuple[int, float]:
    """Writes the animation and returns its size in bytes and its length in seconds.

    Args:
        clip_ids: shown in this order; none means a clip of each class, test clips first.
        run: the trained network of a last panel; it looks at the videos themselves, at RGB alone. None leaves it out.
        output: file that ends in .webp.

    Raises:
        ValueError: a clip or a run is not there.
    """
    predictor = _load(config, run) if run else None
    clips = read_clips(config.workspace)
    chosen = list(clip_ids) or one_of_each(clips.label_of, clips.split(config.data.split))
    pictures: list[Image.Image] = []
    fps = 1.0
    for clip_id in chosen:
        streams = read_streams(clip_id, config)
        columns, fps = _columns(streams), streams.fps
        if predictor:
            size = (streams.rgb_THWC[0].shape[0], streams.rgb_THWC[0].shape[1])
            columns[f"{run}: sees rgb alone"] = _answers(
                predictor, clip_id, clips, len(streams.rgb_THWC), size
            )
        pictures += [Image.fromarray(with_heads(picture)) for picture in _frames(columns)]
    milliseconds = round(1000 * STEP_FRAMES / fps)
    how = {"save_all": True, "duration": milliseconds, "loop": 0, "quality": _QUALITY, "method": 4}
    with files.staged(output) as path:
        pictures[0].save(path, "WEBP", append_images=pictures[1:], **how)
    return files.status(output).size_bytes, len(pictures) * milliseconds / 1000


def _load(config: Config, run: str) -> "Predictor":
    from models.predict import load

    return load(files.join(config.workspace, "runs", run))


def _columns(streams: Streams) -> dict[str, list[NDArray[np.uint8]]]:
    """Name → pictures, one every `STEP_FRAMES` frames."""
    columns = {"rgb": streams.rgb_THWC[::STEP_FRAMES]}
    if streams.pose_THWC is not None:
        columns["pose"] = streams.pose_THWC[::STEP_FRAMES]
    if streams.flow_THW2 is not None:
        pairs = [*streams.flow_THW2, streams.flow_THW2[-1]]  # the last frame has no next one
        full_px = streams.bound_px * _FULL_COLOUR
        columns["flow"] = [flow_colours(flow_HW2, bound_px=full_px) for flow_HW2 in pairs[::STEP_FRAMES]]
    return columns


def _frames(columns: Mapping[str, Sequence[NDArray[np.uint8]]]) -> Iterator[dict[str, NDArray[np.uint8]]]:
    """Name → picture, frame by frame."""
    for pictures in zip(*columns.values(), strict=True):
        yield dict(zip(columns, pictures, strict=True))


def one_of_each(label_of: Mapping[str, str], split_of: Mapping[str, str]) -> list[str]:
    """A clip of each class, in the order of the labels; test clips first, then by the digest of their names."""
    ranked = sorted(label_of, key=lambda clip_id: (split_of[clip_id] != "test", keys.digest(clip_id)))
    first = {label_of[clip_id]: clip_id for clip_id in reversed(ranked)}
    return [first[label] for label in sorted(first)]


def _answers(
    predictor: "Predictor", clip_id: str, clips: ClipsTable, frames: int, size: tuple[int, int]
) -> list[NDArray[np.uint8]]:
    """The panel of probabilities, every `STEP_FRAMES` frames: of the window that has ended last."""
    index = clips.clip_ids.index(clip_id)
    start_s, stop_s = clips.starts_s[index], clips.stops_s[index]
    said: dict[int, dict[str, float]] = {}
    stride_s = 2 * STEP_FRAMES / predictor.fps
    for window in predictor.windows(clips.uris[index], stride_s=stride_s, start_s=start_s, stop_s=stop_s):
        said[round((window.stop_s - start_s) * predictor.fps)] = dict(window.labels)
    right = clips.label_of[clip_id]
    labels = foremost(list(said.values()), right)
    panels, latest = [], dict[str, float]()
    for frame in range(0, frames, STEP_FRAMES):
        latest = next((said[f] for f in (frame, frame + 1) if f in said), latest)
        panels.append(probability_panel(latest, labels, right=right, size=size))
    return panels


def foremost(windows: Sequence[Mapping[str, float]], right: str) -> list[str]:
    """The labels to show, sorted: the right one, and those with the largest probabilities over all windows."""
    mean: dict[str, float] = {}
    for window in windows:
        for label, probability in window.items():
            mean[label] = mean.get(label, 0.0) + probability
    others = sorted((label for label in mean if label != right), key=lambda label: -mean[label])
    return sorted([right, *others[: MOST_LABELS - 1]])


def probability_panel(
    probabilities: Mapping[str, float], labels: Sequence[str], *, right: str, size: tuple[int, int]
) -> NDArray[np.uint8]:
    """A bar for each label, the right one in green; empty before the first window is over.

    Args:
        size: height and width, px.
    """
    height_px, width_px = size
    panel_HWC = np.full((height_px, width_px, 3), _PAPER, np.uint8)
    row_px = height_px / len(labels)
    for row, label in enumerate(labels):
        top, stop = round(row * row_px + 0.45 * row_px), round(row * row_px + 0.85 * row_px)
        length_px = round((width_px - 16) * probabilities.get(label, 0.0))
        colour = _RIGHT if label == right else _BAR
        cv2.rectangle(panel_HWC, (8, top), (width_px - 8, stop), (232, 232, 230), -1)
        if length_px:
            cv2.rectangle(panel_HWC, (8, top), (8 + length_px, stop), colour, -1)
        shown = files.printable(label) + (f"  {probabilities[label]:.0%}" if label in probabilities else "")
        _write(panel_HWC, shown, (8, top - 3), colour=_RIGHT if label == right else _INK)
    return panel_HWC


def with_heads(columns: Mapping[str, NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """The pictures side by side, each with its name above."""
    headed = []
    for name, picture_HWC in columns.items():
        head_HWC = np.full((HEAD_PX, picture_HWC.shape[1], 3), _PAPER, np.uint8)
        _write(head_HWC, name, (6, HEAD_PX - 7), colour=_INK)
        headed.append(np.concatenate([head_HWC, picture_HWC]))
    return side_by_side(headed)


def _write(
    picture_HWC: NDArray[np.uint8], text: str, at: tuple[int, int], *, colour: tuple[int, int, int]
) -> None:
    cv2.putText(picture_HWC, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1, cv2.LINE_AA)
