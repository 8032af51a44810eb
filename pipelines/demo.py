"""The demo: sample videos, then the whole chain on them."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.chain import Chain, selection
from pipelines.command_setup import record_config
from pipelines.config import load_config
from pipelines.progress import Screen
from pipelines.results import show_results
from pipelines.stages import STAGES
from stores import files
from stores.store import Store

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "demo.yaml"


def run_demo(folder: str, overrides: Mapping[str, Any], screen: Screen) -> int:
    """Writes the sample videos, runs everything that is stale, prints counts, accuracies and where the files are.

    Raises:
        ValueError: the recipe is not beside the code, which only a checkout has.
    """
    from pipelines.samples import mean_frame_accuracy, write_sample_videos

    if not RECIPE.is_file():
        raise ValueError(f"{RECIPE} is missing: run the demo from a checkout of perfnet")
    root = Path(folder).absolute()
    videos = write_sample_videos(root / "videos")
    screen.line(f"demo: {len(videos)} sample videos in {root / 'videos'}")
    places = {"workspace": str(root / "workspace"), "clips.folder": str(root / "videos")}
    config = load_config(str(RECIPE), {**places, **overrides})
    chain = Chain(config, screen)
    items = selection((), config)
    chain.show_plan(chain.plan(items))
    record_config(config)
    chain.run(items)
    _show_counts(chain)
    print(f"\na linear classifier on the mean frame alone: {mean_frame_accuracy(videos):.2f} (chance 0.17)\n")
    show_results(config.workspace)
    _show_files(root, config.workspace)
    return 0


def _show_counts(chain: Chain) -> None:
    print(f"\n{'store':<26} {'clips in':>8} {'out':>5} {'rejected':>8} {'frames':>7}")
    for outcome in chain.outcomes:
        totals, rejected = outcome.snapshot.totals, outcome.snapshot.rejected
        print(
            f"{outcome.store:<26} {outcome.clips_in:>8} {totals['clips']:>5} {rejected:>8} {totals['frames']:>7}"
        )
    print(f"frames with a person: {_person_share(chain):.1%}")


def _person_share(chain: Chain) -> float:
    """Share of all frames in which the pose store has somebody."""
    import pyarrow.parquet as pq

    store = Store(chain.config.workspace, "pose")
    snapshot = store.require_snapshot()
    seen = 0
    for shard in snapshot.shards:
        if shard.data:
            with files.open_read(store.shard_uri(shard.data)) as file:
                table = pq.read_table(file, columns=["clip_id", "frame"])
            seen += table.group_by(["clip_id", "frame"]).aggregate([]).num_rows
    return seen / snapshot.totals["frames"]


def _show_files(root: Path, workspace: str) -> None:
    relative = os.path.relpath(root)
    shown = relative if not relative.startswith("..") else str(root)
    print(f"\nvideos       {shown}/videos")
    print(f"stores       {shown}/workspace/{{{','.join(s for s in STAGES)}}}")
    print(f"checkpoints  {shown}/workspace/runs/{{rgb,pose,flow,student}}/checkpoints/final.pt")
    print(f"predictions  {shown}/workspace/runs/{{rgb,pose,flow,student}}/predictions.parquet")
    print(f"try          perfnet predict {shown}/videos/rise/g01_c01.mp4 --workspace {shown}/workspace")
