"""The inner loops of TV-L1 on one pyramid level, as Numba kernels over vectors. docs/flow.md explains them.

All fields of a level are planes of one flat float32 workspace: row y of plane f starts at
f * level.plane + y * level.pitch, and a row ends in at least one spare element. Flow is held times
tau/theta, and so are the derivatives of the image: multiplications of the dual update become additions.

Numba's cache notices a change of this file, not of tvl1_simd.py: touch this file after changing that one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from transforms.numba_cache import compiled, inlined
from transforms.tvl1_median import Level, median
from transforms.tvl1_simd import (
    LANES,
    Floats,
    Vector,
    fields,
    floor,
    fold,
    from_left,
    from_right,
    inverse_root,
    larger,
    load,
    load_four,
    multiply_add,
    reciprocal,
    smaller,
    splat,
    spread,
    store,
    store_interleaved,
    to_int,
    total,
)

IX, IY, RHO, U1, U2, P11, P12, P21, P22, M1, M2, U3, P31, P32 = range(14)
"""Planes: derivatives and constant part of the residual; flow; its dual variables; the median's output;
illumination and its dual variables (only with gamma)."""

BORDER_PX = 4
_TINY = np.float32(1e-30)
_NOTHING = np.float32(0)


class Weights(NamedTuple):
    """The parameters of TV-L1 as the kernels use them."""

    step: np.float32
    theta_taut: np.float32
    taut: np.float32
    gamma: np.float32
    warps: int
    inner_iterations: int
    outer_iterations: int
    median_size: int
    stop: float


@compiled
def resample(
    source_HW: Floats, target_HW: Floats, scale_y: float, scale_x: float, factor: np.float32
) -> None:
    """Bilinear resize as OpenCV's INTER_LINEAR, times `factor`; scales are source px per target px."""
    rows, columns = source_HW.shape
    first = np.empty(target_HW.shape[1], np.int64)
    share = np.empty(target_HW.shape[1], np.float32)
    for x in range(target_HW.shape[1]):
        position = max(np.float32((x + 0.5) * scale_x - 0.5), _NOTHING)
        first[x] = min(int(position), columns - 2)
        share[x] = min(position - np.float32(first[x]), np.float32(1))
    blended = np.empty(columns, np.float32)
    for y in range(target_HW.shape[0]):
        position = max(np.float32((y + 0.5) * scale_y - 0.5), _NOTHING)
        upper = min(int(position), rows - 2)
        lower_share = min(position - np.float32(upper), np.float32(1))
        for x in range(columns):
            above = source_HW[upper, x]
            blended[x] = (above + lower_share * (source_HW[upper + 1, x] - above)) * factor
        for x in range(target_HW.shape[1]):
            left = blended[first[x]]
            target_HW[y, x] = left + share[x] * (blended[first[x] + 1] - left)


@compiled
def interleave(grey_HW: Floats, columns: int, texture: Floats) -> None:
    """Grey value, its x and its y derivative as three of four interleaved fields within a border of zeros.

    Central differences halved, one-sided and halved at the edges, as OpenCV's centeredGradient.
    """
    rows = grey_HW.shape[0]
    pitch = columns + 2 * BORDER_PX + 1
    half = np.float32(0.5)
    for y in range(rows):
        above, below = max(y - 1, 0), min(y + 1, rows - 1)
        start = 4 * ((y + BORDER_PX) * pitch + BORDER_PX)
        for x in range(columns):
            left, right = max(x - 1, 0), min(x + 1, columns - 1)
            texture[start + 4 * x] = grey_HW[y, x]
            texture[start + 4 * x + 1] = half * (grey_HW[y, right] - grey_HW[y, left])
            texture[start + 4 * x + 2] = half * (grey_HW[below, x] - grey_HW[above, x])


@inlined
def _store_cubic(taps: Floats, at: int, t: Vector) -> None:
    """The four bicubic weights (A = -0.75) at the fractions `t`, interleaved."""
    one = splat(np.float32(1))
    a, b, c = splat(np.float32(-0.75)), splat(np.float32(1.25)), splat(np.float32(-2.25))
    rest = one - t
    first = a * t * (rest * rest)
    second = multiply_add(multiply_add(b, t, c), t * t, one)
    third = multiply_add(multiply_add(b, rest, c), rest * rest, one)
    store_interleaved(taps, at, first, second, third, one - first - second - third)


