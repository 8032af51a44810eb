"""Makes the clips table from a data set's own files."""

import csv
import hashlib
import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from pipelines.config import ClipsOptions
from stores import files
from stores.clips import ClipsTable, is_split_column, make_clips

_SUFFIXES = "mp4 m4v mov mkv webm avi mpg mpeg ts m2ts mts flv wmv asf ogv 3gp gif"
VIDEO_SUFFIXES = tuple("." + suffix for suffix in _SUFFIXES.split(" "))


def clips_from_folder(folder: str, options: ClipsOptions) -> ClipsTable:
    """One class a sub-folder; the clip_id is the path below the folder, without suffix.

    Videos lying directly in the folder get its name as their class.

    Raises:
        ValueError: the folder is missing or holds no videos, a path without a group, two files with one clip_id.
    """
    root = os.path.abspath(files.local_path(files.check_uri(folder)))
    if not os.path.isdir(root):
        raise ValueError(f"clips folder: {files.printable(folder)} is not a folder")
    rows = [_row(root, path, options) for path in sorted(videos_below(root))]
    if not rows:
        known = " ".join(VIDEO_SUFFIXES)
        raise ValueError(f"clips folder: {files.printable(folder)} holds no videos ({known})")
    _name_twins_by_file(rows)
    return make_clips(assign_splits(rows, options))


def videos_below(root: str) -> Iterable[str]:
    """Paths of the video files of a folder and its sub-folders, hidden ones apart."""
    for parent, folders, names in os.walk(root):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in names:
            if name.lower().endswith(VIDEO_SUFFIXES) and not name.startswith("."):
                yield os.path.join(parent, name)


def _row(root: str, path: str, options: ClipsOptions) -> dict[str, str]:
    relative = os.path.relpath(path, root)
    shown = files.printable(relative)
    if not relative.isprintable():
        raise ValueError(f"{shown}: the name holds a control character or is not valid text; rename the file")
    label = relative.split(os.sep)[0] if os.sep in relative else os.path.basename(root)
    group = ""
    if options.group_pattern:
        match = re.search(options.group_pattern, relative)
        if not match:
            raise ValueError(f"clips.group_pattern: {options.group_pattern!r} is not found in {shown}")
        group = match[1] or ""
    clip_id = os.path.splitext(relative)[0].replace(os.sep, "/")
    return {"clip_id": clip_id, "uri": path, "label": label, "group": group}


def _name_twins_by_file(rows: list[dict[str, str]]) -> None:
    """Files that differ in their suffix alone keep it in the clip_id."""
    count: dict[str, int] = {}
    for row in rows:
        count[row["clip_id"]] = count.get(row["clip_id"], 0) + 1
    for row in rows:
        if count[row["clip_id"]] > 1:
            row["clip_id"] += os.path.splitext(row["uri"])[1]


def assign_splits(rows: Sequence[Mapping[str, str]], options: ClipsOptions) -> list[dict[str, str]]:
    """Adds the column `split`, and with `folds` the columns split_1 … split_k, in each of which another fold is test.

    Whole groups at a time where there are groups, else clip by clip within each class. The order is that of sha256
    over the group (or clip_id): the same on every machine.

    Raises:
        ValueError: fewer groups (or clips of a class) than folds.
    """
    grouped = any(row["group"] for row in rows)
    units: dict[str, list[Mapping[str, str]]] = {}
    for row in rows:
        units.setdefault(row["group"] if grouped else row["clip_id"], []).append(row)
    pools = [list(units)] if grouped else _by_label(units)
    clips = {name: len(members) for name, members in units.items()}
    columns = {}
    if options.test_pattern:
        columns["split"] = {name: _by_pattern(rows[0], options.test_pattern) for name, rows in units.items()}
    else:
        columns["split"] = _split_of(pools, clips, options)
    for number, folds in enumerate(_folds(pools, clips, options.folds), start=1):
        columns[f"split_{number}"] = _held_out(pools, clips, folds, options)
    unit_of = "group" if grouped else "clip_id"
    return [{**row, **{name: of[row[unit_of]] for name, of in columns.items()}} for row in rows]


def _split_of(
    pools: Sequence[Sequence[str]], clips: Mapping[str, int], options: ClipsOptions
) -> dict[str, str]:
    split_of: dict[str, str] = {}
    for pool in pools:
        split_of |= _share_out(pool, clips, options)
    return split_of


def _folds(pools: Sequence[Sequence[str]], clips: Mapping[str, int], folds: int) -> list[set[str]]:
    """The names in each fold: every name goes to the fold that has the fewest clips of its pool, then of all."""
    found: list[set[str]] = [set() for _ in range(folds)]
    total = [0] * folds
    for pool in pools if folds else ():
        if len(pool) < folds:
            raise ValueError(
                f"clips.folds: found {folds}, but there are only {len(pool)} groups to share out"
            )
        of_pool = [0] * folds
        for name in sorted(pool, key=_place):
            fold = min(range(folds), key=lambda k: (of_pool[k], total[k], k))
            found[fold].add(name)
            of_pool[fold] += clips[name]
            total[fold] += clips[name]
    return found


