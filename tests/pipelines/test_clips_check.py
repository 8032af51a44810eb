"""Counts and missing videos of a clips table, known in advance."""

from pathlib import Path

import pytest

from pipelines import cli
from pipelines.clips_check import check_clips, missing_videos
from stores.clips import make_clips, read_clips, write_clips


@pytest.fixture
def videos(tmp_path: Path) -> list[str]:
    paths = [tmp_path / "a" / "1.mp4", tmp_path / "a" / "2.mp4", tmp_path / "b" / "1.mp4"]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    return [str(path) for path in paths]


def table(uris: list[str]):
    return make_clips(
        [
            {"clip_id": f"c{i}", "uri": uri, "label": "ab"[i % 2], "split": ["train", "test"][i % 2]}
            for i, uri in enumerate(uris)
        ]
    )


def test_missing_videos_are_found_by_folder(videos: list[str], tmp_path: Path) -> None:
    gone = [str(tmp_path / "a" / "3.mp4"), str(tmp_path / "none" / "1.mp4")]
    assert missing_videos([*videos, *gone, gone[0]]) == gone


def test_one_line_of_counts(videos: list[str]) -> None:
    line = check_clips(table(videos), max_rejected=0)
    assert line == "3 clips, 2 classes, 0 groups; split: 2 train, 1 test; 0 without a video file"


def test_missing_videos_count_against_max_rejected(videos: list[str], tmp_path: Path) -> None:
    clips = table([*videos, str(tmp_path / "a" / "gone.mp4")])
    assert check_clips(clips, max_rejected=0.25).endswith("1 without a video file")
    with pytest.raises(
        ValueError, match=r"1 of 4 clips have no video file, more than max_rejected 0.2 .*gone.mp4"
    ):
        check_clips(clips, max_rejected=0.2)


def test_command(videos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["clips", "check", "--workspace", str(tmp_path / "ws")]
    assert cli.run(arguments) == 2
    assert "clips.parquet does not exist" in capsys.readouterr().err
    write_clips(str(tmp_path / "ws"), table(videos))
    assert cli.run(arguments) == 0
    assert capsys.readouterr().out.startswith("3 clips, ")
    Path(videos[0]).unlink()
    assert cli.run(arguments) == 2
    assert cli.run([*arguments, "--max_rejected", "0.5"]) == 0


def test_write_brings_labels_and_splits_to_where_training_reads_them(
    videos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ws = str(tmp_path / "ws")
    arguments = ["clips", "check", "--workspace", ws, "--clips.folder", str(Path(videos[0]).parents[1])]
    assert cli.run(arguments) == 0
    assert not (tmp_path / "ws" / "clips.parquet").exists()
    for pattern, written in (("a/1", "written"), ("a/1", "unchanged"), ("a/2", "written")):
        assert cli.run([*arguments, "--write", "--clips.test_pattern", pattern]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == f"clips.parquet: {written}"
        split = read_clips(ws).split("split")
        assert [clip for clip in split if split[clip] == "test"] == [f"{pattern}"]


def test_beam_options_are_looked_at_as_a_job_would(
    videos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ws = str(tmp_path / "ws")
    write_clips(ws, table(videos))
    cloud = ["--project=p", "--region=europe-west4", "--temp_location=gs://b/temp", "--setup_file=./setup.py"]
    check = ["clips", "check", "--workspace", ws, "--", "--runner=DataflowRunner", *cloud]
    assert cli.run(check) == 2
    assert "is local, where Dataflow's workers cannot read it" in capsys.readouterr().err
