"""What the networks will see, for people to look at: rgb, pose and flow side by side, as a video or a contact sheet.

Shape legend: T frames, H rows, W columns, C colour channels (RGB), P people, N colours of the wheel.
"""

import functools
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from stores import files
from stores.records import People

GAP_PX = 4
SHEET_ROWS = 12
TEXT_SCALE_PER_PX = 0.4 / 256

# Steps between red, yellow, green, cyan, blue, magenta and red again: as many as the eye tells apart (Middlebury).
WHEEL_STEPS = (15, 6, 4, 11, 13, 6)


def preview(
    path: str | Path,
    *,
    rgb_THWC: Sequence[NDArray[np.uint8]],
    pose_THWC: Sequence[NDArray[np.uint8]] | None = None,
    flow_THW2: Sequence[NDArray[np.float32]] | None = None,
    people: Sequence[People] | None = None,
    bound_px: float = 20.0,
    fps: float = 25.0,
) -> None:
    """Writes a clip's streams side by side: an MP4, or, by the name, a PNG sheet of twelve frames from first to last.

    Args:
        path: ends in .mp4 or .png.
        flow_THW2: one less than there are frames is enough; the last stays for the rest.
        people: indices and scores to write beside everybody, in the pose picture or, without one, in rgb.
        bound_px: flow of this length has the full colour.

    Raises:
        ValueError: another ending, or streams of different lengths or sizes.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".mp4", ".png"):
        raise ValueError(f"preview: found {str(path)!r}, expected a name that ends in .mp4 or .png")
    _check_lengths(rgb_THWC, pose_THWC, flow_THW2, people)

    def panel(frame: int) -> NDArray[np.uint8]:
        rgb_HWC = rgb_THWC[frame]
        pictures = [rgb_HWC] if pose_THWC is None else [rgb_HWC, pose_THWC[frame]]
        if people is not None:
            pictures[-1] = name_people(pictures[-1], people[frame])
        if flow_THW2 is not None:
            pictures.append(flow_colours(flow_THW2[min(frame, len(flow_THW2) - 1)], bound_px=bound_px))
        return side_by_side(pictures)

    if suffix == ".mp4":
        write_mp4(path, (panel(frame) for frame in range(len(rgb_THWC))), fps=fps)
    else:
        chosen = np.unique(np.linspace(0, len(rgb_THWC) - 1, SHEET_ROWS).round().astype(int))
        write_png(path, contact_sheet([panel(int(frame)) for frame in chosen]))


def flow_colours(flow_HW2: NDArray[np.float32], *, bound_px: float) -> NDArray[np.uint8]:
    """Flow as the Middlebury colour wheel: direction is hue, length is saturation, no motion is white.

    Source: Baker et al., A Database and Evaluation Methodology for Optical Flow, 2011. To the right is red, down is
    yellow, to the left cyan, up blue-violet. Beyond `bound_px` colours are darkened, so that clipping is seen.
    """
    wheel_N3 = _wheel()
    length_HW = np.hypot(flow_HW2[..., 0], flow_HW2[..., 1]) / bound_px
    turn_HW = (np.arctan2(flow_HW2[..., 1], flow_HW2[..., 0]) / (2 * np.pi)) % 1.0
    place_HW = turn_HW * len(wheel_N3)
    below_HW = np.floor(place_HW).astype(int)
    share_HW1 = (place_HW - below_HW)[..., None]
    hue_HW3 = wheel_N3[below_HW % len(wheel_N3)] * (1 - share_HW1)
    hue_HW3 += wheel_N3[(below_HW + 1) % len(wheel_N3)] * share_HW1
    inside_HW1 = (length_HW <= 1)[..., None]
    colour_HW3 = np.where(inside_HW1, 1 - length_HW[..., None] * (1 - hue_HW3), 0.75 * hue_HW3)
    return np.round(255 * colour_HW3).astype(np.uint8)


@functools.cache
def _wheel() -> NDArray[np.float64]:
    corners = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1], [1, 0, 0]], float)
    return np.concatenate(
        [
            corners[index] + (corners[index + 1] - corners[index]) * (np.arange(steps) / steps)[:, None]
            for index, steps in enumerate(WHEEL_STEPS)
        ]
    )


def name_people(image_HWC: NDArray[np.uint8], people: People) -> NDArray[np.uint8]:
    """The picture with each person's box, index in the record and score; the picture itself is left alone."""
    named_HWC = image_HWC.copy()
    scale = max(0.3, TEXT_SCALE_PER_PX * min(image_HWC.shape[:2]))
    for index, (score, box_4) in enumerate(zip(people.scores_P, people.boxes_P4, strict=True)):
        x0, y0, x1, y1 = (round(float(edge)) for edge in box_4)
        cv2.rectangle(named_HWC, (x0, y0), (x1, y1), (255, 255, 255), 1)
        place = (max(x0, 0) + 2, max(y0, 0) + round(30 * scale))
        for colour, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):  # white on a black rim is read anywhere
            cv2.putText(
                named_HWC,
                f"{index} {score:.2f}",
                place,
                cv2.FONT_HERSHEY_SIMPLEX,
                scale,
                colour,
                width,
                cv2.LINE_AA,
            )
    return named_HWC


