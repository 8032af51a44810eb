"""Pictures in and out of JPEG, one way for all: what is stored and what is drawn later must agree."""

import cv2
import numpy as np
from numpy.typing import NDArray


def decode_rgb(image: bytes) -> NDArray[np.uint8]:
    """Pixels of an encoded picture, H × W × 3 (RGB).

    Raises:
        ValueError: the bytes are no picture.
    """
    pixels_HWC = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR_RGB) if image else None
    if pixels_HWC is None:
        raise ValueError(f"{len(image)} bytes starting with {image[:8]!r} are no picture that can be decoded")
    return pixels_HWC.astype(np.uint8, copy=False)


def encode_rgb(pixels_HWC: NDArray[np.uint8], *, jpeg_quality: int) -> bytes:
    """JPEG bytes of an RGB picture; the colour is stored at half resolution, as in the frames store."""
    done, data = cv2.imencode(
        ".jpg", cv2.cvtColor(pixels_HWC, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality]
    )
    assert done, pixels_HWC.shape
    return data.tobytes()
