"""Commands that look after a workspace: what is damaged, what is no longer needed."""

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pipelines.command_setup import check_libraries, config_of
from pipelines.config import Config, load_config
from pipelines.exit_codes import EXIT_FAILED, EXIT_NOTHING
from pipelines.progress import Screen
from pipelines.stages import STAGES, store_name
from pipelines.units import size
from stores import files
from stores.checks import require

if TYPE_CHECKING:
    from stores.plan import StagePlan
    from stores.verify import Damage

_HOUR_S = 3600.0
_SHOW_S = 5.0


def ready(*, config: str | None = None, skip_code: bool = False, overrides: Mapping[str, Any]) -> int:
    """Say whether all that training reads is up to date, and what it holds: digests by name, as JSON in one line.

    Clips that were rejected for a passing reason stand in nobody's way.
    Example: perfnet ready --config perfnet.yaml

    Args:
        config: YAML file.
        skip_code: exit with 99, instead of 1, when it is not.
    """
    from pipelines.chain import Chain
    from pipelines.readiness import holdings, obstacle

    check_libraries()
    chain = Chain(config_of(config, overrides), Screen(quiet=True), look_only=True)
    found = obstacle(chain)
    print(f"not ready: {found}" if found else json.dumps(holdings(chain)))
    return (EXIT_NOTHING if skip_code else EXIT_FAILED) if found else 0


def gc(
    *,
    config: str | None = None,
    dry_run: bool = False,
    min_age_h: float = 24.0,
    quiet: bool = False,
    overrides: Mapping[str, Any],
) -> int:
    """Delete files that nobody needs any more: superseded shards, leftovers of killed runs, unused models.

    What a committed store lists stays, and what a running job, a running training or the present configuration
    needs (that of --config and that of the last run), and everything young. Only files that are perfnet's own by
    name are touched.
    Example: perfnet gc --config perfnet.yaml --dry_run

    Args:
        config: YAML file.
        dry_run: say what would be deleted, and delete nothing.
        min_age_h: younger files stay, in hours.
        quiet: print the totals only.
    """
    from stores.gc import delete, find_garbage
    from stores.store import Store

    require("--min_age_h", min_age_h, min_age_h >= 0, "at least 0")
    check_libraries()
    loaded = config_of(config, overrides)
    plans, unplanned = _plans(loaded)
    for name, reason in unplanned.items():
        if Store(loaded.workspace, name).listing():
            print(f"{name}: left alone, it cannot be planned: {files.printable(reason)}")
    found = find_garbage(
        loaded.workspace,
        plans=plans,
        unplanned=unplanned,
        min_age_s=min_age_h * _HOUR_S,
        now_s=time.time(),
    )
    if not dry_run:
        delete(loaded.workspace, found)
    for garbage in () if quiet else found:
        print(f"{garbage.kind}\t{size(garbage.size_bytes)}\t{files.printable(garbage.name)}")
    kinds = ", ".join(f"{count} {kind}s" for kind, count in Counter(g.kind for g in found).items())
    total = size(sum(g.size_bytes for g in found))
    print(
        f"{'would delete' if dry_run else 'deleted'} {len(found)} files, {total}{': ' if kinds else ''}{kinds}"
    )
    return 0


def _plans(config: Config) -> tuple[list["StagePlan"], dict[str, str]]:
    """What this configuration and that of the last run expect, and the stores for which nobody can tell, with why."""
    from pipelines.chain import Chain

    configs, record = [config], files.join(config.workspace, "perfnet.yaml")
    if files.exists(record):
        configs.append(load_config(record, {"workspace": config.workspace}))
    plans: list[StagePlan] = []
    unplanned: dict[str, str] = {}
    for each in configs:
        chain = Chain(each, Screen(quiet=True), look_only=True)
        for stage in STAGES:
            try:
                planned, reason = chain.planned(stage), "a store that it reads is not committed"
            except ValueError as error:
                planned, reason = None, str(error)
            if planned:
                plans.append(planned)
            else:
                unplanned[store_name(stage, each)] = reason
    return plans, unplanned


def verify(
    stores: list[str],
    *,
    config: str | None = None,
    videos: bool = False,
    remove_damaged: bool = False,
    quiet: bool = False,
    overrides: Mapping[str, Any],
) -> int:
    """Read every shard and compare checksum, counts, schema and clip index with what was committed.

    Ends with exit code 1 where something is damaged.
    Example: perfnet verify flow --config perfnet.yaml --videos

    Args:
        stores: frames, pose, render, flow or a store's full name; none means all that are there.
        config: YAML file.
        videos: read every video again too; the next run computes the clips of those whose content has changed.
        remove_damaged: remove the summaries of damaged shards, so that the next run makes just these again.
        quiet: print what is damaged only.
    """
    from stores.store import Store
    from stores.verify import remove_damaged as remove
    from stores.verify import verify_store

    loaded, screen = config_of(config, overrides), Screen(quiet=quiet)
    found: list[Damage] = []
    for name in _store_names(stores, loaded):
        found += verify_store(Store(loaded.workspace, name), _progress(screen, name, "shards"))
    for damage in found:
        print(f"{damage.store}: {damage.name} {damage.problem}")
    if found and remove_damaged:
        remove(loaded.workspace, found)
    if found:
        stages = " ".join(dict.fromkeys(d.store.split("/")[0] for d in found))
        first = (
            "the damaged shards are taken out" if remove_damaged else "run `perfnet verify --remove_damaged`"
        )
        print(f"{len(found)} damaged files; {first}, then `perfnet run {stages}` makes just these again")
    unread = _verify_videos(loaded, screen) if videos else []
    return EXIT_FAILED if found or unread else 0


def _store_names(wanted: list[str], config: Config) -> list[str]:
    """The named stores; those of the configuration that are there where none is named.

    Raises:
        ValueError: an unknown store, or nothing is there.
    """
    from stores.records import kind_of
    from stores.store import SNAPSHOT, Store

    if wanted:
        for name in wanted:
            kind_of(name)
        return [store_name(name, config) for name in wanted]
    names = [store_name(stage, config) for stage in STAGES]
    found = [n for n in names if files.exists(files.join(Store(config.workspace, n).folder, SNAPSHOT))]
    if not found:
        raise ValueError(
            f"{files.printable(config.workspace)} holds no committed store of this configuration; run `perfnet run`"
        )
    return found


def _verify_videos(config: Config, screen: Screen) -> list[str]:
    """Says which videos have changed; returns those that could not be read."""
    from pipelines.chain import Chain
    from stores.verify import verify_videos

    clips = Chain(config, screen, look_only=True).clips
    found, unread = verify_videos(config.workspace, clips.uris, _progress(screen, "videos", "videos"))
    changed = {v.uri for v in found}
    for uri in sorted(changed):
        print(f"videos: {files.printable(uri)} has another content than when it was read")
    if changed:
        affected = sum(uri in changed for uri in clips.uris)
        print(
            f"{len(changed)} videos have changed; the next `perfnet run` computes their {affected} clips again"
        )
    for uri in unread:
        print(f"videos: {files.printable(uri)} cannot be read for now; run the same command again")
    return unread


def _progress(screen: Screen, what: str, unit: str) -> Callable[[int, int], None]:
    """Shows how far a verification is, every few seconds, and its end."""
    started = shown = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if done == total:
            screen.line(f"verify: {what}: {total} {unit}")
        elif now - shown >= _SHOW_S:
            shown = now
            rate = done / (now - started)
            screen.live(
                f"verify: {what}: {done} of {total} {unit}, {rate:.1f}/s, {(total - done) / rate:.0f} s left"
            )

    return show
