"""Importers of known data sets, on annotation files generated in the official formats."""

import csv
import os
from pathlib import Path

import pytest

from pipelines import cli
from pipelines.importers_kinetics import clips_from_kinetics
from pipelines.importers_official import clips_from_hmdb51, clips_from_ucf101
from stores.clips import read_clips


def put(folder: Path, *names: str) -> str:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return str(folder)


def text(path: Path, *lines: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return str(path)


K400 = "label,youtube_id,time_start,time_end,split,is_cc"
K600 = "label,youtube_id,time_start,time_end,split"


def test_kinetics_in_the_layouts_of_its_three_editions(tmp_path: Path) -> None:
    videos = put(
        tmp_path / "videos",
        "abseiling/-abc_12-XYZ_000004_000014.mp4",  # folders of classes
        "bbbbbbbbbbb_000120_000130.mp4",  # none
        "val/doing nails/ccccccccccc_000000_000010.mkv",
    )
    train = text(
        tmp_path / "train.csv", K400, "abseiling,-abc_12-XYZ,4,14,train,0", "gone,ddddddddddd,1,11,train,1"
    )
    val = text(
        tmp_path / "k600_val.csv",
        K600,
        '"doing nails",ccccccccccc,0,10,validate',
        "abseiling,bbbbbbbbbbb,120.0,130.0,val",
    )
    found = clips_from_kinetics([train, val], videos=videos)
    clips = found.clips
    assert list(clips.clip_ids) == [
        "-abc_12-XYZ_000004_000014",
        "bbbbbbbbbbb_000120_000130",
        "ccccccccccc_000000_000010",
    ]
    assert clips.labels == ["abseiling", "abseiling", "doing nails"]
    assert clips.uris[0] == str(tmp_path / "videos/abseiling/-abc_12-XYZ_000004_000014.mp4")
    assert (clips.starts_s, clips.stops_s) == ([0.0] * 3, [None] * 3)
    assert clips.groups == ["-abc_12-XYZ", "bbbbbbbbbbb", "ccccccccccc"]
    assert clips.splits == {"split": ["train", "test", "test"], "split_official": ["train", "val", "val"]}
    assert [(row.clip_id, row.reason) for row in found.left_out] == [
        ("ddddddddddd_000001_000011", "no video")
    ]


def test_kinetics_test_files_without_labels_are_counted_not_fatal(tmp_path: Path) -> None:
    videos = put(tmp_path / "v", "aaaaaaaaaaa_000001_000011.mp4", "bbbbbbbbbbb_000001_000011.mp4")
    train = text(tmp_path / "train.csv", K600, "run,aaaaaaaaaaa,1,11,train")
    test = text(tmp_path / "test.csv", "youtube_id,time_start,time_end,split", "bbbbbbbbbbb,1,11,test")
    found = clips_from_kinetics([train, test], videos=videos)
    assert list(found.clips.clip_ids) == ["aaaaaaaaaaa_000001_000011"]
    assert [(row.clip_id, row.reason) for row in found.left_out] == [
        ("bbbbbbbbbbb_000001_000011", "no label")
    ]


def test_kinetics_test_clips_judge_only_where_nothing_else_does(tmp_path: Path) -> None:
    names = [f"{c * 11}_000001_000011.mp4" for c in "abc"]
    videos = put(tmp_path / "v", *names)
    rows = [f"run,{c * 11},1,11,{split}" for c, split in zip("abc", ("train", "val", "test"), strict=True)]
    everything = clips_from_kinetics([text(tmp_path / "all.csv", K600, *rows)], videos=videos).clips
    assert everything.splits["split"] == ["train", "test", ""]
    without_val = clips_from_kinetics(
        [text(tmp_path / "two.csv", K600, rows[0], rows[2])], videos=videos
    ).clips
    assert without_val.splits["split"] == ["train", "test"]


def test_kinetics_takes_the_split_from_the_name_of_the_file(tmp_path: Path) -> None:
    videos = put(tmp_path / "v", "aaaaaaaaaaa_000001_000011.mp4")
    path = text(
        tmp_path / "kinetics_700_train.csv", "label,youtube_id,time_start,time_end", "run,aaaaaaaaaaa,1,11"
    )
    assert clips_from_kinetics([path], videos=videos).clips.splits["split"] == ["train"]


def test_kinetics_prefers_the_folder_of_the_class_and_the_first_row(tmp_path: Path) -> None:
    name = "aaaaaaaaaaa_000001_000011.mp4"
    videos = put(tmp_path / "v", f"a/{name}", f"run/{name}")
    path = text(
        tmp_path / "c.csv",
        K600,
        "run,aaaaaaaaaaa,1,11,train",
        "sit,aaaaaaaaaaa,1,11,val",
        "sit,#NAME?,1,11,val",
    )
    found = clips_from_kinetics([path], videos=videos)
    assert found.clips.uris == [str(tmp_path / "v" / "run" / name)]
    assert [row.reason for row in found.left_out] == ["named by an earlier row", "youtube_id is none"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["label,time_start,time_end", "a,1,2"],
            "c.csv has no column youtube_id; found label, time_start, time_end",
        ),
        ([K600, "run,aaaaaaaaaaa,soon,11,train"], "line 2: time_start is 'soon', expected seconds"),
        ([K600, "run,aaaaaaaaaaa,12,11,train"], "line 2: time_end 11 is not after time_start 12"),
        ([K600, "run,aaaaaaaaaaa,1,11,tr\x1bain"], r"split is 'tr\\x1bain', expected train, val"),
        ([K600, "run,aaaaaaaaaaa,1,11,"], "no split, and the file's name does not say"),
        (
            [K600, "run,aaaaaaaaaaa,1,11,train"],
            "holds none of the 1 labelled clips; expected aaaaaaaaaaa_000001_000011.mp4",
        ),
        ([K600, "run,aaaaaaaaaaa,inf,11,train"], "expected seconds"),
    ],
)
def test_kinetics_refusals(tmp_path: Path, lines: list[str], message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=message.replace("?", r"\?")) as caught:
        clips_from_kinetics([text(tmp_path / "c.csv", *lines)], videos=str(tmp_path / "empty"))
    assert "\n" not in str(caught.value)


