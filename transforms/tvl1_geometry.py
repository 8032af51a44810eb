"""What all TV-L1 implementations agree on: the sizes of the pyramid's levels, and which images they accept."""

import numpy as np
from numpy.typing import NDArray

from transforms.options import TVL1Parameters

MIN_SIDE_PX = 3
_MIN_COARSE_SIDE_PX = 16

Image = NDArray[np.uint8] | NDArray[np.float32]


def level_sizes(rows: int, columns: int, parameters: TVL1Parameters) -> list[tuple[int, int]]:
    """Sizes of the levels, fine to coarse: it ends before a side falls under 16 px."""
    sizes = [(rows, columns)]
    while len(sizes) < parameters.scales:
        rows, columns = (round(side * parameters.scale_step) for side in (rows, columns))
        if min(rows, columns) < _MIN_COARSE_SIDE_PX:
            break
        sizes.append((rows, columns))
    return sizes


def require_image(name: str, image_HW: Image) -> None:
    """Raises ValueError in words unless it is a grey image large enough for TV-L1."""
    if image_HW.ndim != 2 or image_HW.dtype not in (np.uint8, np.float32):
        found = f"{image_HW.dtype} {list(image_HW.shape)}"
        raise ValueError(f"{name}: found {found}, expected a grey image [H, W] of uint8 or float32")
    if min(image_HW.shape) < MIN_SIDE_PX:
        rows, columns = image_HW.shape
        raise ValueError(
            f"{name}: found {columns} x {rows} px, TV-L1 needs at least {MIN_SIDE_PX} px each way"
        )


def require_pair(previous_HW: Image, next_HW: Image, initial_HW2: NDArray[np.float32] | None = None) -> None:
    """Raises ValueError in words unless the two images (and the flow to start from) fit together."""
    require_image("previous_HW", previous_HW)
    if next_HW.shape != previous_HW.shape or next_HW.dtype != previous_HW.dtype:
        found = f"{next_HW.dtype} {list(next_HW.shape)}"
        raise ValueError(f"next_HW: found {found}, expected {previous_HW.dtype} {list(previous_HW.shape)}")
    if initial_HW2 is not None and initial_HW2.shape != (*previous_HW.shape, 2):
        raise ValueError(f"initial_HW2: found {list(initial_HW2.shape)}, expected {[*previous_HW.shape, 2]}")
