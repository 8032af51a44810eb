"""All file access of the project: local paths and object stores through fsspec, each put whole or not at all.

Locally a put is a temporary file in the same folder, fsync, `os.replace`. On an object store it is one upload that
is only begun when the content is complete: an exception before that leaves no object.
"""

import base64
import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from stores import objects

PARTIAL_PREFIX = ".part-"
_LOCAL_PROTOCOLS = ("file://", "local://")
_PROTOCOLS = ("gs", "gcs")


@dataclass(frozen=True)
class FileStatus:
    """What is known of a file without reading it.

    Attributes:
        size_bytes: length.
        modified: a mark that changes when the file is rewritten: mtime in ns, or the object's generation.
        checksum: `md5:…` where the object store keeps one, otherwise None.
    """

    size_bytes: int
    modified: str
    checksum: str | None = None


def check_uri(uri: str) -> str:
    """Returns `uri` when it is a local path or a gs:// address.

    Raises:
        ValueError: an fsspec chain (`::`), another protocol, or a NUL byte.
    """
    protocol = uri.split("://", 1)[0] if "://" in uri else ""
    if "\0" in uri or "::" in uri or (protocol and protocol not in (*_PROTOCOLS, "file")):
        raise ValueError(f"{printable(uri)}: only local paths and gs:// addresses are read")
    return uri


def printable(text: str) -> str:
    """Text from outside, safe to show in one line of a terminal: control characters are escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def quoted(text: str) -> str:
    """Printable text in quotes."""
    return f"'{printable(text)}'"


def is_local(uri: str) -> bool:
    return "://" not in uri or uri.startswith(_LOCAL_PROTOCOLS)


def local_path(uri: str) -> str:
    """The file system path of a local uri."""
    for protocol in _LOCAL_PROTOCOLS:
        uri = uri.removeprefix(protocol)
    return uri


def join(folder: str, *names: str) -> str:
    """Appends names to a folder; refuses names that would leave it."""
    for name in names:
        if name.startswith("/") or ".." in name.split("/"):
            raise ValueError(f"{quoted(name)} would leave {folder}")
    return "/".join([folder.rstrip("/") or "/", *names])


def exists(uri: str) -> bool:
    if is_local(uri):
        return os.path.exists(local_path(uri))
    return objects.exists(check_uri(uri))


def status(uri: str) -> FileStatus:
    """Size, modification mark and stored checksum of a file.

    Raises:
        FileNotFoundError, PermissionError, IsADirectoryError, OSError: as the file system says.
    """
    if is_local(uri):
        found = os.stat(local_path(uri))
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(uri)
        if not stat.S_ISREG(found.st_mode):
            raise PermissionError(f"{printable(uri)} is not a regular file")
        return FileStatus(found.st_size, str(found.st_mtime_ns))
    info = objects.info(check_uri(uri))
    if info["type"] == "directory":
        raise IsADirectoryError(uri)
    md5 = info.get("md5Hash")
    return FileStatus(int(info["size"]), str(info.get("generation", "")), f"md5:{md5}" if md5 else None)


def open_read(uri: str) -> BinaryIO:
    """A seekable binary file open for reading."""
    if is_local(uri):
        return open(local_path(uri), "rb")
    return objects.open_read(check_uri(uri))


def read_bytes(uri: str) -> bytes:
    """A whole file; of an object one version, also while it is replaced."""
    if not is_local(uri):
        return objects.read(check_uri(uri))
    with open_read(uri) as file:
        return file.read()


def digest(uri: str, *, algorithm: str = "sha256", chunk_bytes: int = 1 << 20) -> "hashlib._Hash":
    """Reads a file once and returns its finished hash object."""
    found = hashlib.new(algorithm, usedforsecurity=False)
    with open_read(uri) as file:
        while chunk := file.read(chunk_bytes):
            found.update(chunk)
    return found


def content_digest(uri: str, known: FileStatus) -> str:
    """Identity of a file's content: the object store's own md5 where it has one, else the same md5 from reading it.

    md5 because object stores keep it: a collection copied to or from one keeps its identities.
    """
    if known.checksum:
        return known.checksum
    return "md5:" + base64.b64encode(digest(uri, algorithm="md5").digest()).decode()


def list_names(folder: str) -> set[str]:
    """Names of the files directly in a folder; empty where there is no folder. Partial files are left out."""
    if is_local(folder):
        try:
            with os.scandir(local_path(folder)) as entries:
                return {e.name for e in entries if not e.name.startswith(PARTIAL_PREFIX) and not e.is_dir()}
        except FileNotFoundError:
            return set()
    return objects.list_names(check_uri(folder))


def put_bytes(uri: str, content: bytes) -> None:
    """Writes a whole small file, replacing what is there."""
    if not is_local(uri):
        objects.put(check_uri(uri), content)
        return
    with staged(uri) as path, open(path, "wb") as file:
        file.write(content)


@contextlib.contextmanager
def staged(uri: str) -> Iterator[str]:
    """Yields the path of a local file to write; leaving the block normally publishes it whole as `uri`.

    After an exception nothing is published and the partial file is removed.
    """
    if is_local(uri):
        folder, name = os.path.split(local_path(uri))
        os.makedirs(folder or ".", exist_ok=True)
    else:
        folder, name = tempfile.gettempdir(), uri.rsplit("/", 1)[-1]
    descriptor, path = tempfile.mkstemp(prefix=PARTIAL_PREFIX, suffix="-" + name[-80:], dir=folder or ".")
    os.close(descriptor)
    try:
        yield path
        _publish(path, uri)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _publish(path: str, uri: str) -> None:
    if not is_local(uri):
        objects.put_file(path, check_uri(uri))
        return
    os.chmod(path, 0o666 & ~_umask())
    _fsync(path)
    os.replace(path, local_path(uri))
    _fsync(os.path.dirname(local_path(uri)) or ".")


def _umask() -> int:
    """The process's umask, which can only be read by setting it; mkstemp makes files private."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _fsync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(uri: str) -> None:
    """Removes one file; nothing happens where it is gone already."""
    with contextlib.suppress(FileNotFoundError):
        if is_local(uri):
            os.unlink(local_path(uri))
        else:
            objects.remove(check_uri(uri))


