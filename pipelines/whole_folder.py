"""A folder of new files that appears whole or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator

from stores import files

INDEX = "export.json"


def check_target(out: str, *, overwrite: bool) -> None:
    """Refuses a folder with files in it; with `overwrite`, one with files that are no earlier export.

    Raises:
        ValueError: naming the folder and what to do.
    """
    shown = files.printable(out)
    if files.is_local(out) and os.path.isfile(files.local_path(out)):
        raise ValueError(f"{shown} is a file; name a folder")
    local = files.is_local(out) and os.path.isdir(files.local_path(out))
    names = set(os.listdir(files.local_path(out))) if local else files.list_names(out)
    if names and not overwrite:
        raise ValueError(f"{shown} is not empty; name another folder, or give --overwrite")
    if names and INDEX not in names:
        raise ValueError(
            f"{shown} holds other files than an export ({INDEX} is missing); name another folder"
        )


@contextlib.contextmanager
def whole_folder(out: str) -> Iterator[str]:
    """Yields a folder to write into, which becomes `out` when the block ends normally and replaces what was there.

    Locally it is renamed at the end. On an object store files are put one by one, so after an exception those of
    this run are removed, and readers should look for the index, which is put last.
    """
    if not files.is_local(out):
        yield from _remote(out)
        return
    path = os.path.abspath(files.local_path(out))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    partial = tempfile.mkdtemp(prefix=files.PARTIAL_PREFIX, dir=os.path.dirname(path))
    try:
        os.chmod(partial, 0o755)
        new = os.path.join(partial, "new")
        os.mkdir(new)
        yield new
        if os.path.exists(path):
            os.rename(path, os.path.join(partial, "old"))
        os.rename(new, path)
    finally:
        shutil.rmtree(partial)


def _remote(out: str) -> Iterator[str]:
    before = files.list_names(out)
    if INDEX in before:
        files.remove(files.join(out, INDEX))
    try:
        yield out
    except BaseException:
        for name in files.list_names(out) - before:
            files.remove(files.join(out, name))
        raise
