"""Says in words why shards are stale."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from stores import keys
from stores.summaries import Encoding, Snapshot


def stale_reason(
    stale: Sequence[int],
    expected: Mapping[int, str],
    spec: Mapping[str, Any],
    encoding: Encoding,
    previous: Snapshot | None,
    listing: set[str],
) -> str:
    """Why shards are stale, for the printed plan."""
    if not stale:
        return ""
    if previous is None:
        done = len(expected) - len(stale)
        return f"not finished yet, {done} of {len(expected)} shards are done" if done else "not computed yet"
    if keys.canonical_json(previous.spec) != keys.canonical_json(spec):
        return "; ".join(spec_differences(previous.spec, spec))
    if previous.encoding != encoding:
        return "; ".join(differences(asdict(previous.encoding), asdict(encoding)))
    by_shard = {r.shard: r for r in previous.shards}
    changed = [s for s in stale if by_shard[s].key != expected[s]]
    transient = sum(by_shard[s].rejected_transient for s in stale if s not in changed)
    lost = [
        s
        for s in stale
        if s not in changed and not by_shard[s].rejected_transient and not by_shard[s].rejected_data
    ]
    parts = (
        [f"clips added, removed or changed in {len(changed)} of {len(expected)} shards"] if changed else []
    )
    parts += [f"{transient} clips to try again"] if transient else []
    parts += [f"files of {len(lost)} shards are missing"] if lost else []
    return "; ".join(parts) or "rejected clips to try again"


def spec_differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What changed between two specs, in the names that a user types: `flow.bound_px: was 20, is 15`."""
    prefix = f"{after['stage']}."
    changed = differences(before["options"], after["options"], prefix)
    if before["version"] != after["version"]:
        changed.append(f"{prefix[:-1]} is computed by version {after['version']}, was {before['version']}")
    return changed


def differences(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What changed between two nested mappings, as `name: was a, is b`."""
    was, now = flatten(before, prefix), flatten(after, prefix)
    changed = [name for name in sorted({*was, *now}) if was.get(name) != now.get(name)]
    return [f"{name}: was {_short(was.get(name))}, is {_short(now.get(name))}" for name in changed]


def flatten(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as one, its keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _short(value: object) -> str:
    text = "the default" if value is None else str(value)
    return text if len(text) <= 60 else text[:16] + "…"
