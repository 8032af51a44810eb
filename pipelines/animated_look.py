"""The animated look: rgb | pose | flow | what the student says, of a few clips one after the other, as a WebP picture.

Shape legend: T frames, H rows, W columns, C colour channels (RGB).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.predict import Predictor, load
from pipelines.config import Config
from pipelines.looks import read_streams
from stores import files, keys
from stores.clips import read_clips
from transforms.preview import flow_colours, side_by_side

STEP_FRAMES = 2
HEAD_PX = 22
MOST_LABELS = 6
_QUALITY = 60
_PAPER, _INK, _BAR, _RIGHT = (250, 250, 248), (30, 32, 36), (130, 150, 185), (60, 150, 90)


def write_look(clip_ids: Sequence[str], config: Config, *, run: str, output: str) -> tuple[int, float]:
    """Writes the animation and returns its size in bytes and its length in seconds.

    Args:
        clip_ids: shown in this order; none means a clip of each class, test clips first.
        run: the trained network of the last panel; it looks at the videos themselves, at RGB alone.
        output: file that ends in .webp.

    Raises:
        ValueError: a clip or a run is not there.
    """
    predictor = load(files.join(config.workspace, "runs", run))
    clips = read_clips(config.workspace)
    chosen = list(clip_ids) or one_of_each(clips.label_of, clips.split(config.data.split))
    known = set(clips.clip_ids)
    for clip_id in chosen:
        if clip_id not in known:
            raise ValueError(
                f"look: there is no clip {files.quoted(clip_id)} in {files.printable(config.workspace)}"
            )
    pictures: list[Image.Image] = []
    for clip_id in chosen:
        pictures += [Image.fromarray(picture) for picture in _clip(clip_id, config, predictor, clips, run)]
    milliseconds = round(1000 * STEP_FRAMES / float(predictor.fps))
    with files.staged(output) as path:
        pictures[0].save(
            path,
            "WEBP",
            save_all=True,
            append_images=pictures[1:],
            duration=milliseconds,
            loop=0,
            quality=_QUALITY,
            method=4,
        )
    return files.status(output).size_bytes, len(pictures) * milliseconds / 1000


def one_of_each(label_of: Mapping[str, str], split_of: Mapping[str, str]) -> list[str]:
    """A clip of each class, in the order of the labels; test clips first, then by the digest of their names."""
    ranked = sorted(label_of, key=lambda clip_id: (split_of[clip_id] != "test", keys.digest(clip_id)))
    first = {label_of[clip_id]: clip_id for clip_id in reversed(ranked)}
    return [first[label] for label in sorted(first)]


def _clip(
    clip_id: str, config: Config, predictor: Predictor, clips: Any, run: str
) -> Iterator[NDArray[np.uint8]]:
    """The pictures of one clip, every `STEP_FRAMES` frames."""
    streams = read_streams(clip_id, config)
    index = clips.clip_ids.index(clip_id)
    start_s, stop_s = clips.starts_s[index], clips.stops_s[index]
    said: dict[int, dict[str, float]] = {}
    stride_s = 2 * STEP_FRAMES / predictor.fps
    for window in predictor.windows(clips.uris[index], stride_s=stride_s, start_s=start_s, stop_s=stop_s):
        said[round((window.stop_s - start_s) * predictor.fps)] = dict(window.labels)
    labels = foremost(list(said.values()), clips.label_of[clip_id])
    size = streams.rgb_THWC[0].shape[:2]
    latest: dict[str, float] = {}
    for frame in range(0, len(streams.rgb_THWC), STEP_FRAMES):
        latest = next((said[f] for f in (frame, frame + 1) if f in said), latest)
        columns = {"rgb": streams.rgb_THWC[frame]}
        if streams.pose_THWC is not None:
            columns["pose"] = streams.pose_THWC[frame]
        if streams.flow_THW2 is not None:
            flow_HW2 = streams.flow_THW2[min(frame, len(streams.flow_THW2) - 1)]
            columns["flow"] = flow_colours(flow_HW2, bound_px=streams.bound_px)
        columns[f"{run}: sees rgb alone"] = probability_panel(
            latest, labels, right=clips.label_of[clip_id], size=size
        )
        yield with_heads(columns)


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
