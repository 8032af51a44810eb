"""The loop that puts anti-aliased strokes onto a picture, compiled.

A drawing library rounds widths and ends to its own grid and smears edges over two pixels; here the share of a
pixel that is covered is `clip(radius + 1/2 - distance, 0, 1)`, distance being its centre's from the line.

Shape legend: H rows, W columns, C colour channels, S strokes.
"""

import math

import numba
import numpy as np
from numpy.typing import NDArray

from transforms.numba_cache import compiled


@compiled
def paint_strokes(
    canvas_HWC: NDArray[np.uint8],
    ends_S4: NDArray[np.float64],
    radii_S: NDArray[np.float64],
    colours_S3: NDArray[np.uint8],
) -> None:
    """Paints strokes in order onto the canvas.

    Args:
        ends_S4: x0, y0, x1, y1 of each line in pixels; integers are pixel centres.
        radii_S: half the width of each line in pixels, at least 1/2.
        colours_S3: of each line.
    """
    rows, columns = canvas_HWC.shape[:2]
    for stroke in range(len(radii_S)):
        x0, y0, x1, y1 = ends_S4[stroke]
        reach = radii_S[stroke] + 0.5
        first_row, stop_row = _span(min(y0, y1) - reach, max(y0, y1) + reach, rows)
        for row in range(first_row, stop_row):
            start, stop = _part_near_row(row, y0, y1 - y0, reach)
            from_x, to_x = x0 + start * (x1 - x0), x0 + stop * (x1 - x0)
            first, end = _span(min(from_x, to_x) - reach, max(from_x, to_x) + reach, columns)
            _paint_row(canvas_HWC[row], first, end, ends_S4[stroke], row, reach, colours_S3[stroke])


@numba.njit
def _span(low: float, high: float, size: int) -> tuple[int, int]:
    """The half-open range of the integers in [low, high] that are in [0, size)."""
    first = math.ceil(max(low, 0.0))
    return first, max(first, math.floor(min(high, size - 1.0)) + 1)


@numba.njit
def _part_near_row(row: int, y0: float, dy: float, reach: float) -> tuple[float, float]:
    """Start and stop, as shares of its length, of the part of a line that comes within reach of a row."""
    if abs(dy) < 1e-9:
        return 0.0, 1.0
    above, below = (row - reach - y0) / dy, (row + reach - y0) / dy
    start = min(max(min(above, below), 0.0), 1.0)
    return start, max(start, min(max(above, below), 1.0))


@numba.njit
def _paint_row(
    row_WC: NDArray[np.uint8],
    first: int,
    end: int,
    ends_4: NDArray[np.float64],
    row: int,
    reach: float,
    colour_3: NDArray[np.uint8],
) -> None:
    x0, y0 = ends_4[0], ends_4[1]
    dx, dy = ends_4[2] - x0, ends_4[3] - y0
    per_squared_length = 1 / max(dx * dx + dy * dy, 1e-12)
    core = max(reach - 1.0, 0.0)
    red, green, blue = colour_3[0], colour_3[1], colour_3[2]
    for column in range(first, end):
        right, down = column - x0, row - y0
        along = min(max((right * dx + down * dy) * per_squared_length, 0.0), 1.0)
        squared = (right - along * dx) ** 2 + (down - along * dy) ** 2
        if squared <= core * core:
            row_WC[column, 0], row_WC[column, 1], row_WC[column, 2] = red, green, blue
        elif squared < reach * reach:
            covered = min(reach - math.sqrt(squared), 1.0)
            row_WC[column, 0] = _mix(row_WC[column, 0], red, covered)
            row_WC[column, 1] = _mix(row_WC[column, 1], green, covered)
            row_WC[column, 2] = _mix(row_WC[column, 2], blue, covered)


@numba.njit
def _mix(below: int, above: int, covered: float) -> int:
    return int(below + covered * (float(above) - float(below)) + 0.5)
