"""What ends a command in one line, and one style for refusing a value: what, found, do.

It imports nothing, so that `--help` waits for no library.
"""


class StageFailed(Exception):
    """A stage did not end well and its store is not committed; the message says why and what to do."""


class Damaged(ValueError):
    """A file that perfnet wrote is not what was written; the message names it and what to do."""


def require(name: str, found: object, ok: bool, expected: str) -> None:
    """Raises ValueError naming the option, what was found and what is expected, unless `ok`."""
    if not ok:
        raise ValueError(f"{name}: found {found!r}, expected {expected}")
