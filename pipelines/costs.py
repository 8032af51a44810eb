"""What a plan would cost, stage by stage, in words."""

from collections.abc import Callable, Iterable, Mapping

from pipelines.chain import Chain, needs
from pipelines.prepare import has_present_spec
from pipelines.stages import STAGES, store_name
from pipelines.units import size
from stores.cost import Estimate, Rate, Work, estimate, measured_rate, work_after
from stores.store import Store


def costs(chain: Chain, stale: Iterable[str]) -> dict[str, Estimate]:
    """Stage → what it would cost, for the stale ones of a plan in order; stages after a stale one count its changes."""
    works, found = dict[str, Work](), dict[str, Estimate]()
    stages = [stage for stage in stale if stage in STAGES]
    frames = _rate(chain, "frames") if stages else None
    for stage in stages:
        upstream = [works[name] for name in needs(stage, chain.config) if name in works]
        works[stage] = work_after(_own_work(chain, stage), upstream, chain.clips.clip_ids)
        found[stage] = estimate(
            works[stage], _rate(chain, stage), frames_per_clip=frames.frames_per_clip if frames else None
        )
    return found


def _own_work(chain: Chain, stage: str) -> Work | None:
    """The work of a stage as its inputs are now; none of its own where only its inputs have to be made whole."""
    work = chain.work(stage)
    return Work({}) if work is None and has_present_spec(stage, chain.config) else work


def _rate(chain: Chain, stage: str) -> Rate | None:
    """What was measured: by the finished shards, also those of a run cut short, else by those that readers see."""
    planned = chain.planned(stage)
    finished = measured_rate(planned.standing.values() if planned else ())
    if finished and finished.milliseconds_per_frame is not None:
        return finished
    snapshot = Store(chain.config.workspace, store_name(stage, chain.config)).snapshot()
    return measured_rate(snapshot.shards if snapshot else ()) or finished


def cost_line(found: Estimate) -> str:
    """One line: clips, frames, copies, core-hours and bytes."""
    frames = "an unknown number of" if found.frames is None else str(found.frames)
    does = f"computes {found.clips} clips, {frames} frames; copies {found.copied} clips"
    if found.clips == 0:
        return does
    if found.core_hours is None:
        return f"{does}; no rate measured yet"
    return f"{does}; about {hours(found.core_hours)}, {size(found.size_bytes or 0)}"


def hours(core_hours: float) -> str:
    """Core-hours for people, in seconds where they are few."""
    seconds = core_hours * 3600
    return f"{seconds:.1f} core-seconds" if seconds < 100 else f"{core_hours:.2f} core-hours"


def show_costs(chain: Chain, reasons: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Says for each stale stage of a plan what it would cost."""
    for stage, found in costs(chain, [item for item, reason in reasons.items() if reason]).items():
        say(f"cost: {store_name(stage, chain.config)}: {cost_line(found)}")
