from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from transforms.resample import BOUND_TOLERANCE_S, TimedPicture, resample

FPS = Fraction(25)


def timed(times_ms, last_ms=40):
    ends = [*times_ms[1:], times_ms[-1] + last_ms] if times_ms else []
    return [
        TimedPicture(Fraction(time, 1000), Fraction(end - time, 1000), number)
        for number, (time, end) in enumerate(zip(times_ms, ends, strict=True))
    ]


def chosen(pictures, *, fps=FPS, start_s=Fraction(0), stop_s=None):
    result = list(resample(iter(pictures), fps=fps, start_s=start_s, stop_s=stop_s))
    assert [index for index, _ in result] == list(range(len(result)))
    return [picture.picture for _, picture in result]


def naive(pictures, *, fps, start_s, stop_s):
    """The same from the definition, with the whole clip in memory."""
    low = start_s - BOUND_TOLERANCE_S
    high = None if stop_s is None else stop_s - BOUND_TOLERANCE_S
    inside = [p for p in pictures if p.time_s >= low and (high is None or p.time_s < high)]
    if not inside:
        return []
    end_s = inside[-1].time_s + inside[-1].length_s
    if stop_s is not None:
        goes_on = any(p.time_s >= high for p in pictures)
        end_s = stop_s if goes_on else min(stop_s, end_s)
    count = max(0, int((end_s - start_s) * fps + Fraction(1, 2)))
    points = [start_s + index / fps for index in range(count)]
    return [min(inside, key=lambda p: (abs(p.time_s - point), p.time_s)).picture for point in points]


def test_same_rate_keeps_every_picture_once():
    assert chosen(timed([0, 40, 80, 120])) == [0, 1, 2, 3]


def test_half_the_rate_doubles_and_twice_the_rate_halves():
    assert chosen(timed([0, 80, 160], last_ms=80)) == [0, 0, 1, 1, 2, 2]  # ties go to the earlier picture
    assert chosen(timed([0, 20, 40, 60, 80, 100], last_ms=20)) == [0, 2, 4]


def test_a_gap_is_filled_with_the_nearest_picture():
    assert chosen(timed([0, 40, 200, 240])) == [0, 1, 1, 1, 2, 2, 3]


def test_count_is_rounded_with_halves_up():
    assert len(chosen(timed([0, 20], last_ms=40))) == 2  # 60 ms are 1.5 frames
    assert len(chosen(timed([0, 20], last_ms=39))) == 1
    assert chosen(timed([0], last_ms=19)) == []


def test_a_picture_just_before_a_bound_lies_on_it():
    pictures = timed([0, 33, 66, 100, 133, 166])
    assert chosen(pictures, start_s=Fraction("0.0333"), stop_s=Fraction("0.1333")) == [1, 2, 3]
    assert chosen(pictures, start_s=Fraction("0.1333"), stop_s=Fraction("0.2")) == [4, 5]


def test_reads_one_picture_past_the_segment_and_no_more():
    read = []

    def pictures():
        for picture in timed(list(range(0, 4000, 40))):
            read.append(picture.picture)
            yield picture

    assert chosen(pictures(), stop_s=Fraction(1)) == list(range(25))
    assert read == list(range(26))


def test_a_huge_gap_is_streamed():
    grid = resample(iter(timed([0, 10**12])), fps=FPS, start_s=Fraction(0), stop_s=None)
    assert [next(grid)[0] for _ in range(1000)] == list(range(1000))


@given(
    steps_ms=st.lists(st.integers(1, 200), min_size=0, max_size=30),
    last_ms=st.integers(0, 200),
    fps=st.sampled_from([Fraction(25), Fraction(30000, 1001), Fraction(1), Fraction(240)]),
    start_ms=st.integers(0, 1500),
    length_ms=st.one_of(st.none(), st.integers(-10, 1500)),
)
def test_equals_the_definition(steps_ms, last_ms, fps, start_ms, length_ms):
    times_ms = [sum(steps_ms[:n]) for n in range(len(steps_ms) + 1)]
    start_s = Fraction(start_ms, 1000)
    stop_s = None if length_ms is None else start_s + Fraction(length_ms, 1000)
    pictures = timed(times_ms, last_ms)
    expected = naive(pictures, fps=fps, start_s=start_s, stop_s=stop_s)
    assert chosen(pictures, fps=fps, start_s=start_s, stop_s=stop_s) == expected