def put_file(path: str, uri: str) -> None:
    """Publishes a finished local file whole as `uri`; the local file stays."""
    if not is_local(uri):
        _publish(path, uri)
        return
    with staged(uri) as partial:
        shutil.copyfile(path, partial)


@dataclass(frozen=True)
class Listed:
    """A file as a listing shows it; modified_s is a POSIX time by the clock of whoever keeps the file."""

    size_bytes: int
    modified_s: float


def list_tree(folder: str) -> dict[str, Listed]:
    """All files under a folder by their path in it, partial files too; empty where there is no folder.

    Links are neither followed nor listed.
    """
    if not is_local(folder):
        found = objects.list_tree(check_uri(folder))
        return {name: Listed(size, modified) for name, (size, modified) in found.items()}
    root = local_path(folder)
    listed: dict[str, Listed] = {}
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        with contextlib.suppress(FileNotFoundError), os.scandir(os.path.join(root, inside)) as entries:
            for entry in entries:
                name = f"{inside}/{entry.name}" if inside else entry.name
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(name)
                elif entry.is_file(follow_symlinks=False):
                    with contextlib.suppress(FileNotFoundError):
                        status = entry.stat(follow_symlinks=False)
                        listed[name] = Listed(status.st_size, status.st_mtime)
    return listed


def remove_empty_folder(folder: str) -> None:
    """Removes a local folder and those in it where no file is left; object stores have no folders."""
    if is_local(folder):
        for inside, _, _ in os.walk(local_path(folder), topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(inside)
