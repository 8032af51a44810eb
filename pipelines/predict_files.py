"""Predicts many videos: finds them, goes on where one cannot be read, writes JSON or CSV."""

import csv
import glob
import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pipelines.importers import videos_below
from pipelines.progress import Screen
from stores import files

if TYPE_CHECKING:
    from models.predict import Predictor, Ranked

_GLOB_CHARACTERS = "*?["


def find_videos(paths: Sequence[str]) -> list[str]:
    """Videos that files, folders (with sub-folders) and globs name, each once, in order.

    Raises:
        ValueError: a folder or glob without videos, or no path at all.
    """
    if not paths:
        raise ValueError("predict: name at least one video file, folder or glob")
    return list(dict.fromkeys(video for path in paths for video in _named_by(path)))


def _named_by(path: str) -> list[str]:
    if not files.is_local(files.check_uri(path)):
        return [path]
    local = files.local_path(path)
    if os.path.isdir(local):
        found, kind = sorted(videos_below(local)), "the folder holds no videos"
    elif any(c in path for c in _GLOB_CHARACTERS) and not os.path.exists(local):
        found = sorted(p for p in glob.glob(local, recursive=True) if os.path.isfile(p))
        kind = "no file has such a name"
    else:
        return [local]
    if not found:
        raise ValueError(f"predict: {files.printable(path)}: {kind}")
    return found


@dataclass(frozen=True)
class Window:
    """The most probable labels of a segment [start_s, stop_s); stop_s None is the end of the video."""

    start_s: float
    stop_s: float | None
    labels: "Ranked"


@dataclass(frozen=True)
class VideoPrediction:
    """What is known of one video.

    Attributes:
        labels: of the whole video.
        windows: empty unless a window slides.
        error: why it could not be read; "" where it could.
    """

    video: str
    labels: "Ranked"
    windows: Sequence[Window]
    error: str = ""


@dataclass(frozen=True)
class Asked:
    """What is to be told of each video.

    Attributes:
        top: how many classes.
        stride_s: seconds from one window to the next; None looks at the middle of the video once.
        output: file to write; None prints.

    Raises:
        ValueError: before the work, for a value that makes no sense.
    """

    top: int
    stride_s: float | None
    output: str | None

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ValueError(f"--top: found {self.top}, expected at least 1")
        if self.stride_s is not None and not self.stride_s > 0:
            raise ValueError(f"--stride_s: found {self.stride_s}, expected seconds, more than 0")
        if self.output is not None and not self.output.endswith((".json", ".csv")):
            raise ValueError(
                f"--output: found {files.quoted(self.output)}, expected a name that ends in .json or .csv"
            )


def predict_videos(
    predictor: "Predictor", videos: Sequence[str], asked: Asked, screen: Screen
) -> list[VideoPrediction]:
    """All videos; where nothing is written each is printed as soon as it is known."""
    progress = screen.live if screen.terminal else lambda text: None
    predictions = []
    for number, video in enumerate(videos, start=1):
        if len(videos) > 1:
            screen.live(f"predict: video {number} of {len(videos)}")
        predictions.append(_predict_video(predictor, video, asked, progress))
        if asked.output is None:
            progress("")
            print(*_lines(predictions[-1]), sep="\n", flush=True)
    return predictions


def _predict_video(
    predictor: "Predictor", video: str, asked: Asked, progress: Callable[[str], None]
) -> VideoPrediction:
    """One video; what cannot be read comes back with its error."""
    from models.predict import mean_ranking

    top, windows = asked.top, []
    try:
        if asked.stride_s is None:
            return VideoPrediction(video, predictor.predict(video)[:top], ())
        for window in predictor.windows(video, stride_s=asked.stride_s):
            windows.append(window)
            progress(f"{files.printable(video)}: {window.stop_s:.1f} s")
    except ValueError as error:
        return VideoPrediction(video, [], (), str(error))
    shown = tuple(Window(round(w.start_s, 3), round(w.stop_s, 3), w.labels[:top]) for w in windows)
    return VideoPrediction(video, mean_ranking(windows)[:top], shown)


def _lines(found: VideoPrediction) -> list[str]:
    """For people: the video, then its windows."""
    name = files.printable(found.video)
    if found.error:
        return [found.error]
    spans = [f"  {w.start_s:7.1f} to {w.stop_s:.1f} s: {_shown(w.labels)}" for w in found.windows]
    return [f"{name}: {_shown(found.labels)}", *spans]


def _shown(labels: "Ranked") -> str:
    return ", ".join(f"{files.printable(label)} {probability:.3f}" for label, probability in labels)


def write_predictions(path: str, found: Sequence[VideoPrediction]) -> None:
    """Writes JSON or CSV, by the ending of the name.

    CSV has a row for each video, segment and rank; the segment of the whole video has no start_s and stop_s.
    """
    text = _as_json(found) if path.endswith(".json") else _as_csv(found)
    files.put_bytes(path, text.encode(errors="backslashreplace"))


def _as_json(found: Sequence[VideoPrediction]) -> str:
    return json.dumps([_plain(asdict(video)) for video in found], indent=1, ensure_ascii=False)


def _plain(video: dict[str, Any]) -> dict[str, Any]:
    def named(labels: Any) -> list[dict[str, Any]]:
        return [{"label": label, "probability": round(p, 6)} for label, p in labels]

    windows = [window | {"labels": named(window["labels"])} for window in video["windows"]]
    return video | {"labels": named(video["labels"]), "windows": windows}


def _as_csv(found: Sequence[VideoPrediction]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("video", "start_s", "stop_s", "rank", "label", "probability", "error"))
    for video in found:
        name = files.printable(video.video)
        if video.error:
            writer.writerow((name, "", "", "", "", "", video.error))
        for window in (Window(0.0, None, video.labels), *video.windows):
            span = ("", "") if window.stop_s is None else (window.start_s, window.stop_s)
            for rank, (label, probability) in enumerate(window.labels, start=1):
                writer.writerow((name, *span, rank, label, f"{probability:.6f}", ""))
    return text.getvalue()
