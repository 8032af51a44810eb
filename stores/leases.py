"""A running job: its folder under `jobs/`, what it needs to stay, and the lease that says that it still runs."""

import contextlib
import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from stores import files
from stores.plan import ShardTask, StagePlan
from stores.store import stem_of

FOLDER = "jobs"
JOB, LEASE, ON_DATAFLOW = "job.json", "lease.json", "dataflow.json"
JOB_ID = re.compile(r"(?:frames|pose|flow|render-[\w-]+)-\d{8}T\d{6}-\d+")
RENEW_S = 60.0
LIVE_S = 15 * 60.0
DATAFLOW_S = 10 * 86_400.0
"""Longer than this no batch job runs on Dataflow; it may go on without its launcher, and then has no lease."""


def new_job(workspace: str, store: str) -> str:
    """The folder of a job that begins now in this process."""
    # A number by chance: two containers begin in the same second, and both as process 1.
    job_id = f"{store.replace('/', '-')}-{time.strftime('%Y%m%dT%H%M%S')}-{secrets.randbelow(10**9)}"
    assert JOB_ID.fullmatch(job_id), job_id
    return files.join(workspace, FOLDER, job_id)


@contextlib.contextmanager
def held_lease(folder: str, *, renew_s: float = RENEW_S) -> Iterator[None]:
    """Keeps a lease on a job's folder while the block runs, renewed by a thread; removes it at the end."""
    uri = files.join(folder, LEASE)
    about = {"host": socket.gethostname(), "pid": os.getpid(), "started_s": time.time()}

    def put() -> None:
        files.put_bytes(uri, json.dumps({**about, "renewed_s": time.time()}).encode())

    def renew() -> None:
        while not ended.wait(renew_s):
            with contextlib.suppress(
                OSError
            ):  # the disk is full, the network is away: the next minute may do
                put()

    ended = threading.Event()
    put()
    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(OSError):
            files.remove(uri)


def is_live(lease: Mapping[str, Any] | None, now_s: float) -> bool:
    """Whether a job still runs, by its lease; a lease from the future, after a clock stepped back, is alive."""
    return lease is not None and now_s - float(lease["renewed_s"]) < LIVE_S


def needs_of(plan: StagePlan, tasks: Iterable[ShardTask], inputs: Sequence[str]) -> dict[str, list[str]]:
    """Store → names, or stems of names, that a job reads, copies, writes and will list in its snapshot.

    Args:
        inputs: names of the stores that the stage reads, in its order.
    """
    found: dict[str, set[str]] = {name: set() for name in (plan.store.name, *inputs)}
    own = found[plan.store.name]
    for reference in plan.standing.values():
        own |= {reference.summary, reference.data or reference.summary}
    own |= {stem_of(shard, plan.expected[shard], plan.encoding) for shard in plan.stale}
    for task in tasks:
        for clip in task.clips:
            own |= {clip.copy.data} if clip.copy else set()
            for name, source in zip(inputs, clip.inputs, strict=True):
                found[name].add(source.data)
    return {name: sorted(names) for name, names in found.items()}


def remove_job(folder: str) -> None:
    """Removes the folder of a job that has ended well."""
    for name in files.list_tree(folder):
        files.remove(files.join(folder, name))
    files.remove_empty_folder(folder)