@compiled
def _aim(
    work: Floats, u: int, y: int, level: Level, per_taut: np.float32, taps: Floats, corners: NDArray[np.int32]
) -> None:
    """Where row y looks in the other image: whole pixels to `corners`, bicubic weights to `taps`; x, then y."""
    low, scale = splat(np.float32(-3)), splat(per_taut)
    for axis in range(2):
        high = splat(np.float32((level.rows if axis else level.columns) + 2))
        flow = (u + axis) * level.plane + y * level.pitch
        for x in range(0, level.columns, LANES):
            here = splat(np.float32(y)) if axis else load(taps, 8 * level.pitch + x)
            at = larger(smaller(multiply_add(load(work, flow + x), scale, here), high), low)
            corner = floor(at)
            store(corners, axis * level.pitch + x, to_int(corner))
            _store_cubic(taps, 4 * (axis * level.pitch + x), at - corner)


@compiled
def _fetch(texture: Floats, level: Level, taps: Floats, corners: NDArray[np.int32], samples: Floats) -> None:
    """Bicubic samples of the interleaved fields for one row: blends four rows of taps, then across."""
    pitch = level.pitch
    across = level.columns + 2 * BORDER_PX + 1
    shift = BORDER_PX - 1
    for x in range(level.columns):
        at = 4 * ((np.int64(corners[pitch + x]) + shift) * across + np.int64(corners[x]) + shift)
        down = 4 * (pitch + x)
        rows = load(texture, at) * splat(taps[down])
        for tap in range(1, 4):
            at += 4 * across
            rows = multiply_add(load(texture, at), splat(taps[down + tap]), rows)
        store(samples, 4 * x, fold(rows * spread(load_four(taps, 4 * x))))


@compiled
def warp(
    work: Floats,
    u: int,
    level: Level,
    taut: np.float32,
    grey: Floats,
    texture: Floats,
    taps: Floats,
    corners: NDArray[np.int32],
    samples: Floats,
) -> None:
    """Samples the other image and its derivatives along the flow; fills the planes IX, IY and RHO."""
    vtaut, squared = splat(taut), splat(taut * taut)
    for y in range(level.rows):
        start = y * level.pitch
        _aim(work, u, y, level, np.float32(1) / taut, taps, corners)
        _fetch(texture, level, taps, corners, samples)
        for x in range(0, level.columns, LANES):
            value, dx, dy = fields(samples, 4 * x)
            ix, iy = dx * vtaut, dy * vtaut
            at = start + x
            moved = multiply_add(
                ix, load(work, u * level.plane + at), iy * load(work, (u + 1) * level.plane + at)
            )
            store(work, IX * level.plane + at, ix)
            store(work, IY * level.plane + at, iy)
            store(work, RHO * level.plane + at, (value - load(grey, at)) * squared - moved)


@inlined
def _divergence(
    work: Floats, plane: int, at: int, pitch: int, left: Vector, size: int
) -> tuple[Vector, Vector]:
    """Divergence of the dual field (`plane`, `plane` + 1) at a vector, and its x part, the next one's left."""
    x_part = load(work, plane * size + at)
    y_plane = (plane + 1) * size
    y_part = load(work, y_plane + at) - load(work, y_plane + at - pitch)
    return (x_part - from_left(left, x_part)) + y_part, x_part


@inlined
def _project(work: Floats, plane: int, at: int, size: int, dx: Vector, dy: Vector) -> None:
    """Dual update of the field (`plane`, `plane` + 1) with forward differences dx, dy times tau/theta."""
    one = splat(np.float32(1))
    square = multiply_add(dy, dy, multiply_add(dx, dx, splat(_TINY)))
    shrink = reciprocal(one + square * inverse_root(square))
    x_at, y_at = plane * size + at, (plane + 1) * size + at
    store(work, x_at, (load(work, x_at) + dx) * shrink)
    store(work, y_at, (load(work, y_at) + dy) * shrink)


@inlined
def _primal(
    work: Floats,
    u: int,
    at: int,
    level: Level,
    weights: Weights,
    gamma: np.float32,
    left1: Vector,
    left2: Vector,
    left3: Vector,
) -> tuple[Vector, Vector, Vector, Vector]:
    """Primal update of one vector, in place. Returns its squared change and the dual fields' x parts."""
    size, pitch = level.plane, level.pitch
    limit, theta_taut = splat(weights.step), splat(weights.theta_taut)
    ix, iy = load(work, IX * size + at), load(work, IY * size + at)
    u1, u2 = load(work, u * size + at), load(work, (u + 1) * size + at)
    residual = multiply_add(ix, u1, multiply_add(iy, u2, load(work, RHO * size + at)))
    iz, illumination = splat(gamma * weights.taut), splat(_NOTHING)
    if gamma != 0:
        illumination = load(work, U3 * size + at)
        residual = multiply_add(iz, illumination, residual)
    per_square = reciprocal(multiply_add(ix, ix, multiply_add(iy, iy, splat(_TINY))))
    step = larger(smaller(residual * per_square, limit), splat(-weights.step))
    div1, left1 = _divergence(work, P11, at, pitch, left1, size)
    div2, left2 = _divergence(work, P21, at, pitch, left2, size)
    change1 = theta_taut * div1 - step * ix
    change2 = theta_taut * div2 - step * iy
    store(work, u * size + at, u1 + change1)
    store(work, (u + 1) * size + at, u2 + change2)
    squared = multiply_add(change1, change1, change2 * change2)
    if gamma != 0:
        div3, left3 = _divergence(work, P31, at, pitch, left3, size)
        change3 = theta_taut * div3 - step * iz
        store(work, U3 * size + at, illumination + change3)
        squared = multiply_add(change3, change3, squared)
    return squared, left1, left2, left3


