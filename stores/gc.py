"""Finds and deletes what nobody needs any more; touches only files that are ours by name."""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stores import files, keys, leases
from stores.files import Listed
from stores.plan import StagePlan
from stores.store import SHARD_FILE, SNAPSHOT, Store

KINDS = ("summary file", "data file", "partial file", "job file", "model file")
_STORE = r"(?P<store>frames|pose|flow|render/[^/]+)"
_IN_STORE = re.compile(rf"{_STORE}/(?:{re.escape(SNAPSHOT)}|shards/(?P<name>[^/]+))")
_MODEL = re.compile(r"models/(?P<sha256>[0-9a-f]{64})/[^/]+")
_JOB = re.compile(
    rf"{leases.FOLDER}/(?P<job>{leases.JOB_ID.pattern})/"
    r"(?:plan\.parquet|job\.json|lease\.json|dataflow\.json|job\.log|workers\.log|stop|(?:progress|workers|done)/[^/]+)"
)
_PARTIAL = re.compile(
    r"(?:(?:frames|pose|flow|render|models|jobs|runs|reports)/(?:.*/)?)?"
    + re.escape(files.PARTIAL_PREFIX)
    + r"[a-z0-9_]{8}-[^/]+"
)
_PINS = re.compile(r"runs/(?:.+/)?pins\.json")
_SHA256 = re.compile(r"\b[0-9a-f]{64}\b")


@dataclass(frozen=True)
class Garbage:
    """A file that nobody needs; `name` is its path in the workspace, `kind` one of KINDS."""

    name: str
    kind: str
    size_bytes: int


@dataclass
class _Needs:
    """What has to stay.

    Attributes:
        names: store → names of files and stems of names.
        readable: stores whose snapshot says what is needed of them.
        models: digests of model files.
        jobs: ids of jobs that still run.
    """

    names: dict[str, set[str]] = field(default_factory=dict)
    readable: set[str] = field(default_factory=set)
    models: set[str] = field(default_factory=set)
    jobs: set[str] = field(default_factory=set)

    def add(self, store: str, names: Iterable[str | None]) -> None:
        self.names.setdefault(store, set()).update(n for n in names if n)

    def add_spec(self, spec: Mapping[str, Any]) -> None:
        self.models |= set(_SHA256.findall(keys.canonical_json(spec)))


def find_garbage(
    workspace: str,
    *,
    plans: Sequence[StagePlan],
    unplanned: Collection[str] = (),
    min_age_s: float,
    now_s: float,
) -> list[Garbage]:
    """Files that no snapshot, no plan, no running job and no running training needs, and that are old enough.

    Nothing is deleted of a store that has no readable snapshot: there nothing says what is needed.

    Args:
        plans: what the present configuration expects.
        unplanned: stores that could not be planned; nothing of them is garbage.
        min_age_s: younger files stay; those from the future, after a clock stepped back, count as young.
        now_s: POSIX time.

    Raises:
        ValueError: what a running job or training needs cannot be read.
    """
    tree = files.list_tree(workspace)  # before the needs: who begins to need something later finds it young
    needs = _needs(workspace, tree, plans, now_s)
    old = {name: found for name, found in tree.items() if now_s - found.modified_s >= min_age_s}
    found = [
        *_shard_files(old, needs, unplanned),
        *(Garbage(n, "partial file", f.size_bytes) for n, f in old.items() if _PARTIAL.fullmatch(n)),
        *_job_files(tree, old, needs),
        *_model_files(old, needs),
    ]
    return sorted(found, key=lambda g: (KINDS.index(g.kind), g.name))


def delete(workspace: str, garbage: Iterable[Garbage]) -> None:
    """Deletes files in the order given, and the folders of jobs and models that become empty."""
    folders = set()
    for found in garbage:
        files.remove(files.join(workspace, found.name))
        if found.kind in ("job file", "model file"):
            folders.add("/".join(found.name.split("/")[:2]))
    for folder in sorted(folders):
        files.remove_empty_folder(files.join(workspace, folder))


def _needs(workspace: str, tree: Mapping[str, Listed], plans: Sequence[StagePlan], now_s: float) -> _Needs:
    needs = _Needs()
    for plan in plans:
        needs.add_spec(plan.spec)
        needs.add(plan.store.name, (n for r in plan.standing.values() for n in (r.summary, r.data)))
    for name in {m["store"] for m in map(_IN_STORE.fullmatch, tree) if m}:
        snapshot = Store(workspace, name).snapshot()
        if snapshot:
            needs.readable.add(name)
            needs.add_spec(snapshot.spec)
            needs.add(name, (n for s in snapshot.shards for n in (s.summary, s.data)))
    for name in filter(_PINS.fullmatch, tree):
        for store, names in (_read(workspace, name) or {"stores": {}})["stores"].items():
            needs.add(store, names)
    _add_jobs(needs, workspace, tree, now_s)
    return needs


def _add_jobs(needs: _Needs, workspace: str, tree: Mapping[str, Listed], now_s: float) -> None:
    for job in {m["job"] for m in map(_JOB.fullmatch, tree) if m}:
        folder = f"{leases.FOLDER}/{job}"
        elsewhere = tree.get(f"{folder}/{leases.ON_DATAFLOW}")
        may_go_on = elsewhere is not None and now_s - elsewhere.modified_s < leases.DATAFLOW_S
        if not may_go_on and not leases.is_live(_read(workspace, f"{folder}/{leases.LEASE}"), now_s):
            continue
        needs.jobs.add(job)
        about = _read(workspace, f"{folder}/{leases.JOB}") or {"spec": {}, "needs": {}}
        needs.add_spec(about["spec"])
        for store, names in about["needs"].items():
            needs.add(store, names)


def _read(workspace: str, name: str) -> dict[str, Any] | None:
    """A JSON file of the workspace; None where it is gone meanwhile.

    Raises:
        ValueError: it holds something else.
    """
    uri = files.join(workspace, name)
    try:
        found = json.loads(files.read_bytes(uri))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(
            f"{files.printable(uri)} cannot be read ({error}), so nobody knows what is needed and nothing is deleted; "
            "remove that file when what wrote it has ended"
        ) from error
    return dict(found)


def _shard_files(old: Mapping[str, Listed], needs: _Needs, unplanned: Collection[str]) -> Iterator[Garbage]:
    for path, found in old.items():
        place = _IN_STORE.fullmatch(path)
        shard = SHARD_FILE.fullmatch(place["name"] or "") if place else None
        if not place or not shard or place["store"] in unplanned or place["store"] not in needs.readable:
            continue
        if not {shard[0], shard["stem"]} & needs.names[place["store"]]:
            yield Garbage(path, "data file" if shard["data"] else "summary file", found.size_bytes)


def _job_files(tree: Mapping[str, Listed], old: Mapping[str, Listed], needs: _Needs) -> Iterator[Garbage]:
    """All files of a job, once the last of them is old: its log stays until then."""
    by_job: dict[str, list[str]] = {}
    for name in tree:
        place = _JOB.fullmatch(name)
        if place and place["job"] not in needs.jobs:
            by_job.setdefault(place["job"], []).append(name)
    for names in by_job.values():
        if all(name in old for name in names):
            yield from (Garbage(name, "job file", tree[name].size_bytes) for name in names)


def _model_files(old: Mapping[str, Listed], needs: _Needs) -> Iterator[Garbage]:
    for name, found in old.items():
        place = _MODEL.fullmatch(name)
        if place and place["sha256"] not in needs.models:
            yield Garbage(name, "model file", found.size_bytes)
