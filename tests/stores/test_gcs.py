"""Objects of gs:// against a real HTTP emulator: whole or absent, never taken for absent, one line when they fail."""

import io
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from gcs import BUCKET, Faults, environment, faulty_proxy, gcs, object_names, schedule

from stores import files
from stores.model_files import local_model, model_uri, put_model
from stores.objects import StorageError

__all__ = ["gcs"]
LARGE = os.urandom(6 << 20)  # more than gcsfs puts in one request


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries come at once."""

    async def sleep(delay: float) -> None:
        pass

    monkeypatch.setattr("gcsfs.retry.asyncio", SimpleNamespace(sleep=sleep))


@pytest.fixture
def folder(gcs: str, request: pytest.FixtureRequest) -> str:
    return f"gs://{BUCKET}/{request.node.name.replace('[', '-').strip(']')}"


@pytest.fixture
def down(gcs: str) -> Iterator[Faults]:
    """An object store that answers 503 to everything."""
    with faulty_proxy(gcs, fail=lambda *_: "503") as faults, environment(faults.url):
        yield faults


@pytest.mark.parametrize("content", [b"", b"a\r\n\r\nb\n", LARGE], ids=["empty", "small", "large"])
def test_what_is_put_is_read(folder: str, tmp_path: Path, content: bytes) -> None:
    uri = files.join(folder, "a b#%?ü.bin")
    (tmp_path / "x").write_bytes(content)
    files.put_file(str(tmp_path / "x"), uri)
    assert files.read_bytes(uri) == content
    files.put_bytes(uri, content + b"!")
    assert files.digest(uri).hexdigest() == files.digest(_local(tmp_path, content + b"!")).hexdigest()
    assert files.list_names(folder) == {"a b#%?ü.bin"}
    assert files.status(uri).size_bytes == len(content) + 1


def _local(folder: Path, content: bytes) -> str:
    (folder / "copy").write_bytes(content)
    return str(folder / "copy")


def test_the_objects_own_checksum_is_that_of_a_local_copy(folder: str, tmp_path: Path) -> None:
    """Identity is content: a collection that is uploaded keeps its identities."""
    path, uri = _local(tmp_path, b"video"), files.join(folder, "v")
    files.put_file(path, uri)
    assert files.content_digest(uri, files.status(uri)) == files.content_digest(path, files.status(path))


@pytest.mark.parametrize("name", ["file", "deep/file"])
def test_an_exception_while_writing_leaves_no_object(gcs: str, folder: str, name: str) -> None:
    with pytest.raises(RuntimeError), files.staged(files.join(folder, name)) as path:
        Path(path).write_bytes(LARGE)
        raise RuntimeError
    assert not files.exists(files.join(folder, name))
    assert not [n for n in object_names(gcs) if n.startswith(folder.removeprefix(f"gs://{BUCKET}/"))]


def test_reading_is_that_of_a_local_file(folder: str) -> None:
    uri = files.join(folder, "large")
    with files.staged(uri) as path:
        Path(path).write_bytes(LARGE)
    twin = io.BytesIO(LARGE)
    with files.open_read(uri) as file:
        for offset, whence, size in [
            (0, 0, 10),
            (-8, 2, 100),
            (3 << 20, 0, 2 << 20),
            (-5, 1, 9),
            (9 << 20, 0, 1),
        ]:
            assert file.seek(offset, whence) == twin.seek(offset, whence)
            assert file.read(size) == twin.read(size)
            assert file.tell() == twin.tell()


def test_a_window_is_read_without_the_rest(gcs: str, folder: str) -> None:
    uri = files.join(folder, "large")
    files.put_bytes(uri, LARGE)
    with faulty_proxy(gcs, fail=schedule()) as faults, environment(faults.url), files.open_read(uri) as file:
        file.seek(5 << 20)
        assert file.read(1000) == LARGE[5 << 20 :][:1000]
    assert len([r for r in faults.seen if "alt=media" in r]) == 1


def test_a_listing_sees_what_another_process_wrote(gcs: str, folder: str) -> None:
    assert files.list_names(folder) == set()
    files.put_bytes(files.join(folder, "a"), b"")
    assert files.list_names(folder) == {"a"}
    files.put_bytes(files.join(folder, "below", "b"), b"")
    assert files.list_names(folder) == {"a"}
    files.remove(files.join(folder, "a"))
    files.remove(files.join(folder, "a"))
    assert files.list_names(folder) == set()


def test_a_tree_is_listed_with_sizes_and_times(folder: str) -> None:
    for name in ("a", "below/b", "below/deeper/c"):
        files.put_bytes(f"{folder}/{name}", name.encode())
    found = files.list_tree(folder)
    assert {name: listed.size_bytes for name, listed in found.items()} == {
        "a": 1,
        "below/b": 7,
        "below/deeper/c": 14,
    }
    assert all(abs(listed.modified_s - time.time()) < 60 for listed in found.values())
    assert files.list_tree(folder + "-none") == {}


def test_folders_and_missing_objects(folder: str) -> None:
    files.put_bytes(files.join(folder, "a"), b"x")
    with pytest.raises(IsADirectoryError):
        files.status(folder)
    with pytest.raises(IsADirectoryError):
        files.open_read(folder)
    for function in (files.status, files.open_read, files.read_bytes):
        with pytest.raises(FileNotFoundError):
            function(files.join(folder, "missing"))
    assert not files.exists("gs://no-such-bucket/x")


@pytest.mark.parametrize("kind", ["503", "429", "drop", "half", "lost"])
def test_what_fails_twice_is_repeated(gcs: str, folder: str, tmp_path: Path, kind: str) -> None:
    small, large = files.join(folder, "small"), files.join(folder, "large")
    path = _local(tmp_path, LARGE)

    def fail(number: int, method: str, path: str) -> str | None:
        # The emulator, unlike the real store, forgets an upload in parts once it is complete: repeating its last part
        # fails for good, and the whole put is done again.
        fails = number in (0, 3) if kind == "lost" else number % 3 < 2
        return kind if fails else None

    with faulty_proxy(gcs, fail=fail) as faults, environment(faults.url):
        files.put_bytes(small, b"content")
        files.put_file(path, large)
        assert files.read_bytes(small) == b"content"
        with files.open_read(large) as file:
            assert file.read() == LARGE
        assert files.list_names(folder) == {"small", "large"}
    assert len(faults.injected) >= (2 if kind == "lost" else 8)


@pytest.mark.parametrize(
    "call",
    [
        files.exists,
        files.status,
        files.read_bytes,
        files.open_read,
        files.list_names,
        files.remove,
        lambda uri: files.put_bytes(uri, b"x"),
    ],
)
def test_what_goes_on_failing_is_one_line_and_never_absence(down: Faults, call) -> None:
    """fsspec's own `exists` says False here, and a finished store would be computed again."""
    with pytest.raises(StorageError, match=r"^gs://bucket/some/object: .*503") as found:
        call(f"gs://{BUCKET}/some/object")
    assert "\n" not in str(found.value)
    assert isinstance(found.value, OSError)