@inlined
def _dual(work: Floats, u: int, at: int, below: int, level: Level, gamma: np.float32) -> None:
    """Dual update of one vector, in place; `below` is where the next row's vector starts."""
    size = level.plane
    for component in range(2):
        field = (u + component) * size
        here = load(work, field + at)
        dx = from_right(here, load(work, field + at + LANES)) - here
        _project(work, P11 + 2 * component, at, size, dx, load(work, field + below) - here)
    if gamma != 0:
        here = load(work, U3 * size + at)
        dx = from_right(here, load(work, U3 * size + at + LANES)) - here
        _project(work, P31, at, size, dx, load(work, U3 * size + below) - here)


@inlined
def _repeat_last(work: Floats, plane: int, y: int, level: Level) -> None:
    """Repeats a row's last element once, so that the forward difference there is zero."""
    last = plane * level.plane + y * level.pitch + level.columns - 1
    work[last + 1] = work[last]


def _row_kernel(plain: bool) -> Callable[..., Any]:
    """A kernel for the primal update of row y and the dual update of row y - 1, which returns the squared change.

    `plain` fixes at compile time what holds for nearly all calls: both rows exist and gamma is 0.
    """

    @compiled
    def update_row(work: Floats, u: int, y: int, level: Level, weights: Weights, mask: Floats) -> np.float32:
        gamma = _NOTHING if plain else weights.gamma
        has_primal, has_dual = plain or y < level.rows, plain or y > 0
        zero = splat(_NOTHING)
        changed, left1, left2, left3 = zero, zero, zero, zero
        at = y * level.pitch
        above = at - level.pitch
        below = at if has_primal else above
        for x in range(0, level.columns, LANES):
            if has_primal:
                squared, left1, left2, left3 = _primal(
                    work, u, at + x, level, weights, gamma, left1, left2, left3
                )
                if x + LANES >= level.columns:
                    squared = squared * load(mask, 0)
                changed = changed + squared
            if has_dual:
                _dual(work, u, above + x, below + x, level, gamma)
        if has_primal:
            _repeat_last(work, u, y, level)
            _repeat_last(work, u + 1, y, level)
            if gamma != 0:
                _repeat_last(work, U3, y, level)
        return total(changed)

    return update_row


_update_any_row = _row_kernel(plain=False)
update_plain_row = _row_kernel(plain=True)


@compiled
def iterate(work: Floats, u: int, level: Level, weights: Weights, mask: Floats) -> float:
    """One iteration of the whole level, the dual update one row behind the primal.

    Returns the summed squared change of the flow, times (tau/theta) squared.
    """
    error = 0.0
    for y in range(level.rows + 1):
        if 0 < y < level.rows and weights.gamma == 0:
            error += update_plain_row(work, u, y, level, weights, mask)
        else:
            error += _update_any_row(work, u, y, level, weights, mask)
    return error


@compiled
def solve(
    work: Floats,
    level: Level,
    weights: Weights,
    grey: Floats,
    texture: Floats,
    scratch: Floats,
    corners: NDArray[np.int32],
    mask: Floats,
) -> int:
    """Flow of one level from that in the planes U1 and U2; returns the plane that holds the result's x part.

    `scratch` is for 13 rows (8 of bicubic weights, column numbers, 4 of samples) and 5 rows, 2 vectors wider,
    for sorting; `corners` is for 2 rows.
    """
    for x in range(level.pitch):
        scratch[8 * level.pitch + x] = x
    samples = scratch[9 * level.pitch : 13 * level.pitch]
    samples[:] = 0
    sorting = scratch[13 * level.pitch :]
    u, other = U1, M1
    for _ in range(weights.warps):
        warp(work, u, level, weights.taut, grey, texture, scratch, corners, samples)
        error = np.inf
        outer = 0
        while error > weights.stop and outer < weights.outer_iterations:
            if weights.median_size > 1:
                for component in range(2):
                    median(work, u + component, other + component, level, weights.median_size, sorting)
                u, other = other, u
            inner = 0
            while error > weights.stop and inner < weights.inner_iterations:
                error = iterate(work, u, level, weights, mask)
                inner += 1
            outer += 1
    return u
