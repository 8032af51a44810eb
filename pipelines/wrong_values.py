"""What jsonargparse says of a wrong value, in one line."""

import re
from typing import Any, Literal, get_args, get_origin

_TYPE_NAMES = {
    "float": "a number",
    "int": "a whole number",
    "str": "text",
    "bool": "true or false",
    "tuple": "a list",
    "NoneType": "null",
}


def wrong_value(message: str) -> tuple[str, str] | None:
    """The key and, in words, what was found and what was expected; None where the message is about something else."""
    text = " ".join(message.split())
    key = re.search(r'key "([^"]+)"', text)
    found = re.search(r"(?:Got value|Given value): (.*)$", text)
    kinds = re.findall(r"Expected a (?:<class '(\w+)'>|typing\.Literal\[([^\]]+)\])", text)
    if not key or not found or not kinds:
        return None
    names = dict.fromkeys(_TYPE_NAMES.get(kind, kind) or f"one of {among}" for kind, among in kinds)
    return key[1], f"found {found[1]!r}, expected {' or '.join(names)}"


def expected_of(kind: Any) -> str:
    """What a value of this type is, in words."""
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(repr, get_args(kind)))
    name = (get_origin(kind) or kind).__name__
    return _TYPE_NAMES.get(name, name)