def test_a_file_that_cannot_be_uploaded_leaves_no_object(gcs: str, folder: str, tmp_path: Path) -> None:
    """The upload in parts is begun, then every part is refused."""
    uri = files.join(folder, "large")

    def fail(number: int, method: str, path: str) -> str | None:
        return "503" if "upload_id" in path else None

    with (
        faulty_proxy(gcs, fail=fail) as faults,
        environment(faults.url),
        pytest.raises(StorageError, match="cannot be written"),
    ):
        files.put_file(_local(tmp_path, LARGE), uri)
    assert not files.exists(uri)


def test_no_permission_is_said(gcs: str) -> None:
    with (
        faulty_proxy(gcs, fail=lambda *_: "403") as faults,
        environment(faults.url),
        pytest.raises(PermissionError, match="no permission"),
    ):
        files.read_bytes(f"gs://{BUCKET}/x")


def test_a_file_replaced_while_it_is_read_is_asked_for_by_its_generation(gcs: str, folder: str) -> None:
    uri = files.join(folder, "large")
    files.put_bytes(uri, LARGE)
    generation = files.status(uri).modified
    with faulty_proxy(gcs, fail=schedule()) as faults, environment(faults.url), files.open_read(uri) as file:
        file.read(10)
    (read,) = [r for r in faults.seen if "alt=media" in r]
    assert f"generation={generation}" in read


def test_models_travel_through_the_bucket(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "worker"))
    (tmp_path / "worker").mkdir()
    source = _local(tmp_path, b"weights")
    digest, uri = model_uri(folder, source)
    put_model(source, uri)
    assert uri.startswith(f"{folder}/models/{digest}/")
    path = Path(local_model(uri))
    assert path.read_bytes() == b"weights"
    path.write_bytes(b"somebody else's")
    assert Path(local_model(uri)).read_bytes() == b"weights"
    files.put_bytes(uri, b"damaged")
    path.unlink()
    with pytest.raises(ValueError, match="is damaged"):
        local_model(uri)
