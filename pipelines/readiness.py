"""Whether all that training reads is up to date, and what it holds: decides whether a training is worth starting."""

from models.options import RUNS
from pipelines.chain import Chain, selection
from pipelines.stages import STAGES, store_name
from stores import files, keys
from stores.clips import ClipsTable

_DIGITS = 16


def obstacle(chain: Chain) -> str:
    """Why training cannot start yet, in one line; "" where nothing stands in its way."""
    workspace = chain.config.workspace
    if not files.is_local(workspace):
        found = files.printable(workspace)
        return f"workspace: {found} is not local, and training writes its runs to a local workspace"
    if chain.clips_change:
        return "clips.parquet is not what clips.folder gives; run `perfnet clips check --write`"
    late = [stage for stage in _read_by_training(chain) if chain.committed(stage) is None]
    names = " and ".join(store_name(stage, chain.config) for stage in late)
    return f"{names} {'are' if len(late) > 1 else 'is'} not up to date" if late else ""


def holdings(chain: Chain) -> dict[str, str]:
    """The clips table and each store that training reads, by name → a digest of what it holds."""
    found = {"clips": _digest_of(chain.clips)}
    for stage in _read_by_training(chain):
        snapshot = chain.committed(stage)
        assert snapshot, 'asked for before `obstacle` was ""'
        found[snapshot.store] = snapshot.key[:_DIGITS]
    return found


def _read_by_training(chain: Chain) -> list[str]:
    """Stages whose stores the three teachers and the student read, and what these are made from."""
    chosen = selection([f"train-{run}" for run in RUNS], chain.config)
    return [item for item in chosen if item in STAGES]


def _digest_of(clips: ClipsTable) -> str:
    """Changes with labels and splits, and with which clips there are; what they show is in the stores' digests."""
    splits = {name: list(column) for name, column in clips.splits.items()}
    return keys.digest([list(clips.clip_ids), list(clips.labels), splits])[:_DIGITS]
