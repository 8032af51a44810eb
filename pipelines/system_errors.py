"""What the operating system refused, in the style of our own refusals: where, what was found, what to do."""

import errno

from stores import files

_NO_FOLDER = "a part of this path is no folder; name another path"
_NO_ROOM = "no space is left; make room and run the same command again"
_WORDS = {
    errno.ENOENT: "does not exist; name another path",
    errno.ENOTDIR: _NO_FOLDER,
    errno.EEXIST: _NO_FOLDER,  # what making a folder says where a file has its name
    errno.EISDIR: "is a folder; name a file",
    errno.EACCES: "no permission; give it to the user who runs perfnet, or name another path",
    errno.EPERM: "no permission; give it to the user who runs perfnet, or name another path",
    errno.EROFS: "cannot be written, its file system is read-only; name another path",
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
    errno.EIO: "the disk fails to read or write; run the same command again when it is well",
}
_NOBODYS_FAULT = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def is_failure(error: OSError) -> bool:
    """Whether the machine failed; otherwise somebody named a wrong path."""
    return error.errno in _NOBODYS_FAULT


def in_words(error: OSError) -> str:
    """One line; what has no number was put into words where it was raised."""
    if error.errno is None:
        return str(error)
    said = _WORDS.get(error.errno, error.strerror or str(error))
    return said if error.filename is None else f"{files.printable(str(error.filename))}: {said}"
