"""Importers: names, groups and splits, and what they refuse."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config import ClipsOptions
from pipelines.importers import assign_splits, clips_from_csv, clips_from_folder

GROUPED = ClipsOptions(group_pattern=r"(s\d+)_", test_share=0.4)


def videos(folder: Path, *names: str) -> str:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return str(folder)


def test_folder_names_classes_groups_and_clips(tmp_path: Path) -> None:
    names = [f"{label}/s{g}_{i}.mp4" for label in ("kick", "hug") for g in range(5) for i in range(2)]
    clips = clips_from_folder(videos(tmp_path, *names, "kick/notes.txt", "hug/.hidden.mp4"), GROUPED)
    assert len(clips) == 20
    assert clips.labels_sorted == ["hug", "kick"]
    assert clips.clip_ids[0] == "hug/s0_0"
    assert clips.uris[0] == str(tmp_path / "hug/s0_0.mp4")
    of_group: dict[str, set[str]] = {}
    for group, split in zip(clips.groups, clips.splits["split"], strict=True):
        of_group.setdefault(group, set()).add(split)
    assert all(len(splits) == 1 for splits in of_group.values())
    assert clips.splits["split"].count("test") == 8


def test_test_pattern_picks_groups(tmp_path: Path) -> None:
    folder = videos(tmp_path, "a/s1_0.mp4", "a/s2_0.mp4", "b/s12_0.mp4")
    clips = clips_from_folder(folder, ClipsOptions(group_pattern=r"(s\d+)_", test_pattern="[2]$"))
    assert clips.split("split") == {"a/s1_0": "train", "a/s2_0": "test", "b/s12_0": "test"}


def test_twins_keep_their_suffix(tmp_path: Path) -> None:
    clips = clips_from_folder(videos(tmp_path, "a/x.mp4", "a/x.avi", "a/y.mp4"), ClipsOptions())
    assert list(clips.clip_ids) == ["a/x.avi", "a/x.mp4", "a/y"]


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ([], ClipsOptions(), "holds no videos"),
        (["a/x.mp4"], GROUPED, r"clips.group_pattern: .* is not found in a/x.mp4"),
        (["a/x\ny.mp4"], ClipsOptions(), r"a/x\\ny.mp4: the name holds a control character"),
        (["a/x\udcff.mp4"], ClipsOptions(), r"not valid text; rename the file"),
    ],
)
def test_folder_refusals(tmp_path: Path, names: list[str], options: ClipsOptions, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        clips_from_folder(videos(tmp_path, *names), options)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere is not a folder"):
        clips_from_folder(str(tmp_path / "nowhere"), ClipsOptions())


def test_non_ascii_names_work(tmp_path: Path) -> None:
    clips = clips_from_folder(videos(tmp_path, "走る/クリップ 1.mp4"), ClipsOptions())
    assert (clips.clip_ids[0], clips.labels[0]) == ("走る/クリップ 1", "走る")


@given(
    st.lists(st.integers(1, 9), min_size=4, max_size=30),
    st.floats(0, 0.6),
    st.floats(0, 0.3),
)
def test_groups_are_never_split(sizes: list[int], test_share: float, val_share: float) -> None:
    rows = [
        {"clip_id": f"{g}/{i}", "label": "a", "group": f"g{g}"} for g, n in enumerate(sizes) for i in range(n)
    ]
    found = assign_splits(rows, ClipsOptions(test_share=test_share, val_share=val_share))
    splits: dict[str, set[str]] = {}
    for row in found:
        splits.setdefault(row["group"], set()).add(row["split"])
    assert all(len(s) == 1 for s in splits.values())
    share = sum(r["split"] == "test" for r in found) / len(found)
    assert abs(share - test_share) <= max(sizes) / len(rows)


def test_without_groups_each_class_is_split_alike() -> None:
    rows = [{"clip_id": f"{c}{i}", "label": c, "group": ""} for c in "ab" for i in range(10)]
    found = assign_splits(rows, ClipsOptions(test_share=0.3))
    assert [sum(r["split"] == "test" and r["label"] == c for r in found) for c in "ab"] == [3, 3]


@given(st.lists(st.integers(1, 9), min_size=5, max_size=30), st.integers(2, 5), st.floats(0, 0.4))
def test_every_clip_is_test_in_exactly_one_fold_and_groups_stay_whole(
    sizes: list[int], folds: int, val_share: float
) -> None:
    rows = [
        {"clip_id": f"{g}/{i}", "label": "a", "group": f"g{g}"} for g, n in enumerate(sizes) for i in range(n)
    ]
    found = assign_splits(rows, ClipsOptions(folds=folds, val_share=val_share))
    columns = [f"split_{k}" for k in range(1, folds + 1)]
    assert all([row[c] for c in columns].count("test") == 1 for row in found)
    assert all({row[c] for c in columns} <= {"train", "val", "test"} for row in found)
    for column in columns:
        of_group = {(row["group"], row[column]) for row in found}
        assert len(of_group) == len(sizes)
    counts = [sum(row[c] == "test" for row in found) for c in columns]
    assert max(counts) - min(counts) <= max(sizes)


def test_folds_without_groups_hold_the_same_number_of_each_class() -> None:
    rows = [{"clip_id": f"{c}{i}", "label": c, "group": ""} for c in "abc" for i in range(10)]
    found = assign_splits(rows, ClipsOptions(folds=5))
    for k in range(1, 6):
        assert [sum(r[f"split_{k}"] == "test" and r["label"] == c for r in found) for c in "abc"] == [2, 2, 2]
    with pytest.raises(ValueError, match=r"clips.folds: found 11, but there are only 10 groups"):
        assign_splits(rows, ClipsOptions(folds=11))


def csv_of(tmp_path: Path, text: str) -> str:
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    return str(tmp_path / "labels.csv")


def test_csv_reads_segments_splits_and_addresses(tmp_path: Path) -> None:
    text = "\ufeffclip_id,path,label,start_s,stop_s,split_1,split_2\na,v/a.mp4,run,1.5,4,train,test\nb,gs://x/b.mp4,sit,,,test,\n"
    clips = clips_from_csv(csv_of(tmp_path, text))
    assert clips.uris == [str(tmp_path / "v/a.mp4"), "gs://x/b.mp4"]
    assert (clips.starts_s, clips.stops_s) == ([1.5, 0.0], [4.0, None])
    assert clips.split("split_2") == {"a": "test", "b": ""}


def test_csv_addresses_on_an_object_store(tmp_path: Path) -> None:
    text = "uri,label\na b/x.mp4,l\n./y.mp4,l\n/local/z.mp4,l\ngs://other/w.mp4,l\n"
    clips = clips_from_csv(csv_of(tmp_path, text), videos="gs://bucket/videos/")
    bucket = ["gs://bucket/videos/a b/x.mp4", "gs://bucket/videos/y.mp4"]
    assert sorted(clips.uris) == sorted([*bucket, "/local/z.mp4", "gs://other/w.mp4"])
    with pytest.raises(ValueError, match="would leave"):
        clips_from_csv(csv_of(tmp_path, "uri,label\n../x.mp4,l\n"), videos="gs://bucket/videos")


def test_csv_names_clips_by_their_files(tmp_path: Path) -> None:
    clips = clips_from_csv(csv_of(tmp_path, "uri,label\nv/a.mp4,run\n"), videos="/data")
    assert (clips.clip_ids, clips.uris) == (["v/a"], ["/data/v/a.mp4"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clip_id,uri,label\na,x.mp4,l\na,y.mp4,l\n", "duplicate clip_id 'a'"),
        ("name,label\nx,l\n", "needs the columns uri and label, found name, label"),
        ("", "needs the columns uri and label, found nothing"),
        ("uri,label\n", "holds no clips"),
        ("uri,label\nx.mp4\n", "line 2: the number of fields differs"),
        ("uri,label,start_s\nx.mp4,l,soon\n", "line 2: start_s is 'soon', expected seconds"),
        ("uri,label\n,l\n", "line 2: uri is empty"),
        ('clip_id,uri,label\n"a\nb",x.mp4,l\n', r"clip 'a\\nb': clip_id holds a control"),
        ("uri,label,split\nx.mp4,l,valid\n", "split is 'valid'"),
        ("uri,label\nhttp://x/y.mp4,l\n", "only local paths and gs://"),
    ],
)
def test_csv_refusals(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        clips_from_csv(csv_of(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_csv_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        clips_from_csv(str(tmp_path / "x.csv"))
    with pytest.raises(ValueError, match="is not a file"):
        clips_from_csv(str(tmp_path / "none.csv"))
    assert os.listdir(tmp_path) == ["x.csv"]
