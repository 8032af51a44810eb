"""Median filters of 3 x 3 and 5 x 5 on vectors, by sorting networks. Edges are repeated, as in OpenCV."""

from typing import NamedTuple

from transforms.numba_cache import compiled
from transforms.tvl1_simd import LANES, Floats, Vector, larger, load, smaller, store


class Level(NamedTuple):
    """Geometry of one pyramid level in the workspace."""

    rows: int
    columns: int
    pitch: int
    plane: int


@compiled
def _sort2(a: Vector, b: Vector) -> tuple[Vector, Vector]:
    return smaller(a, b), larger(a, b)


@compiled
def _sort5(a: Vector, b: Vector, c: Vector, d: Vector, e: Vector) -> tuple[Vector, ...]:
    a, b = _sort2(a, b)
    d, e = _sort2(d, e)
    c, e = _sort2(c, e)
    c, d = _sort2(c, d)
    b, e = _sort2(b, e)
    a, d = _sort2(a, d)
    a, c = _sort2(a, c)
    b, d = _sort2(b, d)
    b, c = _sort2(b, c)
    return a, b, c, d, e


@compiled
def _largest2(a: Vector, b: Vector, c: Vector, d: Vector, e: Vector) -> tuple[Vector, Vector]:
    a, e = _sort2(a, e)
    d, e = _sort2(d, e)
    c, e = _sort2(c, e)
    a, d = _sort2(a, d)
    b, d = _sort2(b, d)
    d, e = _sort2(d, e)
    c, d = _sort2(c, d)
    return d, e


@compiled
def _largest3(a: Vector, b: Vector, c: Vector, d: Vector, e: Vector) -> tuple[Vector, Vector, Vector]:
    b, e = _sort2(b, e)
    b, c = _sort2(b, c)
    a, e = _sort2(a, e)
    c, d = _sort2(c, d)
    a, c = _sort2(a, c)
    d, e = _sort2(d, e)
    c, d = _sort2(c, d)
    b, c = _sort2(b, c)
    return c, d, e


@compiled
def _smallest2(a: Vector, b: Vector, c: Vector, d: Vector, e: Vector) -> tuple[Vector, Vector]:
    a, e = _sort2(a, e)
    a, b = _sort2(a, b)
    a, c = _sort2(a, c)
    b, e = _sort2(b, e)
    b, d = _sort2(b, d)
    a, b = _sort2(a, b)
    b, c = _sort2(b, c)
    return a, b


@compiled
def _smallest3(a: Vector, b: Vector, c: Vector, d: Vector, e: Vector) -> tuple[Vector, Vector, Vector]:
    a, d = _sort2(a, d)
    c, d = _sort2(c, d)
    a, e = _sort2(a, e)
    b, c = _sort2(b, c)
    c, e = _sort2(c, e)
    a, b = _sort2(a, b)
    b, c = _sort2(b, c)
    c, d = _sort2(c, d)
    return a, b, c


@compiled
def _seventh(
    a3: Vector,
    a4: Vector,
    b2: Vector,
    b3: Vector,
    b4: Vector,
    c1: Vector,
    c2: Vector,
    c3: Vector,
    d0: Vector,
    d1: Vector,
    d2: Vector,
    e0: Vector,
    e1: Vector,
) -> Vector:
    """Median of the 13 candidates of a 5 x 5 block whose rows and columns are sorted."""
    a4, e0 = _sort2(a4, e0)
    a3, d0 = _sort2(a3, d0)
    b4, e1 = _sort2(b4, e1)
    b3, d1 = _sort2(b3, d1)
    a4, d0 = _sort2(a4, d0)
    b4, e0 = _sort2(b4, e0)
    c1, b2 = _sort2(c1, b2)
    d0, b3 = _sort2(d0, b3)
    c3, d2 = _sort2(c3, d2)
    c3, e0 = _sort2(c3, e0)
    d1, b4 = _sort2(d1, b4)
    d1, c2 = _sort2(d1, c2)
    b2, b3 = _sort2(b2, b3)
    c3, c2 = _sort2(c3, c2)
    d1, a4 = _sort2(d1, a4)
    b3, c3 = _sort2(b3, c3)
    a4, b3 = _sort2(a4, b3)
    return b3


