"""The commands that import known data sets from their official annotation files, and the one that checks clips."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.command_setup import config_of
from pipelines.progress import Screen
from stores import files

if TYPE_CHECKING:
    from pipelines.chain import Chain
    from pipelines.importers_official import Imported


def clips_kinetics(annotations: list[str], *, videos: str, workspace: str = "workspace") -> int:
    """Write clips.parquet from annotation files of Kinetics-400, -600 or -700.

    The videos are cut already: <youtube_id>_<start>_<stop>.mp4, in folders of classes or not. Clips without a video or
    a label are counted and listed in clips-left-out.csv. The column split trains on train and judges on the
    validation clips, as the papers do; split_official keeps the official names.
    Example: perfnet clips kinetics train.csv validate.csv --videos /data/kinetics600 --workspace work

    Args:
        annotations: CSV files with youtube_id, time_start, time_end, label and split.
        videos: folder of the videos.
        workspace: where clips.parquet goes.
    """
    from pipelines.importers_kinetics import clips_from_kinetics

    return _write(workspace, clips_from_kinetics(annotations, videos=videos))


def clips_ucf101(folder: str, *, splits: str, workspace: str = "workspace") -> int:
    """Write clips.parquet of UCF-101 with its three official splits as split_1, split_2, split_3.

    Example: perfnet clips ucf101 UCF-101 --splits ucfTrainTestlist --workspace work

    Args:
        folder: holds one folder of videos for each class.
        splits: folder with trainlist01.txt, testlist01.txt and so on.
        workspace: where clips.parquet goes.
    """
    from pipelines.importers_official import clips_from_ucf101

    return _write(workspace, clips_from_ucf101(folder, splits=splits))


def clips_hmdb51(folder: str, *, splits: str, workspace: str = "workspace") -> int:
    """Write clips.parquet of HMDB-51 with its three official splits as split_1, split_2, split_3.

    Example: perfnet clips hmdb51 hmdb51_org --splits testTrainMulti_7030_splits --workspace work

    Args:
        folder: holds one folder of videos for each class.
        splits: folder with <class>_test_split1.txt and so on.
        workspace: where clips.parquet goes.
    """
    from pipelines.importers_official import clips_from_hmdb51

    return _write(workspace, clips_from_hmdb51(folder, splits=splits))


def clips_check(
    *,
    config: str | None = None,
    max_rejected: float | None = None,
    write: bool = False,
    overrides: Mapping[str, Any],
    beam_args: Sequence[str],
) -> int:
    """Check configuration and clips table before any work: counts in one line, or what is wrong.

    With Beam options after `--`, also what a job with them would be refused for.
    Example: perfnet clips check --config perfnet.yaml

    Args:
        config: YAML file.
        max_rejected: largest share of clips that may lack a video file (run.max_rejected).
        write: write the table that clips.folder gives, where the workspace holds another.
    """
    from pipelines.chain import Chain
    from pipelines.clips_check import check_clips

    loaded = config_of(config, overrides, max_rejected=max_rejected)
    chain = Chain(loaded, Screen(quiet=True), beam_args, look_only=True)
    print(check_clips(chain.clips, max_rejected=loaded.run.max_rejected))
    if write:
        print(f"clips.parquet: {_written(chain)}")
    return 0


def _written(chain: "Chain") -> str:
    """Writes the clips table where the workspace holds another; returns what became of the file."""
    from stores.clips import write_clips

    if not chain.clips_change:
        return "unchanged"
    write_clips(chain.config.workspace, chain.clips)
    return "written"


def _write(workspace: str, imported: "Imported") -> int:
    from pipelines.importers import describe
    from pipelines.importers_official import LEFT_OUT_FILE
    from stores.clips import write_clips

    write_clips(workspace, imported.clips)
    listed = files.join(workspace, LEFT_OUT_FILE)
    files.put_bytes(listed, _table(imported).encode())
    print(*describe(imported.clips), sep="\n")
    if imported.left_out:
        reasons = [row.reason for row in imported.left_out]
        counts = ", ".join(f"{reasons.count(reason)} {reason}" for reason in dict.fromkeys(reasons))
        print(f"{len(reasons)} left out ({counts}), listed in {listed}")
    print(files.join(workspace, "clips.parquet"))
    return 0


def _table(imported: "Imported") -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("clip_id", "label", "reason"))
    for row in imported.left_out:
        writer.writerow(tuple(map(files.printable, (row.clip_id, row.label, row.reason))))
    return text.getvalue()
