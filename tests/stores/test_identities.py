"""A video is its content: size and time only decide when it is read again."""

import errno
import os
from pathlib import Path

import pytest

from stores import files
from stores.identities import identify_all
from stores.verify import verify_videos


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


@pytest.mark.parametrize("failing", ["status", "content_digest"])
def test_a_failing_disk_says_nothing_of_the_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """What was known stays known; of a video that was never read there is no digest that another could have."""
    old, new, ws = tmp_path / "old.mp4", tmp_path / "new.mp4", str(tmp_path)
    old.write_bytes(b"content")
    first = identify_all(ws, [str(old)])
    new.write_bytes(b"other content")
    os.utime(old, ns=(1, 1))

    def fail(uri: str, *_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), uri)

    with monkeypatch.context() as patch:
        patch.setattr(files, failing, fail)
        found = identify_all(ws, [str(old), str(new)])
        assert verify_videos(ws, [str(old)]) == ([], [str(old)])
    assert found[str(old)] == first[str(old)]
    assert found[str(new)].mark == "unreadable_file"
    later = identify_all(ws, [str(old), str(new)])
    assert later[str(old)].digest == first[str(old)].digest
    assert later[str(new)].digest.startswith("md5:")
    assert verify_videos(ws, [str(old), str(new)]) == ([], [])


def test_a_damaged_cache_is_read_anew(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    video.write_bytes(b"content")
    first = identify_all(str(tmp_path), [str(video)])
    (tmp_path / "identities.parquet").write_bytes(b"PAR1 not really")
    assert identify_all(str(tmp_path), [str(video)]) == first