def ucf_lists(folder: Path, *, train: list[str], test: list[str]) -> str:
    for number in (1, 2, 3):
        text(folder / f"trainlist{number:02d}.txt", *(f"{name} 1" for name in train))
        text(folder / f"testlist{number:02d}.txt", *test)
        train, test = test, train  # the second split is the other way round
    return str(folder)


def test_ucf101_has_three_splits_and_groups(tmp_path: Path) -> None:
    a, b, gone = (
        "Archery/v_Archery_g01_c02.avi",
        "Archery/v_Archery_g08_c01.avi",
        "Archery/v_Archery_g09_c01.avi",
    )
    videos = put(tmp_path / "UCF-101", a, b.replace(".avi", ".mp4"), "Archery/v_Archery_g30_c01.avi")
    found = clips_from_ucf101(videos, splits=ucf_lists(tmp_path / "lists", train=[a, gone], test=[b]))
    assert list(found.clips.clip_ids) == ["Archery/v_Archery_g01_c02", "Archery/v_Archery_g08_c01"]
    assert found.clips.groups == ["Archery_g01", "Archery_g08"]
    assert found.clips.splits == {
        f"split_{k}": s for k, s in enumerate((["train", "test"], ["test", "train"], ["train", "test"]), 1)
    }
    assert {(row.clip_id, row.reason) for row in found.left_out} == {
        ("Archery/v_Archery_g09_c01", "no video"),
        ("Archery/v_Archery_g30_c01", "in none of the split lists"),
    }


