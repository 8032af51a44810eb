"""Identity of a video is its content: (uri, size, modification mark) only decides when to read it again."""

import errno
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from stores import files

FILE = "identities.parquet"
_LOGGER = logging.getLogger(__name__)
_THREADS = 8
_MOST_TOGETHER = 256
_LASTING = (errno.ELOOP, errno.ENAMETOOLONG)
_SCHEMA = pa.schema(
    [("uri", pa.string()), ("size_bytes", pa.int64()), ("modified", pa.string()), ("digest", pa.string())]
)


@dataclass(frozen=True, slots=True)
class Identity:
    """What a video is.

    Attributes:
        size_bytes, modified: None where the file cannot be read.
        digest: of the content; a reason code (missing_file, unreadable_file) where it cannot be read, so that the
            clip key changes by itself when the file appears.
    """

    uri: str
    size_bytes: int | None
    modified: str | None
    digest: str

    @property
    def mark(self) -> str:
        """What a worker must find: the modification mark, or a reason code, which no file that can be read has."""
        return self.digest if self.modified is None else self.modified


def identify(uri: str, known: Identity | None, *, again: bool = False) -> Identity:
    """The identity of one video, read again only when size or modification mark have changed.

    A failing disk or network says nothing of the content: the video stays what it was known as, and a worker that
    finds another one rejects the clip as `file_changed`.

    Args:
        again: read it whatever size and mark say.
    """
    try:
        status = files.status(uri)
        if known and not again and (known.size_bytes, known.modified) == (status.size_bytes, status.modified):
            return known
        return Identity(uri, status.size_bytes, status.modified, files.content_digest(uri, status))
    except (FileNotFoundError, NotADirectoryError):
        return Identity(uri, None, None, "missing_file")
    except OSError as error:  # permissions, not a file, links that go nowhere, a failing disk
        lasting = isinstance(error, (PermissionError, IsADirectoryError)) or error.errno in _LASTING
        return known if known and not lasting else Identity(uri, None, None, "unreadable_file")


def identify_all(
    workspace: str,
    uris: Iterable[str],
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    keep: bool = True,
) -> dict[str, Identity]:
    """Identities of all videos; what was known is taken from the workspace's cache.

    Args:
        progress: called with the videos done and all videos.
        keep: write what is new into the cache.
    """
    wanted = sorted(set(uris))
    known = read_identities(workspace)
    found: dict[str, Identity] = {}
    # Handing over single unchanged videos would take longer than looking at them.
    together = max(1, min(_MOST_TOGETHER, len(wanted) // (_THREADS * 8)))
    batches = [wanted[start : start + together] for start in range(0, len(wanted), together)]
    with ThreadPoolExecutor(_THREADS) as pool:
        for batch in pool.map(lambda uris: [identify(uri, known.get(uri)) for uri in uris], batches):
            for identity in batch:
                found[identity.uri] = identity
                progress(len(found), len(wanted))
    if keep and any(known.get(uri) != identity for uri, identity in found.items()):
        write_identities(workspace, {**known, **found})
    return found


def read_identities(workspace: str) -> dict[str, Identity]:
    """What the workspace's cache knows, by uri: nothing where it is missing or damaged.

    Raises:
        OSError: it cannot be read for now; to read all videos instead would take days.
    """
    uri = files.join(workspace, FILE)
    try:
        with (
            files.open_read(uri) as file,
            pq.ParquetFile(file, page_checksum_verification=True) as parquet,
        ):
            table = parquet.read()  # pq.read_table would load pandas
        if not table.schema.remove_metadata().equals(_SCHEMA):
            raise ValueError(f"columns {table.schema.names}")
        columns = (table[name].to_pylist() for name in _SCHEMA.names)
        return {values[0]: Identity(*values) for values in zip(*columns, strict=True)}
    except FileNotFoundError:
        return {}
    except (pa.ArrowException, ValueError, KeyError) as error:
        return _nothing(uri, error)
    except OSError as error:
        if type(error) is OSError and error.errno is None:  # Arrow's word for damage
            return _nothing(uri, error)
        raise


def _nothing(uri: str, error: Exception) -> dict[str, Identity]:
    said = files.printable(" ".join(str(error).split()))[:200]
    _LOGGER.warning(
        "%s is damaged (%s); it is only a cache: every video is read again", files.printable(uri), said
    )
    return {}


def write_identities(workspace: str, identities: dict[str, Identity]) -> None:
    """Writes the workspace's cache whole."""
    kept = [identities[uri] for uri in sorted(identities)]
    columns = [[getattr(identity, name) for identity in kept] for name in _SCHEMA.names]
    table = pa.table([pa.array(c, t) for c, t in zip(columns, _SCHEMA.types, strict=True)], schema=_SCHEMA)
    with files.staged(files.join(workspace, FILE)) as path:
        pq.write_table(table, path, write_page_checksum=True)
