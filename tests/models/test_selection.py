from dataclasses import replace

import pytest
from moving_squares import SMALL, put_clips, put_store, squares

from models.selection import select_clips

TRAIN = squares(2, split="train")


def select(workspace, streams=("rgb", "flow"), options=SMALL):
    return select_clips(str(workspace), streams=streams, options=options)


def test_clips_come_sorted_with_class_split_and_shape(workspace):
    selection = select(workspace)
    assert selection.labels == ["down", "left", "right"]
    assert [c.clip_id for c in selection.clips] == sorted(c.clip_id for c in selection.clips)
    assert {name: len(clips) for name, clips in selection.by_split.items()} == {
        "train": 12,
        "val": 0,
        "test": 6,
    }
    first = selection.by_split["train"][-1]
    assert (first.label, first.class_index, first.frames, first.size_px) == ("right", 2, 10, (40, 48))
    assert len(first.keys) == 2


def test_clips_that_a_store_has_rejected_are_left_out(tmp_path):
    put_clips(tmp_path, TRAIN)
    put_store(tmp_path, "frames", TRAIN)
    put_store(tmp_path, "flow", TRAIN[1:])
    selection = select(tmp_path)
    assert (len(selection.clips), selection.missing) == (5, 1)
    assert len(select(tmp_path, streams=("rgb",)).clips) == 6


def test_stores_of_different_clips_are_refused(tmp_path):
    put_clips(tmp_path, TRAIN)
    put_store(tmp_path, "frames", TRAIN)
    put_store(tmp_path, "flow", squares(2, split="other"))
    with pytest.raises(ValueError, match=r"of 6 clips with a split, 0 are in all stores .*frames 6, flow 0"):
        select(tmp_path)


@pytest.mark.parametrize(
    ("change", "found"),
    [({"frames": 8}, "frames 10 frames .*flow 8 frames"), ({"width_px": 50}, "of 48 × 40 .*of 50 × 40")],
)
def test_stores_of_different_frames_or_sizes_are_refused(tmp_path, change, found):
    put_clips(tmp_path, TRAIN)
    put_store(tmp_path, "frames", TRAIN)
    put_store(tmp_path, "flow", [replace(TRAIN[0], **change), *TRAIN[1:]])
    with pytest.raises(ValueError, match=f"clip 'train/down-00' differs between stores .*{found}"):
        select(tmp_path)


def test_a_missing_store_says_what_to_run(tmp_path):
    put_clips(tmp_path, TRAIN)
    with pytest.raises(ValueError, match=r"no committed snapshot; run `perfnet run frames`"):
        select(tmp_path)


def test_an_unknown_split_column_names_those_there_are(workspace):
    options = replace(SMALL, data=replace(SMALL.data, split="split_9"))
    with pytest.raises(ValueError, match=r"data\.split: .*'split_9'; split columns: split"):
        select(workspace, options=options)


def test_an_empty_split_is_refused_with_the_counts(workspace):
    with pytest.raises(ValueError, match=r"has no val clip .*train 12, val 0, test 6"):
        select(workspace).require("val", "split")
