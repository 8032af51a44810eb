"""TV-L1 optical flow on one CPU core, with the answer of OpenCV's DualTVL1 (docs/flow.md).

Algorithm: Zach, Pock, Bischof 2007; Sanchez, Meinhardt-Llopis, Facciolo 2013 (IPOL); the numerical reference,
with median filtering and the stopping rule, is OpenCV's DualTVL1OpticalFlow.

Shape legend: H rows, W columns, 2 = (x, y) components.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transforms import tvl1_kernels as kernels
from transforms.options import TVL1Parameters
from transforms.tvl1_geometry import Image, level_sizes, require_image, require_pair
from transforms.tvl1_kernels import BORDER_PX, Weights
from transforms.tvl1_median import Level
from transforms.tvl1_simd import LANES

_STAGGER = 5 * LANES


def tvl1_flow(
    previous_HW: Image, next_HW: Image, *, initial_HW2: NDArray[np.float32] | None = None, **parameters: Any
) -> NDArray[np.float32]:
    """Optical flow from one grey image to the next, in px: previous[y, x] is found at next[y + fy, x + fx].

    Args:
        previous_HW, next_HW: two images of one size, uint8, or float32 with white = 1.
        initial_HW2: flow in px to start from; without it, zero.
        parameters: fields of `TVL1Parameters`; the defaults are OpenCV's.

    Returns:
        float32 [H, W, 2], x before y.

    Raises:
        ValueError: sizes or types differ or do not fit, or a parameter is out of range.
    """
    return TVL1Solver(TVL1Parameters(**parameters)).flow(previous_HW, next_HW, initial_HW2=initial_HW2)


def warm_up() -> None:
    """Compiles the kernels, or loads them from the disk cache, so that the first pair does not pay for it."""
    ramp_HW = np.add.outer(np.arange(16), np.arange(16)).astype(np.uint8)
    tvl1_flow(ramp_HW, ramp_HW + np.uint8(1), warps=1, inner_iterations=1, outer_iterations=1)


@dataclass
class _Buffers:
    """Everything that one frame size needs, allocated once. Pyramids are lists from fine to coarse."""

    levels: list[Level]
    textures: list[NDArray[np.float32]]
    previous: list[NDArray[np.float32]]
    following: list[NDArray[np.float32]]
    work: NDArray[np.float32]
    scratch: NDArray[np.float32]
    corners: NDArray[np.int32]

    @classmethod
    def for_size(cls, rows: int, columns: int, parameters: TVL1Parameters) -> "_Buffers":
        levels = [level_of(*size) for size in level_sizes(rows, columns, parameters)]
        fine = levels[0]
        return cls(
            levels,
            [_aligned(4 * (lv.rows + 2 * BORDER_PX + 1) * (lv.columns + 2 * BORDER_PX + 1)) for lv in levels],
            [_aligned(lv.rows * lv.pitch).reshape(lv.rows, lv.pitch) for lv in levels],
            [_aligned(lv.rows * lv.pitch).reshape(lv.rows, lv.pitch) for lv in levels],
            _aligned(_planes(parameters) * fine.plane + LANES),
            _aligned(18 * fine.pitch + 10 * LANES),
            np.zeros(2 * fine.pitch, np.int32),
        )


class TVL1Solver:
    """TV-L1 with its buffers; for one thread at a time, and any number of pairs of any size.

    Args:
        parameters: `TVL1Parameters` (or options that inherit from it).
    """

    def __init__(self, parameters: TVL1Parameters) -> None:
        self._parameters = parameters
        self._size: tuple[int, ...] = ()

    def flow(
        self, previous_HW: Image, next_HW: Image, *, initial_HW2: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """As `tvl1_flow`."""
        require_pair(previous_HW, next_HW, initial_HW2)
        self._take(previous_HW)
        return self._advance(previous_HW, next_HW, initial_HW2)

    def flows(self, greys: Iterator[Image]) -> Iterator[NDArray[np.float32]]:
        """Flow from each frame to the next, one fewer than frames; each frame's pyramid is built once."""
        previous_HW = next(greys)
        self._take(previous_HW)
        for next_HW in greys:
            require_pair(previous_HW, next_HW)
            yield self._advance(previous_HW, next_HW, None)
            previous_HW = next_HW

    def _take(self, grey_HW: Image) -> None:
        """Makes a frame the next pair's first."""
        if grey_HW.shape != self._size:
            require_image("previous_HW", grey_HW)
            rows, columns = grey_HW.shape
            self._buffers = _Buffers.for_size(rows, columns, self._parameters)
            self._size = grey_HW.shape
        self._shrink(grey_HW, self._buffers.following)

    def _advance(
        self, previous_HW: Image, next_HW: Image, initial_HW2: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        buffers = self._buffers
        buffers.previous, buffers.following = buffers.following, buffers.previous
        self._shrink(next_HW, buffers.following)
        if initial_HW2 is None and np.array_equal(previous_HW, next_HW):
            return np.zeros((*self._size, 2), np.float32)
        return self._solve(initial_HW2)

    def _shrink(self, grey_HW: Image, pyramid: list[NDArray[np.float32]]) -> None:
        white = 1 if grey_HW.dtype == np.uint8 else 255
        levels = self._buffers.levels
        np.multiply(grey_HW, np.float32(white), out=pyramid[0][:, : levels[0].columns], dtype=np.float32)
        for fine, coarse, level_f, level_c in zip(pyramid, pyramid[1:], levels, levels[1:], strict=False):
            source, target = fine[:, : level_f.columns], coarse[:, : level_c.columns]
            scale = 1 / self._parameters.scale_step
            kernels.resample(source, target, scale, scale, np.float32(1))

    def _solve(self, initial_HW2: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Coarse to fine; what passes from level to level is in px of the level it comes from."""
        parameters, buffers = self._parameters, self._buffers
        coarse = _start(initial_HW2, buffers.levels, parameters)
        growth = 1.0
        for index in reversed(range(len(buffers.levels))):
            level = buffers.levels[index]
            weights = weights_of(parameters, level)
            buffers.work[: level.plane * _planes(parameters)] = 0
            for plane, factor, source in zip(_CARRIED, (growth, growth, 1.0), coarse, strict=False):
                scales = (source.shape[0] / level.rows, source.shape[1] / level.columns)
                target = _plane(buffers.work, level, plane)
                kernels.resample(source, target, *scales, np.float32(factor * weights.taut))
            u = self._solve_level(index, weights)
            carried = (u, u + 1, kernels.U3)[: len(coarse)]
            coarse = [_plane(buffers.work, level, p).copy() / weights.taut for p in carried]
            growth = 1 / parameters.scale_step
        return np.stack(coarse[:2], axis=-1)

    def _solve_level(self, index: int, weights: Weights) -> int:
        buffers, level = self._buffers, self._buffers.levels[index]
        kernels.interleave(buffers.following[index], level.columns, buffers.textures[index])
        mask = (np.arange(LANES) <= (level.columns - 1) % LANES).astype(np.float32)
        return kernels.solve(
            buffers.work,
            level,
            weights,
            buffers.previous[index].reshape(-1),
            buffers.textures[index],
            buffers.scratch,
            buffers.corners,
            mask,
        )


_CARRIED = (kernels.U1, kernels.U2, kernels.U3)


def _start(
    initial_HW2: NDArray[np.float32] | None, levels: list[Level], parameters: TVL1Parameters
) -> list[NDArray[np.float32]]:
    """Flow (and illumination, with gamma) on the coarsest level: zero, or the given flow shrunk."""
    coarsest = levels[-1]
    planes = [
        np.zeros((coarsest.rows, coarsest.columns), np.float32) for _ in range(3 if parameters.gamma else 2)
    ]
    if initial_HW2 is not None:
        scale = 1 / parameters.scale_step
        for component in range(2):
            source = np.ascontiguousarray(initial_HW2[..., component], np.float32)
            for level in levels[1:]:
                target = np.empty((level.rows, level.columns), np.float32)
                kernels.resample(source, target, scale, scale, np.float32(parameters.scale_step))
                source = target
            planes[component] = source
    return planes


def _planes(parameters: TVL1Parameters) -> int:
    return 14 if parameters.gamma else 11


def level_of(rows: int, columns: int) -> Level:
    # A spare vector ends each row, a spare row each plane: it is the zero row above the next plane. Planes
    # are staggered: fields a multiple of 4096 bytes apart would compete for the same lines of the L1 cache.
    pitch = (columns // LANES + 1) * LANES
    page = 4096 // 4
    plane = -(-(rows + 1) * pitch // page) * page + _STAGGER
    return Level(rows, columns, pitch, plane)


def weights_of(parameters: TVL1Parameters, level: Level) -> Weights:
    taut = parameters.tau / parameters.theta
    return Weights(
        step=np.float32(parameters.lambda_ * parameters.theta),
        theta_taut=np.float32(parameters.tau),
        taut=np.float32(taut),
        gamma=np.float32(parameters.gamma),
        warps=parameters.warps,
        inner_iterations=parameters.inner_iterations,
        outer_iterations=parameters.outer_iterations,
        median_size=parameters.median_size,
        stop=(parameters.epsilon * taut) ** 2 * level.rows * level.columns,
    )


def _plane(work: NDArray[np.float32], level: Level, plane: int) -> NDArray[np.float32]:
    """One plane of the workspace as [H, W]."""
    start = plane * level.plane
    return work[start : start + level.rows * level.pitch].reshape(level.rows, level.pitch)[:, : level.columns]


def _aligned(elements: int) -> NDArray[np.float32]:
    """Zeros that start at a cache line."""
    raw = np.zeros(elements + LANES, np.float32)
    start = -raw.ctypes.data // raw.itemsize % LANES
    return raw[start : start + elements]