def _held_out(
    pools: Sequence[Sequence[str]], clips: Mapping[str, int], test: set[str], options: ClipsOptions
) -> dict[str, str]:
    """One fold is test; of the others val_share becomes val, the rest train."""
    others = [[name for name in pool if name not in test] for pool in pools]
    return _split_of(others, clips, replace(options, test_share=0.0)) | dict.fromkeys(test, "test")


def _place(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _by_pattern(row: Mapping[str, str], pattern: str) -> str:
    return "test" if re.search(pattern, row["group"] or row["clip_id"]) else "train"


def _by_label(units: Mapping[str, Sequence[Mapping[str, str]]]) -> list[list[str]]:
    pools: dict[str, list[str]] = {}
    for name, rows in units.items():
        pools.setdefault(rows[0]["label"], []).append(name)
    return list(pools.values())


def _share_out(names: Sequence[str], clips: Mapping[str, int], options: ClipsOptions) -> dict[str, str]:
    """Fills test, then val, then train, in an order that depends on the names alone."""
    ordered = sorted(names, key=_place)
    total = sum(clips[name] for name in names)
    split_of: dict[str, str] = {}
    done = 0
    for name in ordered:
        share = (done + clips[name] / 2) / total
        if share < options.test_share:
            split_of[name] = "test"
        elif share < options.test_share + options.val_share:
            split_of[name] = "val"
        else:
            split_of[name] = "train"
        done += clips[name]
    return split_of


def clips_from_csv(path: str, *, videos: str | None = None) -> ClipsTable:
    """Reads a CSV with a header: uri (or path) and label, optionally clip_id, start_s, stop_s, group, split, split_*.

    Args:
        videos: folder that relative uris start from; none means the CSV's own folder.

    Raises:
        ValueError: naming the file, the line and the column.
    """
    try:
        text = files.read_bytes(path).decode("utf-8-sig")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise ValueError(f"clips csv: {files.printable(path)} is not a file") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"clips csv: {files.printable(path)} is not UTF-8 text ({error.reason})") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    names = [name.strip() for name in reader.fieldnames or []]
    reader.fieldnames = names
    uri_name = "uri" if "uri" in names else "path"
    if uri_name not in names or "label" not in names:
        found = ", ".join(files.printable(n) for n in names) or "nothing"
        raise ValueError(f"clips csv: {files.printable(path)} needs the columns uri and label, found {found}")
    base = videos or os.path.dirname(path) or "."
    rows = [
        _csv_row(row, uri_name, base, f"{files.printable(path)} line {reader.line_num}") for row in reader
    ]
    if not rows:
        raise ValueError(f"clips csv: {files.printable(path)} holds no clips")
    _refuse_duplicates(rows, path)
    return make_clips(rows)


def _csv_row(row: Mapping[str, str | None], uri_name: str, base: str, where: str) -> dict[str, object]:
    if None in row or None in row.values():
        raise ValueError(f"{where}: the number of fields differs from the header")
    values = {name: (value or "").strip(" ") for name, value in row.items()}
    uri = values[uri_name]
    if not uri:
        raise ValueError(f"{where}: {uri_name} is empty")
    uri = _absolute(uri, base)
    clip_id = values.get("clip_id") or os.path.splitext(values[uri_name])[0]
    splits = {name: value for name, value in values.items() if is_split_column(name)}
    return {
        "clip_id": clip_id,
        "uri": uri,
        "start_s": _seconds(values.get("start_s"), "start_s", where) or 0.0,
        "stop_s": _seconds(values.get("stop_s"), "stop_s", where),
        "label": values["label"],
        "group": values.get("group", ""),
        **splits,
    }


def _absolute(uri: str, base: str) -> str:
    """Where a video of the table lies: relative ones start from the base, which may be on gs://."""
    if not files.is_local(uri):
        return uri
    path = files.local_path(uri)
    if os.path.isabs(path) or files.is_local(base):
        return os.path.normpath(os.path.join(os.path.abspath(files.local_path(base)), path))
    return files.join(base, os.path.normpath(path))


def _seconds(text: str | None, name: str, where: str) -> float | None:
    if not text:
        return None
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{where}: {name} is {text!r}, expected seconds") from error


def _refuse_duplicates(rows: Sequence[Mapping[str, object]], path: str) -> None:
    seen: set[object] = set()
    for number, row in enumerate(rows, start=1):
        if row["clip_id"] in seen:
            shown = files.printable(str(row["clip_id"]))
            raise ValueError(f"clips csv: {files.printable(path)} clip {number}: duplicate clip_id '{shown}'")
        seen.add(row["clip_id"])


def describe(clips: ClipsTable) -> list[str]:
    """What was imported, in lines for people."""
    lines = [
        f"{len(clips)} clips, {len(clips.labels_sorted)} classes, {len(set(clips.groups) - {''})} groups"
    ]
    for name, column in clips.splits.items():
        counts = {s: sum(c == s for c in column) for s in ("train", "val", "test", "")}
        parts = [f"{n} {s or 'unused'}" for s, n in counts.items() if n]
        lines.append(f"{name}: {', '.join(parts)}")
    return lines
