"""Grad-CAM sheets for the report: where each network looks in a few test clips."""

import importlib.util
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from models.options import RUNS
from models.predictions import Predictions, hits
from models.runs import RunFolder
from pipelines.config import Config
from pipelines.report_clips import data_uri

if TYPE_CHECKING:
    from models.gradcam import Responses  # it loads torch

_COLUMNS = 5
_MOST_WIDTH_PX = 640
_QUALITY = 75


@dataclass(frozen=True)
class Look:
    """One network's frames of a clip with its responses below; `answer` is what it takes the clip for."""

    run: str
    answer: str
    picture: str
    width_px: int
    height_px: int


@dataclass(frozen=True)
class Sheet:
    """One clip under several networks."""

    clip_id: str
    label: str
    looks: Sequence[Look]


def sheets(config: Config, evaluated: Mapping[str, Predictions], number: int) -> list[Sheet]:
    """Up to `number` sheets of trained and judged runs; none where there is no torch to run the networks.

    Raises:
        ValueError: the stores are no longer those that the runs were judged on.
    """
    runs = [run for run in RUNS if run in evaluated and RunFolder(config.workspace, run).done]
    if not runs or importlib.util.find_spec("torch") is None:
        return []
    clip_ids = telling_clips({run: evaluated[run] for run in runs}, number)
    return [_sheet(config, runs, clip_id) for clip_id in clip_ids]


def telling_clips(evaluated: Mapping[str, Predictions], number: int) -> list[str]:
    """Clips that all runs were judged on; those first that most of the others get right and rgb does not.

    Of equally telling ones the classes take turns, in the order of their labels.
    """
    right = {run: dict(zip(p.clip_ids, hits(p).tolist(), strict=True)) for run, p in evaluated.items()}
    first, *others = right.values()
    class_of = {c: int(k) for p in evaluated.values() for c, k in zip(p.clip_ids, p.classes_B, strict=True)}
    telling: dict[str, int] = {
        clip_id: sum(other[clip_id] for other in others) - len(right) * first[clip_id]
        for clip_id in sorted(first)
        if all(clip_id in other for other in others)
    }
    turn: dict[str, int] = {}
    seen: dict[tuple[int, int], int] = {}
    for clip_id, value in telling.items():
        group = (class_of[clip_id], value)
        turn[clip_id] = seen.get(group, 0)
        seen[group] = turn[clip_id] + 1
    order = sorted(telling, key=lambda c: (-telling[c], turn[c], class_of[c], c))
    return order[:number]


def _sheet(config: Config, runs: Sequence[str], clip_id: str) -> Sheet:
    from models.gradcam import explain

    options = config.model_options()
    found = [explain(run, clip_id, workspace=config.workspace, options=options) for run in runs]
    return Sheet(clip_id, found[0].truth, [_look(response) for response in found])


def _look(response: "Responses") -> Look:
    from models.gradcam_sheet import TITLE_PX, gradcam_sheet, title

    rows_HWC = gradcam_sheet([response], columns=_COLUMNS)[TITLE_PX:]  # the page has the title as text
    picture = Image.fromarray(np.ascontiguousarray(rows_HWC))
    picture.thumbnail((_MOST_WIDTH_PX, 100 * _MOST_WIDTH_PX))
    content = io.BytesIO()
    picture.save(content, format="WEBP", quality=_QUALITY)
    answer = title(response).removeprefix(f"{response.run}: ")
    return Look(response.run, answer, data_uri(content.getvalue()), picture.width, picture.height)
