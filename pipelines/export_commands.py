"""The commands that write the stores in other people's formats. Heavy libraries are imported where they are used."""

import os
from collections.abc import Mapping
from typing import Any

from pipelines.command_setup import check_libraries, config_of
from pipelines.progress import Screen
from stores import files
from stores.checks import require


def export_mediasequence(
    out: str,
    *,
    config: str | None = None,
    split_column: str | None = None,
    num_files: int | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    overrides: Mapping[str, Any],
) -> int:
    """Write frames, flow, pose and label of every clip as MediaSequence TFRecord files, for DMVR and Scenic.

    Files are named <split>-00000-of-00004, and export.json holds the label map. Flow is requantised as MediaPipe
    does it (flow.jpeg_quality). Clips without a split, or rejected by one of the stores, are left out. Stores that were
    computed from other frames than there are now are refused.
    Example: perfnet export mediasequence export --config perfnet.yaml --split_column split_1

    Args:
        out: a new folder, local or gs://.
        config: YAML file.
        split_column: of the clips table (data.split).
        num_files: files a split; none makes about 256 clips a file.
        workers: threads, 0 = one a core (run.workers).
        overwrite: replace an earlier export.
        quiet: print the result only.
    """
    require("--num_files", num_files, num_files is None or 1 <= num_files <= 99_999, "between 1 and 99999")
    loaded = config_of(config, overrides, workers=workers)
    check_libraries()
    from pipelines.export import Layout
    from pipelines.export import export_mediasequence as export
    from pipelines.prepare import own_specs
    from stores.clips import read_clips

    clips = read_clips(loaded.workspace)
    layout = Layout(split_column or loaded.data.split, num_files, loaded.flow.jpeg_quality)
    exported = export(
        loaded.workspace,
        clips,
        files.check_uri(out),
        layout,
        workers=loaded.run.workers or len(os.sched_getaffinity(0)),
        overwrite=overwrite,
        screen=Screen(quiet=quiet),
        pose_specs=own_specs("pose", loaded, clips),
    )
    for split, count in exported.clips.items():
        print(f"{split}: {count} clips in {exported.files[split]} files")
    if exported.left_out:
        named = ", ".join(map(files.printable, exported.left_out[:5]))
        more = ", …" if len(exported.left_out) > 5 else ""
        print(f"left out, because a store does not hold them: {len(exported.left_out)} clips ({named}{more})")
    print(files.printable(out))
    return 0


def export_coco(
    out: str,
    *,
    config: str | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    overrides: Mapping[str, Any],
) -> int:
    """Write the people of the pose store as one COCO keypoints JSON file.

    Every frame is an image named <clip_id>/<frame>.jpg. Keypoints with a score of at least pose.min_keypoint_score
    are marked visible, others as hidden; all scores are under keypoint_scores.
    Example: perfnet export coco people.json --config perfnet.yaml

    Args:
        out: a new file, local or gs://.
        config: YAML file.
        overwrite: replace a file that is there.
        quiet: print the result only.
    """
    from pipelines.export_coco import export_coco as export

    loaded = config_of(config, overrides)
    images, people = export(
        loaded.workspace,
        files.check_uri(out),
        min_keypoint_score=loaded.pose.min_keypoint_score,
        overwrite=overwrite,
        screen=Screen(quiet=quiet),
    )
    print(f"{images} images, {people} people\n{files.printable(out)}")
    return 0
