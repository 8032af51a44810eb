"""What work costs, at rates that are known."""

from stores.cost import Estimate, Rate, Work, estimate, measured_rate, work_after, work_of
from stores.plan import ShardTask, TaskClip
from stores.rejections import Rejection
from stores.summaries import ClipEntry, ShardReference, Source


def reference(clips: int, frames: int, size_bytes: int, milliseconds: int) -> ShardReference:
    return ShardReference(0, "k", "s", "d", "x", size_bytes, clips, frames, 0, 0, 0, "h", milliseconds)


def test_rates_are_means_over_all_shards() -> None:
    shards = (reference(2, 300, 3_000, 600), reference(1, 100, 5_000, 1_000))
    rate = measured_rate(shards)
    assert rate == Rate(milliseconds_per_frame=4.0, bytes_per_frame=20.0, frames_per_clip=400 / 3)
    assert measured_rate([]) is None
    assert measured_rate([reference(0, 0, 0, 0)]) is None
    untimed = measured_rate([reference(1, 10, 10, 0)])
    assert untimed == Rate(None, 1.0, 10.0)


def test_only_what_is_computed_costs() -> None:
    entry = ClipEntry("a", "k", 250, 0, 250, 4, 3)
    source = Source("data", entry)
    task = ShardTask(
        0,
        "k",
        (
            TaskClip("a", "k", inputs=(source,)),
            TaskClip("b", "k", inputs=(source,), copy=source),
            TaskClip("c", "k", inputs=(source,), sealed=Rejection("c", "k", "data", "damaged", "")),
            TaskClip("d", "k", video={}),
        ),
    )
    work = work_of([task])
    assert work == Work({"a": 250, "d": None}, frozenset("b"))
    rate = Rate(36.0, 1_000.0, 150.0)
    assert estimate(work, rate) == Estimate(2, 1, 400, 400 * 36 / 3_600_000, 400_000)


def test_what_was_never_measured_is_not_told() -> None:
    work = Work({"a": None, "b": 100})
    assert estimate(work, None) == Estimate(2, 0, None, None, None)
    assert estimate(work, None, frames_per_clip=50.0) == Estimate(2, 0, 150, None, None)
    assert estimate(work, Rate(None, 10.0, 50.0)) == Estimate(2, 0, 150, None, 1_500)
    assert estimate(Work({}), None) == Estimate(0, 0, 0, None, None)


def test_changes_flow_downstream() -> None:
    upstream = [Work({"new": None}, frozenset({"old", "x"})), Work({"new": 30})]
    assert work_after(Work({"x": 7}), upstream, []) == Work({"new": 30, "x": 7}, frozenset({"old"}))
    assert work_after(None, upstream, ["new", "old"]) == Work({"new": 30, "old": None})
    assert work_after(Work({"x": 7}), [], []) == Work({"x": 7})
