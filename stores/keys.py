"""Keys: what a clip or a shard should contain, as sha256 over canonical JSON."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from json.encoder import encode_basestring
from typing import Any

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces; refuses NaN and anything that JSON does not know."""
    return _CANONICAL.encode(value)


def digest(value: object) -> str:
    """sha256 of the canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def shard_of(clip_id: str, num_shards: int) -> int:
    """The shard index of a clip, the same in every store."""
    return int.from_bytes(hashlib.sha256(clip_id.encode()).digest()) % num_shards


def frames_clip_key(spec: Mapping[str, Any], content: str, start_s: float, stop_s: float | None) -> str:
    """Key of a clip in the frames store: spec, content digest of the video, segment."""
    return frames_clip_keys(spec)(content, start_s, stop_s)


def frames_clip_keys(spec: Mapping[str, Any]) -> Callable[[str, float, float | None], str]:
    """The same for many clips: the digest of [spec, content, start_s, stop_s], of which the spec is hashed once.

    Seconds are hashed as floating-point numbers, also where they are whole.
    """
    begun = hashlib.sha256(f"[{canonical_json(spec)},".encode())

    def key(content: str, start_s: float, stop_s: float | None) -> str:
        found = begun.copy()
        # Written out, because a JSON encoder takes longer to make than this takes to write.
        stop = "null" if stop_s is None else float.__repr__(float(stop_s))
        found.update(f"{encode_basestring(content)},{float.__repr__(float(start_s))},{stop}]".encode())
        return found.hexdigest()

    return key


def clip_key(spec: Mapping[str, Any], input_keys: Sequence[str]) -> str:
    """Key of a clip in any other store: spec and the clip's keys in the input stores."""
    return digest([spec, list(input_keys)])


def held_digest(clips: Iterable[tuple[str, str]]) -> str:
    """Digest of the (clip_id, clip key) pairs that a shard really holds."""
    return digest(sorted(map(list, clips)))


def shard_key(spec: Mapping[str, Any], held: Sequence[str]) -> str:
    """What a shard should contain: spec and the held digests of the same shard in the input stores.

    For frames the one held digest is that of the clips table's rows with their expected clip keys.
    """
    return digest([spec, list(held)])
