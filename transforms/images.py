"""JPEG to pixels and back, one way for all: what is drawn into a store and what is drawn later must agree."""

import numpy as np
import simplejpeg
from numpy.typing import NDArray


def decode_rgb(image: bytes) -> NDArray[np.uint8]:
    """Pixels of a JPEG, H × W × 3 (RGB).

    Raises:
        ValueError: the bytes are no JPEG.
    """
    return simplejpeg.decode_jpeg(image, "RGB")


def encode_rgb(pixels_HWC: NDArray[np.uint8], *, jpeg_quality: int) -> bytes:
    """JPEG bytes of an RGB picture, with colour at half resolution as in the frames store; deterministic."""
    return simplejpeg.encode_jpeg(pixels_HWC, jpeg_quality, "RGB", "420", fastdct=False)
