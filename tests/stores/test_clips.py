"""The clips table refuses what would be lost or confused later."""

from pathlib import Path

import pytest

from stores.clips import make_clips, read_clips, write_clips


def row(clip_id: str = "a", **more: object) -> dict[str, object]:
    return {"clip_id": clip_id, "uri": f"/v/{clip_id}.mp4", "label": "x", **more}


def test_round_trip_is_sorted(tmp_path: Path) -> None:
    clips = make_clips([row("b", start_s=1.5, stop_s=2.0, group="g", split="test"), row("a", split="train")])
    assert list(clips.clip_ids) == ["a", "b"]
    write_clips(str(tmp_path), clips)
    found = read_clips(str(tmp_path))
    assert found == clips
    assert found.split("split") == {"a": "train", "b": "test"}
    assert found.stops_s == [None, 2.0]


def test_labels_are_sorted() -> None:
    assert make_clips([row("a", label="z"), row("b", label="é"), row("c", label="A")]).labels_sorted == [
        "A",
        "z",
        "é",
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(), row()], "duplicate clip_id 'a'"),
        ([row("a\nb")], r"clip 'a\\nb': clip_id holds a control"),
        ([row("a\x1b[2J")], "control"),
        ([row(label="")], "label must have 1 to"),
        ([row(label="x\ty")], "label holds a control"),
        ([row("")], "clip_id must have"),
        ([row("x" * 2000)], "1 to 1024 characters"),
        ([row(start_s=-1.0)], "0 <= start_s < stop_s"),
        ([row(start_s=3.0, stop_s=3.0)], "0 <= start_s < stop_s"),
        ([row(start_s=float("nan"))], "0 <= start_s < stop_s"),
        ([row(split="training")], "split is 'training'; expected train, val, test"),
        ([row(uri="http://x/a.mp4")], "only local paths and gs://"),
        ([], "empty"),
    ],
)
def test_refusals(rows: list[dict[str, object]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_clips(rows)


@pytest.mark.parametrize("clip_id", ["../../etc/passwd", "走る/クリップ", "a b'c\"d", "-rf", "..", "C:\\x"])
def test_awkward_names_are_only_names(clip_id: str, tmp_path: Path) -> None:
    write_clips(str(tmp_path), make_clips([{**row(), "clip_id": clip_id}]))
    assert read_clips(str(tmp_path)).clip_ids == [clip_id]


def test_missing_table_and_column_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="make it with `perfnet clips folder`"):
        read_clips(str(tmp_path))
    (tmp_path / "clips.parquet").write_bytes(b"not parquet")
    with pytest.raises(ValueError, match="is not a Parquet file"):
        read_clips(str(tmp_path))
    with pytest.raises(ValueError, match="no column 'split_3'; split columns: split_1"):
        make_clips([row(split_1="train")]).split("split_3")
