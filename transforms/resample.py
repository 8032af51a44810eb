"""From pictures at any times to pictures on a regular grid: which picture is nearest to each grid point.

    pictures   a        b  c                 d     |
               |--------|--|-----------------|-----|      lengths; the last one ends the clip
    grid       0     1     2     3     4     5     6
    chosen     a     b     c     c     d     d

Exact: times are fractions of a second, ties go to the earlier picture.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, TypeVar

Picture = TypeVar("Picture")

# Containers round timestamps to as little as a millisecond and people write three decimals: a picture this
# close before a bound counts as lying on it. Both bounds shift alike, so adjoining segments stay disjoint.
BOUND_TOLERANCE_S = Fraction(1, 1000)


@dataclass(frozen=True)
class TimedPicture(Generic[Picture]):
    """A picture with its place in time.

    Attributes:
        time_s: seconds since the video's first picture.
        length_s: seconds for which it is shown.
    """

    time_s: Fraction
    length_s: Fraction
    picture: Picture


def resample(
    pictures: Iterable[TimedPicture[Picture]], *, fps: Fraction, start_s: Fraction, stop_s: Fraction | None
) -> Iterator[tuple[int, TimedPicture[Picture]]]:
    """Yields (index, nearest picture) for the grid points `start_s + index / fps` of a clip.

    Only pictures inside [start_s, stop_s) take part. The clip ends at `stop_s` or with the last picture,
    whatever comes first, and has `round((end - start_s) * fps)` points, halves rounded up. Streams: holds two
    pictures and reads one ahead.

    Args:
        pictures: in the order of strictly growing times.
        stop_s: None means until the last picture ends.
    """
    half_s = 1 / (2 * fps)
    index = 0
    point_s = start_s
    held: TimedPicture[Picture] | None = None  # nearest to `point_s`, but the clip may end before it counts
    previous: TimedPicture[Picture] | None = None
    for current in pictures:
        if current.time_s < start_s - BOUND_TOLERANCE_S:
            continue
        if stop_s is not None and current.time_s >= stop_s - BOUND_TOLERANCE_S:
            end_s = stop_s
            break
        if previous is not None:
            middle_s = (previous.time_s + current.time_s) / 2
            while point_s <= middle_s and point_s + half_s <= current.time_s:
                yield index, held or previous
                held, index = None, index + 1
                point_s = start_s + index / fps
            if point_s <= middle_s:
                held = held or previous
        previous = current
        end_s = current.time_s + current.length_s
    if previous is None:
        return
    if stop_s is not None:
        end_s = min(end_s, stop_s)
    while index + Fraction(1, 2) <= (end_s - start_s) * fps:
        yield index, held or previous
        held, index = None, index + 1
