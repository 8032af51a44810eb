"""Golden pictures of the seven variants of the paper's table 2, and the sheet of all.

python tests/transforms/test_variant_sheet.py      draws the golden pictures anew: look at them before committing
"""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from transforms.options import VARIANTS
from transforms.preview import GAP_PX, write_png
from transforms.render import draw_people
from transforms.variant_sheet import CAPTION_PX, synthetic_scene, variant_sheet

GOLDEN = Path(__file__).parents[1] / "golden" / "render"
TABLE_2 = (
    *("rgb-bar-6-uniform", "rgb-bar-6-ratio", "rgb-bar-13-uniform", "black-dot-13-ratio"),
    *("black-bar-13-ratio", "rgb-dot-13-ratio", "rgb-bar-13-ratio"),
)
# Covered shares are computed in float64 and rounded once; another compiler may round one of them the other way.
TOLERANCE = 1


def drawn(variant: str) -> np.ndarray:
    image_HWC, people = synthetic_scene(width_px=96, height_px=72)
    return draw_people(image_HWC, people, variant)


@pytest.mark.parametrize("variant", TABLE_2)
def test_the_variants_of_table_2_look_as_they_did(variant: str) -> None:
    expected_HWC = cv2.cvtColor(cv2.imread(str(GOLDEN / f"{variant}.png")), cv2.COLOR_BGR2RGB)
    difference = np.abs(drawn(variant).astype(int) - expected_HWC)
    assert difference.max() <= TOLERANCE, (
        f"{(difference.max(axis=2) > TOLERANCE).sum()} pixels differ: if that is meant, raise RenderStage.version"
    )


def test_all_variants_differ() -> None:
    pictures = [drawn(variant).tobytes() for variant in VARIANTS]
    assert len(set(pictures)) == 16


def test_the_sheet_has_every_variant_in_its_place() -> None:
    image_HWC, people = synthetic_scene(width_px=96, height_px=72)
    sheet_HWC = variant_sheet(image_HWC, people)
    height_px = CAPTION_PX + 72
    assert sheet_HWC.shape == (4 * (height_px + GAP_PX) - GAP_PX, 4 * (96 + GAP_PX) - GAP_PX, 3)
    for index, variant in enumerate(VARIANTS):
        top, left = (index // 4) * (height_px + GAP_PX) + CAPTION_PX, (index % 4) * (96 + GAP_PX)
        np.testing.assert_array_equal(sheet_HWC[top : top + 72, left : left + 96], drawn(variant))


def test_the_command_writes_a_picture(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "transforms.variant_sheet", str(tmp_path / "sheet.png")]
    subprocess.run(command, check=True, timeout=60, cwd=Path(__file__).parents[2])
    assert cv2.imread(str(tmp_path / "sheet.png")).shape[1] == 4 * (200 + GAP_PX) - GAP_PX


if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for name in TABLE_2:
        write_png(GOLDEN / f"{name}.png", drawn(name))
