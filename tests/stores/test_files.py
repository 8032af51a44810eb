"""Puts are whole or not at all, and no path leaves its folder."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stores import files


def test_staged_publishes_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file"
    with files.staged(str(target)) as path:
        Path(path).write_bytes(b"content")
        assert not target.exists()
    assert target.read_bytes() == b"content"
    assert os.listdir(target.parent) == ["file"]


def test_staged_leaves_nothing_after_an_exception(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    with pytest.raises(RuntimeError), files.staged(str(target)) as path:
        Path(path).write_bytes(b"half")
        raise RuntimeError
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_published_files_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        files.put_bytes(str(tmp_path / "file"), b"")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_put_file_keeps_the_source(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    files.put_file(str(tmp_path / "a"), str(tmp_path / "b" / "c"))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b" / "c").read_bytes()


def test_listing_leaves_out_partial_files_and_folders(tmp_path: Path) -> None:
    for name in ("a", files.PARTIAL_PREFIX + "b"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder").mkdir()
    assert files.list_names(str(tmp_path)) == {"a"}
    assert files.list_names(str(tmp_path / "missing")) == set()


@pytest.mark.parametrize("uri", ["http://x/y", "zip://a::gs://b", "a::b", "s3://x", "a\0b", "memory://x"])
def test_other_protocols_are_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="only local paths and gs://"):
        files.check_uri(uri)


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", ".."])
def test_join_stays_inside(name: str) -> None:
    with pytest.raises(ValueError, match="would leave"):
        files.join("/workspace", name)


@given(st.text())
def test_printable_is_one_safe_line(text: str) -> None:
    shown = files.printable(text)
    assert shown.isprintable()
    assert shown == text or not text.isprintable()


def test_printable_escapes_control_and_broken_characters() -> None:
    assert files.printable("a\nb\x1b[31m") == "a\\nb\\x1b[31m"
    assert files.printable("\udcff") == "\\udcff"
    assert files.printable("Übung 走る") == "Übung 走る"


def test_content_digest_is_the_object_stores_md5(tmp_path: Path) -> None:
    (tmp_path / "v").write_bytes(b"hello")
    known = files.status(str(tmp_path / "v"))
    assert files.content_digest(str(tmp_path / "v"), known) == "md5:XUFAKrxLKna5cZ2REBfFkg=="
    stored = files.FileStatus(5, "1", "md5:abc")
    assert files.content_digest("gs://nowhere/at-all", stored) == "md5:abc"


def test_status_refuses_folders_and_pipes(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        files.status(str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PermissionError, match="not a regular file"):
        files.status(str(tmp_path / "pipe"))
