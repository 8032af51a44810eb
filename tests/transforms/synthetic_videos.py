"""Videos whose every frame says in black and white blocks which one it is."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

BITS = 8
MILLISECOND = Fraction(1, 1000)


def numbered_picture(number: int, *, width: int = 128, height: int = 64) -> NDArray[np.uint8]:
    """A picture that shows `number` in binary, as vertical blocks, lowest bit at the left."""
    bits = (number >> np.arange(BITS)) & 1
    row = np.repeat(bits * 200 + 25, -(-width // BITS))[:width]
    return np.broadcast_to(row[None, :, None], (height, width, 3)).astype(np.uint8)


def read_number(rgb_HWC: NDArray[np.uint8]) -> int:
    """The number that a picture of `numbered_picture` shows, also after resizing and compression."""
    height, width, _ = rgb_HWC.shape
    centres = ((np.arange(BITS) + 0.5) * width / BITS).astype(int)
    bits = rgb_HWC[height // 2, centres].mean(axis=1) > 125
    return int((bits << np.arange(BITS)).sum())


def write_video(
    path: Path,
    times_ms: Sequence[int],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    codec_options: dict[str, str] | None = None,
    container_format: str | None = None,
    pixel_aspect: Fraction | None = None,
    pictures: Sequence[NDArray[np.uint8]] | None = None,
    **context: Any,
) -> Path:
    """Writes numbered pictures (or the given RGB ones) shown at the given times."""
    pictures = pictures or [numbered_picture(number) for number in range(len(times_ms))]
    with av.open(str(path), "w", format=container_format) as container:
        stream = container.add_stream(codec, rate=25, options=codec_options or {})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = MILLISECOND if codec != "mpeg4" else Fraction(1, 25)
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        for picture, time_ms in zip(pictures, times_ms, strict=True):
            frame = av.VideoFrame.from_ndarray(picture).reformat(format=pix_fmt)
            frame.time_base = stream.codec_context.time_base
            frame.pts = round(time_ms * MILLISECOND / frame.time_base)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def steady_times(count: int, *, step_ms: int = 40) -> list[int]:
    return [number * step_ms for number in range(count)]


def turn(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Sets a, b, c, d of the display matrix in the track header of an MP4 file."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 44
    for place, value in zip((0, 4, 12, 16), matrix, strict=True):
        data[start + place : start + place + 4] = (value << 16).to_bytes(4, "big", signed=True)
    path.write_bytes(data)
