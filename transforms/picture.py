"""From a decoded picture of any pixel format to an upright RGB image and its JPEG bytes.

Shape legend: H rows, W columns, C channels.
"""

import struct
from fractions import Fraction
from typing import NamedTuple, cast

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from stores.rejections import ClipRejected

# Area averaging does not alias when shrinking and is bilinear when growing. The other flags buy full chroma
# resolution and the same bits with and without SIMD, for half a millisecond a frame.
SCALING = (
    Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.BITEXACT
)
COLORSPACE_UNSPECIFIED, COLORSPACE_RESERVED = 2, 3  # AVCOL_SPC_*
JPEG_LONGEST_SIDE_PX = 65_500


class Orientation(NamedTuple):
    """How a coded picture becomes upright: first transposed, then flipped."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False


def orientation(picture: av.VideoFrame) -> Orientation:
    """Reads the display matrix, snapped to multiples of 90 degrees and mirrors.

    FFmpeg's matrix (libavutil/display.h) maps x' = a·x + c·y, y' = b·x + d·y. To be asked once a clip: a picture
    whose side data was read is in a reference cycle and waits for the garbage collector, hundreds at a time.
    """
    if (matrix := picture.side_data.get("DISPLAYMATRIX")) is None:
        return Orientation()
    a, b, _, c, d = struct.unpack_from("=5i", cast(bytes, matrix))
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(flip_x=a < 0, flip_y=d < 0)
    return Orientation(transpose=True, flip_x=c < 0, flip_y=b < 0)


def upright_size(
    picture: av.VideoFrame, turn: Orientation, *, pixel_aspect: Fraction, shorter_side_px: int
) -> tuple[int, int]:
    """Width and height of the upright image whose shorter side is `shorter_side_px`, aspect kept.

    Args:
        pixel_aspect: width over height of one coded pixel.

    Raises:
        ClipRejected: too_large, the longer side is beyond what JPEG can hold.
    """
    width, height = picture.width * pixel_aspect, Fraction(picture.height)
    if turn.transpose:
        width, height = height, width
    scale = shorter_side_px / min(width, height)
    width_px, height_px = (int(side * scale + Fraction(1, 2)) for side in (width, height))
    if max(width_px, height_px) > JPEG_LONGEST_SIDE_PX:
        raise ClipRejected("too_large", f"{width_px} x {height_px} px after resizing")
    return width_px, height_px


def to_rgb(
    picture: av.VideoFrame, turn: Orientation, reformatter: VideoReformatter, *, width_px: int, height_px: int
) -> NDArray[np.uint8]:
    """The upright image, uint8 HWC, of the given size.

    Matrix and range are those that the stream states; an unstated matrix is BT.601, as in FFmpeg. An alpha
    channel is dropped, as FFmpeg and OpenCV do.

    Raises:
        ClipRejected: unsupported, FFmpeg cannot convert this pixel format or colour space.
    """
    width, height = (height_px, width_px) if turn.transpose else (width_px, height_px)
    if picture.colorspace == COLORSPACE_RESERVED:  # written by some recorders; means nothing
        picture.colorspace = COLORSPACE_UNSPECIFIED
    try:
        scaled = reformatter.reformat(picture, width, height, "rgb24", interpolation=SCALING, threads=1)
    except av.FFmpegError as error:
        found = f"pixel format {picture.format.name}, colour space {int(picture.colorspace)}"
        raise ClipRejected("unsupported", found) from error
    rgb_HWC = scaled.to_ndarray()
    if turn.transpose:
        rgb_HWC = rgb_HWC.transpose(1, 0, 2)
    return np.ascontiguousarray(rgb_HWC[:: -1 if turn.flip_y else 1, :: -1 if turn.flip_x else 1])