def side_by_side(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Pictures of one size in a row, with a grey gap between them.

    Raises:
        ValueError: their sizes differ.
    """
    sizes = {picture.shape for picture in pictures}
    if len(sizes) > 1:
        raise ValueError(f"preview: streams have pictures of different sizes: {sorted(sizes)}")
    gap = np.full((pictures[0].shape[0], GAP_PX, 3), 128, np.uint8)
    parts = [part for picture in pictures for part in (gap, picture)]
    return np.concatenate(parts[1:], axis=1)


def contact_sheet(panels: Sequence[NDArray[np.uint8]], *, columns: int = 2) -> NDArray[np.uint8]:
    """Panels of one size in rows from left to right; free places at the end are grey."""
    height_px, width_px = panels[0].shape[:2]
    rows = -(-len(panels) // columns)
    sheet_HWC = np.full(
        (rows * (height_px + GAP_PX) - GAP_PX, columns * (width_px + GAP_PX) - GAP_PX, 3), 128, np.uint8
    )
    for index, panel in enumerate(panels):
        top, left = (index // columns) * (height_px + GAP_PX), (index % columns) * (width_px + GAP_PX)
        sheet_HWC[top : top + height_px, left : left + width_px] = panel
    return sheet_HWC


def write_png(path: str | Path, image_HWC: NDArray[np.uint8]) -> None:
    """Writes an RGB picture."""
    done, content = cv2.imencode(".png", cv2.cvtColor(image_HWC, cv2.COLOR_RGB2BGR))
    assert done
    files.put_bytes(str(path), content.tobytes())


def write_mp4(path: str | Path, panels_THWC: Iterator[NDArray[np.uint8]], *, fps: float) -> None:
    """Writes H.264; sides are cut to even numbers of pixels, as its chroma wants."""
    import av

    with files.staged(str(path)) as partial, av.open(partial, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "18"}
        for panel_HWC in panels_THWC:
            height_px, width_px = (side - side % 2 for side in panel_HWC.shape[:2])
            if not stream.codec_context.is_open:
                stream.height, stream.width = height_px, width_px
            even_HWC = np.ascontiguousarray(panel_HWC[:height_px, :width_px])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even_HWC, "rgb24")))
        container.mux(stream.encode())


def _check_lengths(
    rgb_THWC: Sequence[NDArray[np.uint8]],
    pose_THWC: Sequence[NDArray[np.uint8]] | None,
    flow_THW2: Sequence[NDArray[np.float32]] | None,
    people: Sequence[People] | None,
) -> None:
    frames = len(rgb_THWC)
    allowed = {"rgb": (frames,), "pose": (frames,), "people": (frames,), "flow": (frames, frames - 1)}
    given = {"rgb": rgb_THWC, "pose": pose_THWC, "people": people, "flow": flow_THW2}
    for name, stream in given.items():
        if stream is not None and (len(stream) not in allowed[name] or not len(stream)):
            raise ValueError(f"preview: {name} has {len(stream)} records for {frames} frames")
