"""Messages between a process and its decoder child: one kind byte, a four-byte length, the payload.

The child works on content of strangers, so nothing is pickled and whatever comes from it is checked.

    parent → child    REQUEST  JSON: the clip, the options
    child → parent    READY    once, after its imports
                      SIZE     width, height                     ┐
                      FRAME    index, time_us, JPEG bytes        │ for each request: SIZE FRAME* END
                      PROGRESS pictures are decoded, none chosen │ or at any point REJECTED or FAILED
                      END                                        │
                      REJECTED JSON: reason, detail              │
                      FAILED   traceback, UTF-8                  ┘
"""

import json
import struct
from dataclasses import asdict
from typing import Any

from stores.records import Frame
from stores.rejections import REASONS, ClipRejected
from transforms.options import FramesOptions
from transforms.stage import Video

REQUEST, READY, SIZE, FRAME, PROGRESS, END, REJECTED, FAILED = b"Q", b"Y", b"S", b"F", b"P", b"E", b"R", b"X"

HEADER = struct.Struct("<cI")
MAX_PAYLOAD_BYTES = 1 << 30
_SIZE = struct.Struct("<II")
_FRAME = struct.Struct("<Iq")


def pack(kind: bytes, payload: bytes = b"") -> bytes:
    return HEADER.pack(kind, len(payload)) + payload


def pack_request(video: Video, options: FramesOptions) -> bytes:
    return pack(REQUEST, json.dumps({"video": asdict(video), "options": asdict(options)}).encode())


def unpack_request(payload: bytes) -> tuple[Video, FramesOptions]:
    request = json.loads(payload)
    return Video(**request["video"]), FramesOptions(**request["options"])


def pack_size(width_px: int, height_px: int) -> bytes:
    return pack(SIZE, _SIZE.pack(width_px, height_px))


def unpack_size(payload: bytes) -> tuple[int, int]:
    width_px, height_px = _SIZE.unpack(payload)
    return width_px, height_px


def pack_frame(frame: Frame) -> bytes:
    return pack(FRAME, _FRAME.pack(frame.frame, frame.time_us) + frame.image)


def unpack_frame(payload: bytes) -> Frame:
    """Raises ValueError or struct.error where the payload is no frame."""
    index, time_us = _FRAME.unpack_from(payload)
    return Frame(index, time_us, payload[_FRAME.size :])


def pack_rejected(rejected: ClipRejected) -> bytes:
    return pack(REJECTED, json.dumps({"reason": rejected.reason, "detail": rejected.detail}).encode())


def unpack_rejected(payload: bytes) -> ClipRejected:
    """Raises ValueError where the payload is no known rejection."""
    found: Any = json.loads(payload)
    if not isinstance(found, dict) or found.get("reason") not in REASONS:
        raise ValueError(f"no rejection: {payload[:100]!r}")
    return ClipRejected(found["reason"], str(found.get("detail", "")))
