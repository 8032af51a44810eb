"""Makes the clips table of UCF-101 and HMDB-51 from their official three splits."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipelines.importers import videos_below
from stores import files
from stores.clips import ClipsTable, make_clips

SPLITS = (1, 2, 3)
LEFT_OUT_FILE = "clips-left-out.csv"
_HMDB_CODES = {"0": "", "1": "train", "2": "test"}


@dataclass(frozen=True)
class LeftOut:
    """A clip of the annotations, or a video, that did not come into the clips table."""

    clip_id: str
    label: str
    reason: str


@dataclass(frozen=True)
class Imported:
    """A clips table, and what is missing in it."""

    clips: ClipsTable
    left_out: Sequence[LeftOut]


@dataclass(frozen=True)
class _Line:
    """One line of a split list: a video, named `<label>/<stem>`, and where it belongs."""

    name: str
    column: str
    split: str


def clips_from_ucf101(folder: str, *, splits: str) -> Imported:
    """UCF-101: `<label>/v_<label>_gNN_cNN.avi` with trainlist01.txt, testlist01.txt, … 03.txt.

    The columns split_1 to split_3 say train or test; the group is the source video, `<label>_gNN`.

    Raises:
        ValueError: a folder or list is missing, a line is none of a split list, no video is there.
    """
    lines = [line for number in SPLITS for line in _ucf_lines(_folder(splits, "--splits"), number)]
    return _assemble(folder, lines, group=_ucf_group)


def clips_from_hmdb51(folder: str, *, splits: str) -> Imported:
    """HMDB-51: `<label>/<video>.avi` with `<label>_test_split1.txt` … split3: 1 is train, 2 test, 0 unused.

    The group is the name of the film, as far as the file's name has it.

    Raises:
        ValueError: as `clips_from_ucf101`.
    """
    root = _folder(splits, "--splits")
    names = sorted(os.listdir(root))
    lines: list[_Line] = []
    for number in SPLITS:
        found = [name for name in names if name.endswith(f"_test_split{number}.txt")]
        if not found:
            raise ValueError(
                f"--splits: {files.printable(splits)} has no file <class>_test_split{number}.txt; "
                "name the folder testTrainMulti_7030_splits"
            )
        lines += [line for name in found for line in _hmdb_lines(root, name, number)]
    return _assemble(folder, lines, group=lambda label, stem: stem.partition(f"_{label}_")[0])


def _ucf_lines(root: str, number: int) -> Iterator[_Line]:
    for kind in ("train", "test"):
        name = f"{kind}list{number:02d}.txt"
        for where, text in _text_lines(root, name, "ucfTrainTestlist"):
            path = PurePosixPath(text.split(" ")[0].replace("\\", "/"))
            if len(path.parts) != 2 or ".." in path.parts:
                raise ValueError(f"{where}: found {files.quoted(text)}, expected <class>/<video>.avi")
            yield _Line(f"{path.parts[0]}/{path.stem}", f"split_{number}", kind)


def _hmdb_lines(root: str, name: str, number: int) -> Iterator[_Line]:
    label = name.removesuffix(f"_test_split{number}.txt")
    for where, text in _text_lines(root, name, "testTrainMulti_7030_splits"):
        video, _, code = text.rpartition(" ")
        if code not in _HMDB_CODES or not video or "/" in video:
            raise ValueError(f"{where}: found {files.quoted(text)}, expected <video>.avi and 0, 1 or 2")
        yield _Line(f"{label}/{PurePosixPath(video).stem}", f"split_{number}", _HMDB_CODES[code])


def _text_lines(root: str, name: str, folder: str) -> Iterator[tuple[str, str]]:
    """(place, text) of each line that is not empty."""
    path = os.path.join(root, name)
    try:
        text = files.read_bytes(path).decode("utf-8-sig")
    except FileNotFoundError as error:
        raise ValueError(
            f"--splits: {files.printable(root)} has no {name}; name the folder {folder}"
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"--splits: {files.printable(path)} is not UTF-8 text ({error.reason})") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield f"{files.printable(path)} line {number}", line.strip()


def _folder(path: str, flag: str) -> str:
    root = os.path.abspath(files.local_path(files.check_uri(path)))
    if not os.path.isdir(root):
        raise ValueError(f"{flag}: {files.printable(path)} is not a folder")
    return root


def _ucf_group(label: str, stem: str) -> str:
    found = re.search(r"_g(\d+)_c\d+$", stem)
    return f"{label}_g{found[1]}" if found else ""


def _assemble(folder: str, lines: Sequence[_Line], *, group: Callable[[str, str], str]) -> Imported:
    """One row a listed video that is there; the rest is left out, with the reason."""
    root = _folder(folder, "clips folder")
    paths = _by_name(root)
    splits: dict[str, dict[str, str]] = {}
    for line in lines:
        splits.setdefault(line.name, {})[line.column] = line.split
    rows: list[dict[str, object]] = []
    left_out: list[LeftOut] = []
    for name, columns in sorted(splits.items()):
        label, stem = name.split("/", 1)
        if name in paths:
            uri = paths[name]
            rows.append({"clip_id": name, "uri": uri, "label": label, "group": group(label, stem), **columns})
        else:
            left_out.append(LeftOut(name, label, "no video"))
    if not rows:
        raise ValueError(
            f"clips folder: {files.printable(folder)} holds none of the {len(splits)} listed videos; "
            f"expected <class>/<video>.avi such as {files.printable(next(iter(sorted(splits)), ''))}.avi"
        )
    strangers = sorted(set(paths) - set(splits))
    left_out += [LeftOut(name, name.split("/")[0], "in none of the split lists") for name in strangers]
    return Imported(make_clips(rows), left_out)


def _by_name(root: str) -> dict[str, str]:
    """`<folder>/<stem>` → path; of two files that differ in the suffix alone the first."""
    found: dict[str, str] = {}
    for path in sorted(videos_below(root)):
        label, stem = os.path.split(os.path.splitext(os.path.relpath(path, root))[0])
        found.setdefault(f"{os.path.basename(label)}/{stem}", path)
    return found
