"""One style for refusing a value: what, found, do."""


class Damaged(ValueError):
    """A file that perfnet wrote is not what was written; the message names it and what to do."""


def require(name: str, found: object, ok: bool, expected: str) -> None:
    """Raises ValueError naming the option, what was found and what is expected, unless `ok`."""
    if not ok:
        raise ValueError(f"{name}: found {found!r}, expected {expected}")
