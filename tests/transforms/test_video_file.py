import os

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from stores.rejections import ClipRejected
from transforms.stage import Video
from transforms.video_file import VideoFile, open_video


def reason(video):
    with pytest.raises(ClipRejected) as rejected:
        open_video(video)
    return rejected.value.reason


def test_missing_folder_empty_and_other_things(tmp_path):
    (tmp_path / "empty.mp4").touch()
    os.mkfifo(tmp_path / "pipe.mp4")
    assert reason(Video("a", str(tmp_path / "none.mp4"))) == "missing_file"
    assert reason(Video("a", str(tmp_path / "empty.mp4" / "x.mp4"))) == "missing_file"
    assert reason(Video("a", str(tmp_path))) == "unreadable_file"
    assert reason(Video("a", str(tmp_path / "pipe.mp4"))) == "unreadable_file"
    assert reason(Video("a", str(tmp_path / "empty.mp4"))) == "empty_file"


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9/a.mp4", "gs://a::file://b", "a\0.mp4", "concat://a"])
def test_other_protocols_and_chains_are_refused(uri):
    assert reason(Video("a", uri)) == "unreadable_file"


def test_no_permission(tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"x")

    def refuse(*_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("stores.files.open_read", refuse)
    assert reason(Video("a", str(path))) == "unreadable_file"


def test_a_file_that_changed_since_planning(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"12345")
    mark = str(path.stat().st_mtime_ns)
    open_video(Video("a", str(path), bytes=5, modified=mark)).close()
    assert reason(Video("a", str(path), bytes=6, modified=mark)) == "file_changed"
    assert reason(Video("a", str(path), bytes=5, modified="1")) == "file_changed"
    path.write_bytes(b"")
    assert reason(Video("a", str(path), bytes=5)) == "file_changed"  # a transient state, not an empty video


def test_a_file_that_was_not_there_when_planned_waits_for_another_plan(tmp_path):
    """Its clip key knows nothing of the content: what is computed under it would be taken for another video's."""
    path = tmp_path / "a.mp4"
    assert reason(Video("a", str(path), modified="missing_file")) == "missing_file"
    path.write_bytes(b"12345")
    for mark in ("missing_file", "unreadable_file"):
        assert reason(Video("a", str(path), modified=mark)) == "file_changed"


def test_a_file_that_is_gone_since_planning_may_come_back(tmp_path):
    assert reason(Video("a", str(tmp_path / "a.mp4"), bytes=5, modified="1")) == "file_changed"


def test_control_characters_of_a_name_are_escaped(tmp_path):
    with pytest.raises(ClipRejected) as rejected:
        open_video(Video("a", str(tmp_path / "a\nb\x1b[2J.mp4")))
    assert "\n" not in str(rejected.value)
    assert "\x1b" not in str(rejected.value)


def test_impossible_seeks_are_the_demuxers_fault(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"12345")
    with open_video(Video("a", str(path))) as file:
        assert file.seek(-7) == -1
        assert file.seek(2) == 2
        assert file.read(10) == b"345"
        assert file.error is None


def test_a_failed_read_is_remembered():
    class Failing:
        def read(self, size):
            raise OSError(5, "Input/output error")

    file = VideoFile(Failing())
    with pytest.raises(OSError, match="Input/output"):
        file.read(1)
    assert file.error is not None


def test_object_store():
    class Bucket(MemoryFileSystem):
        protocol = "gs"
        store = {}  # noqa: RUF012

        @classmethod
        def _strip_protocol(cls, path):
            return super()._strip_protocol(path.replace("gs://", "memory://"))

        def info(self, path, **kwargs):
            return {**super().info(path, **kwargs), "generation": 7}

    fsspec.register_implementation("gs", Bucket, clobber=True)
    try:
        fsspec.filesystem("gs").pipe_file("/bucket/a.mp4", b"12345")
        video = Video("a", "gs://bucket/a.mp4", bytes=5, modified="7")
        with open_video(video) as file:
            assert file.seek(3) == 3
            assert file.read(10) == b"45"
        assert reason(Video("a", "gs://bucket/a.mp4", modified="8")) == "file_changed"
        assert reason(Video("a", "gs://bucket/none.mp4")) == "missing_file"
    finally:
        fsspec.register_implementation("gs", "gcsfs.GCSFileSystem", clobber=True)
