"""Opening the bytes of a video: a local file or an object of gs://, and nothing else."""

import errno
import os
from types import TracebackType
from typing import BinaryIO

from stores import files
from stores.rejections import ClipRejected
from transforms.stage import Video


class VideoFile:
    """A video's bytes for FFmpeg, which then needs no protocol of its own.

    It deliberately has no name: a container is recognised by what it holds, never by its extension.

    Attributes:
        error: the exception of a failed read, which FFmpeg might report as damaged data.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:
            self.error = error
            raise

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        # A damaged video sends the demuxer to impossible places. That is the demuxer's own error (-1), while
        # an exception would look like a failing disk.
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return -1

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "VideoFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_video(video: Video) -> VideoFile:
    """Opens the file of a clip after comparing it with what planning saw.

    Raises:
        ClipRejected: missing_file, unreadable_file, empty_file, file_changed or io_error.
    """
    name = files.printable(video.uri)
    try:
        _check_unchanged(video, files.status(video.uri))
        return VideoFile(files.open_read(video.uri))
    except (FileNotFoundError, NotADirectoryError) as error:
        if video.bytes is not None:  # sealed for its content, it would stay rejected when it is back
            raise ClipRejected("file_changed", f"{name} is gone, {video.bytes} bytes when planned") from error
        raise ClipRejected("missing_file", name) from error
    except IsADirectoryError as error:
        raise ClipRejected("unreadable_file", f"{name} is a folder") from error
    except PermissionError as error:
        raise ClipRejected("unreadable_file", files.printable(str(error))) from error
    except OSError as error:
        endless = error.errno in (errno.ELOOP, errno.ENAMETOOLONG)  # no second try helps
        raise ClipRejected(
            "unreadable_file" if endless else "io_error", files.printable(str(error))
        ) from error
    except ValueError as error:  # another protocol, a chain of protocols, a NUL byte
        raise ClipRejected("unreadable_file", files.printable(f"{name}: {error}")) from error


def _check_unchanged(video: Video, found: files.FileStatus) -> None:
    if video.bytes is not None and video.bytes != found.size_bytes:
        raise ClipRejected("file_changed", f"{found.size_bytes} bytes, {video.bytes} when planned")
    if video.modified is not None and video.modified != found.modified:
        raise ClipRejected(
            "file_changed", f"modification mark {found.modified}, {video.modified} when planned"
        )
    if found.size_bytes == 0:
        raise ClipRejected("empty_file", files.printable(video.uri))
