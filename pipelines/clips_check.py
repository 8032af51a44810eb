"""Looks over a clips table before hours are spent on it."""

from collections.abc import Iterable

from pipelines.importers import describe
from stores import files
from stores.clips import ClipsTable


def missing_videos(uris: Iterable[str]) -> list[str]:
    """The uris without a file, sorted; costs one listing a folder and opens nothing."""
    by_folder: dict[str, list[str]] = {}
    for uri in sorted(set(uris)):
        by_folder.setdefault(uri.rpartition("/")[0], []).append(uri)
    missing = []
    for folder, here in by_folder.items():
        names = files.list_names(folder or "/")
        missing += [uri for uri in here if uri.rpartition("/")[2] not in names]
    return missing


def check_clips(clips: ClipsTable, *, max_rejected: float) -> str:
    """One line of counts: clips, classes, groups, splits, missing videos.

    Args:
        max_rejected: share of clips without a video that is let pass; they will be rejected.

    Raises:
        ValueError: more clips have no video.
    """
    missing = set(missing_videos(clips.uris))
    lost = sum(uri in missing for uri in clips.uris)
    if lost > max_rejected * len(clips):
        first = files.printable(min(missing))
        raise ValueError(
            f"{lost} of {len(clips)} clips have no video file, more than max_rejected {max_rejected:g} allows; "
            f"the first is {first}"
        )
    return f"{'; '.join(describe(clips))}; {lost} without a video file"
