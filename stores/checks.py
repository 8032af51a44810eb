"""One style for refusing a value: what, found, do."""


def require(name: str, found: object, ok: bool, expected: str) -> None:
    """Raises ValueError naming the option, what was found and what is expected, unless `ok`."""
    if not ok:
        raise ValueError(f"{name}: found {found!r}, expected {expected}")
