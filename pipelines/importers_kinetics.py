"""Makes the clips table of Kinetics-400, -600 and -700 from their annotation files."""

import csv
import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipelines.importers import videos_below
from pipelines.importers_official import Imported, LeftOut
from stores import files
from stores.clips import make_clips

# The names of the official files, and those of the crawler's own tables.
_COLUMNS = {
    "label": ("label", "class label"),
    "youtube_id": ("youtube_id", "youtube identifier"),
    "time_start": ("time_start", "start time"),
    "time_end": ("time_end", "end time"),
    "split": ("split",),
}
_REQUIRED = ("youtube_id", "time_start", "time_end")
_SPLITS = {"train": "train", "val": "val", "validate": "val", "validation": "val", "test": "test"}
_YOUTUBE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class _Segment:
    """One row of an annotation file; the label is empty where the test set keeps it back."""

    youtube_id: str
    name: str
    label: str
    split: str


def clips_from_kinetics(annotations: Sequence[str], *, videos: str) -> Imported:
    """Kinetics, with the clips cut out already: `<youtube_id>_<start>_<stop>.mp4`, six digits each, in any sub-folder.

    Two split columns: `split_official` as the files say, and `split` as the papers use it: trained on train, judged
    on the validation clips (test), the official test clips unused where there are validation clips. The group is the
    YouTube video.

    Args:
        annotations: CSV files with youtube_id, time_start, time_end, and label and split where they are known; without
            the column split, the file's name says it.
        videos: folder of the cut videos.

    Raises:
        ValueError: naming file, line and column; or none of the videos is there.
    """
    if not annotations:
        raise ValueError("clips kinetics: name at least one annotation CSV file")
    root = os.path.abspath(files.local_path(files.check_uri(videos)))
    if not os.path.isdir(root):
        raise ValueError(f"--videos: {files.printable(videos)} is not a folder")
    segments = [segment for path in annotations for segment in _segments(path)]
    paths = _by_stem(root)
    judged = "val" if any(s.split == "val" for s in segments) else "test"
    rows: dict[str, dict[str, object]] = {}
    left_out: list[LeftOut] = []
    for segment in segments:
        reason = _unusable(segment, rows, paths)
        if reason:
            left_out.append(LeftOut(segment.name, segment.label, reason))
        else:
            rows[segment.name] = _row(segment, paths[segment.name], judged)
    if not rows:
        shown = files.printable(segments[0].name if segments else "<youtube_id>_000000_000010")
        raise ValueError(
            f"--videos: {files.printable(videos)} holds none of the {len(segments)} labelled clips; "
            f"expected {shown}.mp4"
        )
    return Imported(make_clips(list(rows.values())), left_out)


def _unusable(
    segment: _Segment, rows: Mapping[str, object], paths: Mapping[str, Sequence[str]]
) -> str | None:
    if not _YOUTUBE_ID.fullmatch(segment.youtube_id):
        return "youtube_id is none"  # spreadsheets turn those that begin with a minus into #NAME?
    if not segment.label:
        return "no label"
    if segment.name in rows:
        return "named by an earlier row"
    return None if segment.name in paths else "no video"


def _row(segment: _Segment, paths: Sequence[str], judged: str) -> dict[str, object]:
    """Of several files the one in the folder of its class, else the first."""
    here = [path for path in paths if os.path.basename(os.path.dirname(path)) == segment.label]
    return {
        "clip_id": segment.name,
        "uri": (here or paths)[0],
        "label": segment.label,
        "group": segment.youtube_id,
        "split": {"train": "train", judged: "test"}.get(segment.split, ""),
        "split_official": segment.split,
    }


def _by_stem(root: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in sorted(videos_below(root)):
        found.setdefault(os.path.splitext(os.path.basename(path))[0], []).append(path)
    return found


def _segments(path: str) -> Iterator[_Segment]:
    try:
        text = files.read_bytes(path).decode("utf-8-sig")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ValueError(f"clips kinetics: {files.printable(path)} is not a file") from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"clips kinetics: {files.printable(path)} is not UTF-8 text ({error.reason})"
        ) from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    names = {(name or "").strip().lower(): name for name in reader.fieldnames or []}
    column = {ours: names[n] for ours, theirs in _COLUMNS.items() for n in theirs if n in names}
    missing = [name for name in _REQUIRED if name not in column]
    if missing:
        found = ", ".join(files.printable(name) for name in names) or "nothing"
        raise ValueError(
            f"clips kinetics: {files.printable(path)} has no column {', '.join(missing)}; found {found}"
        )
    for row in reader:
        where = f"{files.printable(path)} line {reader.line_num}"
        yield _segment({ours: (row[theirs] or "").strip() for ours, theirs in column.items()}, path, where)


def _segment(row: Mapping[str, str], path: str, where: str) -> _Segment:
    start_s, stop_s = (_whole_seconds(row[name], name, where) for name in ("time_start", "time_end"))
    if stop_s <= start_s:
        raise ValueError(f"{where}: time_end {stop_s} is not after time_start {start_s}")
    name = f"{row['youtube_id']}_{start_s:06d}_{stop_s:06d}"
    return _Segment(row["youtube_id"], name, row.get("label", ""), _split(row.get("split", ""), path, where))


def _whole_seconds(text: str, name: str, where: str) -> int:
    try:
        seconds = int(float(text))
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{where}: {name} is {files.quoted(text)}, expected seconds") from error
    if seconds < 0:
        raise ValueError(f"{where}: {name} is {seconds}, expected at least 0")
    return seconds


def _split(text: str, path: str, where: str) -> str:
    """train, val or test: from the column, otherwise from the file's name."""
    if text:
        if text.lower() not in _SPLITS:
            raise ValueError(f"{where}: split is {files.quoted(text)}, expected train, val, validate or test")
        return _SPLITS[text.lower()]
    stem = os.path.splitext(os.path.basename(path))[0].lower()
    for word in re.split(r"[^a-z]+", stem):
        if word in _SPLITS:
            return _SPLITS[word]
    raise ValueError(
        f"{where}: no split, and the file's name does not say train, val or test; add a column split"
    )