@compiled
def _rank(columns: Floats, at: int) -> tuple[Vector, ...]:
    """Five neighbouring columns' elements of one rank."""
    return (
        load(columns, at),
        load(columns, at + 1),
        load(columns, at + 2),
        load(columns, at + 3),
        load(columns, at + 4),
    )


@compiled
def _median25(columns: Floats, at: int, pitch: int) -> Vector:
    """Median of 5 x 5 about each lane, from columns sorted downwards: sort across, then pick among 13.

    The other 12 have certainly 13 elements above or below them.
    """
    at -= 2
    a3, a4 = _largest2(*_rank(columns, at))
    b2, b3, b4 = _largest3(*_rank(columns, at + pitch))
    _, c1, c2, c3, _ = _sort5(*_rank(columns, at + 2 * pitch))
    d0, d1, d2 = _smallest3(*_rank(columns, at + 3 * pitch))
    e0, e1 = _smallest2(*_rank(columns, at + 4 * pitch))
    return _seventh(a3, a4, b2, b3, b4, c1, c2, c3, d0, d1, d2, e0, e1)


@compiled
def _middle(a: Vector, b: Vector, c: Vector) -> Vector:
    return larger(smaller(a, b), smaller(larger(a, b), c))


@compiled
def _median9(columns: Floats, at: int, pitch: int) -> Vector:
    """Median of 3 x 3 about each lane, from columns sorted downwards (Paeth's: middle of three extremes)."""
    low = larger(larger(load(columns, at - 1), load(columns, at)), load(columns, at + 1))
    at += pitch
    middle = _middle(load(columns, at - 1), load(columns, at), load(columns, at + 1))
    at += pitch
    high = smaller(smaller(load(columns, at - 1), load(columns, at)), load(columns, at + 1))
    return _middle(low, middle, high)


@compiled
def _sort_columns(work: Floats, plane: int, y: int, level: Level, size: int, columns: Floats) -> None:
    """Sorts the `size` rows about row y downwards, vector by vector, into `columns` after one spare vector."""
    start = plane * level.plane
    last = level.rows - 1
    row0 = start + max(y - size // 2, 0) * level.pitch
    row1 = start + max(y - size // 2 + 1, 0) * level.pitch
    row2 = start + min(y - size // 2 + 2, last) * level.pitch
    row3 = start + min(y + 1, last) * level.pitch
    row4 = start + min(y + 2, last) * level.pitch
    pitch = level.pitch + 2 * LANES
    for x in range(0, level.columns, LANES):
        at = LANES + x
        a, b, c = load(work, row0 + x), load(work, row1 + x), load(work, row2 + x)
        if size == 5:
            a, b, c, d, e = _sort5(a, b, c, load(work, row3 + x), load(work, row4 + x))
            store(columns, at + 3 * pitch, d)
            store(columns, at + 4 * pitch, e)
        else:
            a, b = _sort2(a, b)
            b, c = _sort2(b, c)
            a, b = _sort2(a, b)
        store(columns, at, a)
        store(columns, at + pitch, b)
        store(columns, at + 2 * pitch, c)


@compiled
def median(work: Floats, source: int, target: int, level: Level, size: int, columns: Floats) -> None:
    """Median filter of side `size` (3 or 5) from one plane of the workspace to another.

    `columns` is scratch for `size` rows of level.pitch + 2 LANES elements.
    """
    pitch = level.pitch + 2 * LANES
    for y in range(level.rows):
        _sort_columns(work, source, y, level, size, columns)
        for rank in range(size):
            first, last = rank * pitch + LANES, rank * pitch + LANES + level.columns - 1
            columns[first - 1] = columns[first - 2] = columns[first]
            columns[last + 1] = columns[last + 2] = columns[last]
        at = target * level.plane + y * level.pitch
        for x in range(0, level.columns, LANES):
            if size == 5:
                store(work, at + x, _median25(columns, LANES + x, pitch))
            else:
                store(work, at + x, _median9(columns, LANES + x, pitch))
