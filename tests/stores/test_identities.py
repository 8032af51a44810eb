"""A video is its content: size and time only decide when it is read again."""

import os
from pathlib import Path

from stores.identities import identify_all


def test_moving_and_touching_change_no_digest(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    video.write_bytes(b"content")
    first = identify_all(str(tmp_path), [str(video)])[str(video)]
    os.utime(video, ns=(1, 1))
    video.rename(tmp_path / "b.mp4")
    second = identify_all(str(tmp_path), [str(tmp_path / "b.mp4")])[str(tmp_path / "b.mp4")]
    assert first.digest == second.digest
    assert first.modified != second.modified


def test_unchanged_videos_are_not_read_again(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    video.write_bytes(b"content")
    first = identify_all(str(tmp_path), [str(video)])
    stat = video.stat()
    video.write_bytes(b"CONTENT")  # same size, and the old time restored: only a full verification can notice
    os.utime(video, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert identify_all(str(tmp_path), [str(video)]) == first
    os.utime(video, ns=(1, 1))
    assert identify_all(str(tmp_path), [str(video)]) != first


def test_missing_videos_change_when_they_appear(tmp_path: Path) -> None:
    video = str(tmp_path / "a.mp4")
    assert identify_all(str(tmp_path), [video])[video].digest == "missing_file"
    Path(video).write_bytes(b"here now")
    assert identify_all(str(tmp_path), [video])[video].digest.startswith("md5:")
    os.mkdir(tmp_path / "folder.mp4")
    folder = str(tmp_path / "folder.mp4")
    assert identify_all(str(tmp_path), [folder])[folder].digest == "unreadable_file"


def test_a_damaged_cache_is_read_anew(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    video.write_bytes(b"content")
    first = identify_all(str(tmp_path), [str(video)])
    (tmp_path / "identities.parquet").write_bytes(b"PAR1 not really")
    assert identify_all(str(tmp_path), [str(video)]) == first
