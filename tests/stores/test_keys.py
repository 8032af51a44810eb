"""Keys say what should be there: each ingredient changes them, nothing else does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stores import keys

SPEC = {"stage": "frames", "version": 1, "options": {"fps": 25.0}}


def test_keys_are_the_same_for_ever() -> None:
    """Golden values: a change of these makes every store of every user stale."""
    assert keys.digest({"b": 1, "a": [None, "é"]})[:16] == "4803818f4da3b036"
    assert [keys.shard_of(c, 16) for c in ("a", "b", "kick/set1_seq01_001")] == [11, 13, 6]
    assert keys.frames_clip_key(SPEC, "md5:x", 0.0, None)[:16] == "ed6c919acec7b008"


def test_each_ingredient_changes_the_clip_key() -> None:
    base = (SPEC, "md5:x", 0.0, 2.0)
    others = [
        ({**SPEC, "version": 2}, *base[1:]),
        (SPEC, "md5:y", 0.0, 2.0),
        (SPEC, "md5:x", 0.5, 2.0),
        (*base[:3], None),
    ]
    found = {keys.frames_clip_key(*b) for b in [base, *others]}
    assert len(found) == len(others) + 1


def test_canonical_json_refuses_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        keys.digest(float("nan"))


@given(st.lists(st.tuples(st.text(), st.text())))
def test_held_digest_does_not_depend_on_order(clips: list[tuple[str, str]]) -> None:
    assert keys.held_digest(clips) == keys.held_digest(reversed(clips))


@given(st.text(), st.integers(1, 1000), st.integers(1, 8))
def test_shards_split_when_their_number_is_multiplied(clip_id: str, shards: int, factor: int) -> None:
    """Shard j of k·N comes from shard j mod N."""
    assert keys.shard_of(clip_id, shards * factor) % shards == keys.shard_of(clip_id, shards)


def test_keys_of_many_clips_are_digests_of_the_whole_list() -> None:
    spec = {"stage": "frames", "options": {"fps": 25, "größe": None}}
    for content, start, stop in (("md5:x", 0.0, None), ("md5:ÿ", 1.5, 2.0)):
        assert keys.frames_clip_key(spec, content, start, stop) == keys.digest([spec, content, start, stop])


@given(
    content=st.text(st.characters(codec="utf-8")), start=st.floats(0, 1e9), stop=st.none() | st.floats(0, 1e9)
)
def test_clip_keys_are_those_of_canonical_json(content: str, start: float, stop: float | None) -> None:
    assert keys.frames_clip_key({}, content, start, stop) == keys.digest([{}, content, start, stop])
