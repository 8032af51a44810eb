"""Says in words how two documents or two lists of clips differ."""

from collections.abc import Mapping
from typing import Any

from stores.reasons import flatten

_MOST_NAMED = 4


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One phrase for each value that differs, named as in the configuration.

    The digest of the clips is left out: `clip_differences` says more about them.
    """
    flat_before, flat_now = flatten(before), flatten(now)
    names = [n for n in [*flat_now, *(n for n in flat_before if n not in flat_now)] if n != "clips"]
    changed = [n for n in names if flat_before.get(n) != flat_now.get(n)]
    phrases = [_phrase(n, flat_before.get(n), flat_now.get(n)) for n in changed]
    named = list(dict.fromkeys(phrase for phrase in phrases if phrase))
    more = len(named) - _MOST_NAMED
    return named[:_MOST_NAMED] + ([f"{more} more settings changed"] if more > 0 else [])


def _phrase(name: str, before: Any, now: Any) -> str:
    section, _, rest = name.partition(".")
    if section == "teachers":
        return f"teacher {rest} was trained again" if before and now else ""
    if name == "checkpoint":
        return "the run was trained again"
    if section == "stores":
        return _store_phrase(rest, before, now)
    if name == "labels":
        return "the label map has changed"
    if name == "version":
        return "this version trains or evaluates differently"
    return f"{name}: was {_shown(before)}, is {_shown(now)}"


def _store_phrase(name: str, before: Any, now: Any) -> str:
    stream, _, rest = name.partition(".")
    if rest == "store" and before and now:
        before, now = (str(store).removeprefix("render/") for store in (before, now))
        return f"render.variant: was {before}, is {now}"
    if rest.startswith("spec.") and before is not None and now is not None and "variant" not in rest:
        option = rest.removeprefix("spec.").removeprefix("options.")
        return f"store of {stream}: {option} was {_shown(before)}, is {_shown(now)}"
    return ""


def _shown(value: Any) -> str:
    return "nothing" if value is None else str(value)


def clip_differences(
    before: Mapping[str, Mapping[str, str]], now: Mapping[str, Mapping[str, str]]
) -> list[str]:
    """One phrase for each way in which the clips of a run have changed.

    Args:
        before, now: by clip_id, with key, label and split.
    """
    both = [clip_id for clip_id in now if clip_id in before]

    def changed(column: str) -> int:
        return sum(before[clip_id][column] != now[clip_id][column] for clip_id in both)

    counts = {
        "added": len(now) - len(both),
        "removed": len(before) - len(both),
        "made anew": changed("key"),
        "relabelled": changed("label"),
        "moved to another split": changed("split"),
    }
    return [f"{n} clip{'s were' if n > 1 else ' was'} {what}" for what, n in counts.items() if n]
