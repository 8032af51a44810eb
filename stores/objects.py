"""Objects of gs:// through gcsfs, one request or one whole put at a time.

gcsfs repeats what the network or the server refuses for the moment, six times with growing pauses; what is left becomes
one exception in words. Nothing is renamed, no listing is cached, no call needs generation preconditions.
"""

import contextlib
import io
import os
from collections.abc import Iterator
from typing import Any, BinaryIO

_REQUEST_TIMEOUT_S = 120.0
_UPLOAD_BYTES = 16 << 20
_READ_AHEAD_BYTES = 1 << 20
_PUT_ATTEMPTS = 2


class StorageError(OSError):
    """The object store still failed after all retries, or refused; the message is one line."""

    def __init__(self, uri: str, problem: object) -> None:
        super().__init__(f"{uri}: {' '.join(str(problem).split()) or type(problem).__name__}")
        self.filename = uri

    def __str__(self) -> str:
        return str(self.args[0])

    def __reduce__(self) -> tuple[Any, ...]:
        return OSError, self.args


def _located(uri: str) -> tuple[Any, str]:
    """The file system, one for each thread and process, and the path in it."""
    import fsspec  # a tenth of a second that `perfnet --help` need not take

    emulator = {"token": "anon"} if os.environ.get("STORAGE_EMULATOR_HOST") else {}
    try:
        filesystem, path = fsspec.core.url_to_fs(
            uri, use_listings_cache=False, requests_timeout=_REQUEST_TIMEOUT_S, **emulator
        )
    except ImportError as error:
        raise StorageError(uri, "gs:// needs gcsfs; pip install -e '.[gcp]'") from error
    return filesystem, path


@contextlib.contextmanager
def _in_words(uri: str) -> Iterator[None]:
    """Turns what gcsfs, aiohttp, requests and google-auth raise into OSErrors."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, StorageError):
        raise
    except Exception as error:
        if str(error).startswith("Forbidden"):
            raise PermissionError(f"{uri}: no permission: {' '.join(str(error).split())}") from error
        raise StorageError(uri, error) from error


def info(uri: str) -> dict[str, Any]:
    """What the store knows of an object; `type` is file or directory.

    Raises:
        FileNotFoundError, PermissionError, StorageError: as for every function here.
    """
    filesystem, path = _located(uri)
    with _in_words(uri):
        found: dict[str, Any] = filesystem.info(path)
    return found


def exists(uri: str) -> bool:
    """Unlike fsspec's own `exists`, which takes every failure for absence."""
    try:
        info(uri)
    except FileNotFoundError:
        return False
    return True


def read(uri: str) -> bytes:
    """A whole object in one request: what another process replaces meanwhile is read old or new, never mixed."""
    filesystem, path = _located(uri)
    with _in_words(uri):
        content: bytes = filesystem.cat_file(path)
    return content


def open_read(uri: str) -> BinaryIO:
    """A seekable file over range requests, bound to the object's present generation."""
    filesystem, path = _located(uri)
    found = info(uri)
    if found["type"] == "directory":
        raise IsADirectoryError(uri)
    raw = _Ranges(uri, filesystem, path, int(found["size"]), found.get("generation"))
    return io.BufferedReader(raw, _READ_AHEAD_BYTES)


class _Ranges(io.RawIOBase):
    """Reads an object piece by piece, each piece one request."""

    def __init__(self, uri: str, filesystem: Any, path: str, size: int, generation: str | None) -> None:
        self._uri, self._filesystem, self._path = uri, filesystem, path
        self._size, self._generation = size, generation
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError(f"seek to {start + offset}")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        content = self._fetch(min(self._position + len(buffer), self._size))
        buffer[: len(content)] = content
        return len(content)

    def readall(self) -> bytes:
        return self._fetch(self._size)  # the inherited one asks for 8 KiB at a time

    def _fetch(self, stop: int) -> bytes:
        """The bytes [position, stop), in one request."""
        if stop <= self._position:
            return b""
        with _in_words(self._uri):
            content: bytes = self._filesystem.cat_file(
                self._path, start=self._position, end=stop, generation=self._generation
            )
        if len(content) != stop - self._position:
            raise StorageError(self._uri, f"sent {len(content)} bytes of {stop - self._position}")
        self._position = stop
        return content


def list_names(uri: str) -> set[str]:
    """Names of the objects directly under a folder; empty where there are none."""
    filesystem, path = _located(uri)
    try:
        with _in_words(uri):
            found = filesystem.ls(path, detail=True)
    except FileNotFoundError:
        return set()
    return {entry["name"].rsplit("/", 1)[-1] for entry in found if entry["type"] == "file"}


def put(uri: str, content: bytes) -> None:
    """One upload of a small object, replacing what is there; the store's checksum is compared."""
    filesystem, path = _located(uri)
    with _in_words(uri):
        filesystem.pipe_file(path, content, consistency="md5")


def put_file(path: str, uri: str) -> None:
    """Uploads a finished local file; the object appears when the last byte has arrived, or not at all."""
    filesystem, target = _located(uri)
    for attempt in range(1, _PUT_ATTEMPTS + 1):
        try:
            with _in_words(uri):
                filesystem.put_file(path, target, chunksize=_UPLOAD_BYTES, consistency="md5")
            return
        except (FileNotFoundError, StorageError) as error:
            # An upload in parts whose last answer got lost is unknown to the server when it is sent again.
            if attempt == _PUT_ATTEMPTS:
                raise StorageError(uri, f"cannot be written: {error}") from error


def remove(uri: str) -> None:
    filesystem, path = _located(uri)
    with _in_words(uri):
        filesystem.rm_file(path)


def list_tree(uri: str) -> dict[str, tuple[int, float]]:
    """Size in bytes and POSIX time of the last change of all objects under a folder, by their path in it."""
    filesystem, path = _located(uri)
    with _in_words(uri):
        found = filesystem.find(path, detail=True)
    start = len(path.rstrip("/")) + 1
    return {
        name[start:]: (int(entry["size"]), entry["mtime"].timestamp())
        for name, entry in found.items()
        if entry["type"] == "file"
    }
