"""A video is its content: size and time only decide when it is read again."""

import errno
import os
from pathlib import Path

import pytest

from stores import files
from stores.identities import Identity, identify_all, read_identities, write_identities
from stores.objects import StorageError
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


def test_a_damaged_cache_is_read_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    video = tmp_path / "a.mp4"
    video.write_bytes(b"content")
    first = identify_all(str(tmp_path), [str(video)])
    assert caplog.messages == []
    (tmp_path / "identities.parquet").write_bytes(b"PAR1 not really")
    assert identify_all(str(tmp_path), [str(video)]) == first
    (said,) = caplog.messages
    assert said.startswith(f"{tmp_path}/identities.parquet is damaged (")
    assert said.endswith("it is only a cache: every video is read again")


def test_no_flipped_bit_of_the_cache_changes_an_identity(tmp_path: Path) -> None:
    ws = str(tmp_path)
    known = {f"/v/{i}.mp4": Identity(f"/v/{i}.mp4", 1000 + i, str(10**18 + i), f"md5:{i}") for i in range(3)}
    known["/v/gone.mp4"] = Identity("/v/gone.mp4", None, None, "missing_file")
    write_identities(ws, known)
    path = tmp_path / "identities.parquet"
    content = path.read_bytes()
    emptied = 0
    for place in range(len(content)):
        for bit in (0x01, 0x10, 0x80):
            path.write_bytes(content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :])
            found = read_identities(ws)
            emptied += not found
            assert found in ({}, known), (place, bit)
    assert emptied > len(content)


def test_a_cache_that_cannot_be_read_for_now_is_not_taken_for_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_identities(str(tmp_path), {})

    def fail(uri: str) -> None:
        raise StorageError(uri, "503")

    monkeypatch.setattr(files, "open_read", fail)
    with pytest.raises(StorageError):
        read_identities(str(tmp_path))
