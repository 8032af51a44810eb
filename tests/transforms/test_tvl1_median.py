"""Median filters: against OpenCV's, exactly."""

import cv2
import numpy as np
import pytest

from transforms.tvl1 import level_of
from transforms.tvl1_median import median
from transforms.tvl1_simd import LANES


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("shape", [(3, 3), (7, 16), (16, 17), (23, 50), (40, 64)])
def test_median_equals_opencv(size: int, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(shape[1] + size)
    image = rng.normal(size=shape).astype(np.float32)
    image[rng.random(shape) < 0.3] = 0
    level = level_of(*shape)
    work = np.full(2 * level.plane + LANES, np.float32(7))
    planes = work[: 2 * level.plane].reshape(2, level.plane)[:, : level.rows * level.pitch]
    planes = planes.reshape(2, level.rows, level.pitch)
    planes[0, :, : shape[1]] = image
    median(work, 0, 1, level, size, np.zeros(5 * (level.pitch + 2 * LANES), np.float32))
    assert np.array_equal(planes[1, :, : shape[1]], cv2.medianBlur(image, size))