def test_hmdb51_has_three_splits_with_unused_clips(tmp_path: Path) -> None:
    names = [
        "Some_Film_(1)_brush_hair_u_nm_np1_ba_goo_0",
        "#2_Film_brush_hair_h_cm_np1_le_goo_1",
        "x_brush_hair_f_cm_np2_ba_med_2",
    ]
    videos = put(tmp_path / "hmdb", *(f"brush_hair/{name}.avi" for name in names))
    codes = [(1, 2, 0), (0, 1, 2), (2, 1, 1)]
    for number in (1, 2, 3):
        lines = [f"{name}.avi {code[number - 1]} " for name, code in zip(names, codes, strict=True)]
        text(tmp_path / "splits" / f"brush_hair_test_split{number}.txt", *lines)
    clips = clips_from_hmdb51(videos, splits=str(tmp_path / "splits")).clips
    by_name = dict(zip(clips.clip_ids, zip(*clips.splits.values(), strict=True), strict=True))
    words = ("", "train", "test")
    assert by_name == {
        f"brush_hair/{n}": tuple(words[c] for c in code) for n, code in zip(names, codes, strict=True)
    }
    assert clips.groups[list(clips.clip_ids).index(f"brush_hair/{names[0]}")] == "Some_Film_(1)"


def test_refusals_of_split_lists(tmp_path: Path) -> None:
    videos = put(tmp_path / "v", "Archery/v_Archery_g01_c02.avi")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"has no trainlist01.txt; name the folder ucfTrainTestlist"):
        clips_from_ucf101(videos, splits=str(tmp_path / "empty"))
    with pytest.raises(ValueError, match=r"has no file <class>_test_split1.txt"):
        clips_from_hmdb51(videos, splits=str(tmp_path / "empty"))
    bad = ucf_lists(tmp_path / "bad", train=["../../x.avi"], test=[])
    with pytest.raises(
        ValueError, match=r"trainlist01.txt line 1: found '../../x.avi 1', expected <class>/<video>.avi"
    ):
        clips_from_ucf101(videos, splits=bad)
    other = ucf_lists(tmp_path / "other", train=["Biking/v_Biking_g01_c01.avi"], test=[])
    with pytest.raises(
        ValueError, match=r"holds none of the 1 listed videos; .* Biking/v_Biking_g01_c01.avi"
    ):
        clips_from_ucf101(videos, splits=other)
    for number in (1, 2, 3):
        text(tmp_path / "h" / f"run_test_split{number}.txt", "a.avi 7")
    with pytest.raises(
        ValueError, match=r"run_test_split1.txt line 1: found 'a.avi 7', expected <video>.avi and 0, 1 or 2"
    ):
        clips_from_hmdb51(videos, splits=str(tmp_path / "h"))


def test_the_command_lists_what_is_missing_with_hostile_names_escaped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = put(tmp_path / "v", "aaaaaaaaaaa_000001_000011.mp4")
    rows = ["run,aaaaaaaaaaa,1,11,train", "\x1b[31mred,bbbbbbbbbbb,1,11,train", "run,\x1bccc,2,12,val"]
    annotations = text(tmp_path / "all.csv", K600, *rows)
    workspace = str(tmp_path / "ws")
    assert cli.run(["clips", "kinetics", annotations, "--videos", videos, "--workspace", workspace]) == 0
    out = capsys.readouterr().out
    assert "2 left out (1 no video, 1 youtube_id is none)" in out
    assert len(read_clips(workspace)) == 1
    content = (tmp_path / "ws" / "clips-left-out.csv").read_text()
    assert "\x1b" not in content + out
    assert [row["clip_id"] for row in csv.DictReader(content.splitlines())] == [
        "bbbbbbbbbbb_000001_000011",
        "\\x1bccc_000002_000012",
    ]
    assert sorted(os.listdir(workspace)) == ["clips-left-out.csv", "clips.parquet"]
