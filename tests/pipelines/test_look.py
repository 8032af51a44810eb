"""The animated look: which clips and labels it shows, bars as long as probabilities, mistakes in words.

The whole command runs in tests/test_readme.py.
"""

from pathlib import Path

import numpy as np
import pytest

from pipelines import cli
from pipelines.animated_look import HEAD_PX, MOST_LABELS, foremost, one_of_each, probability_panel, with_heads
from transforms.preview import GAP_PX


def test_one_clip_of_each_class_test_clips_first() -> None:
    labels = {"a1": "a", "a2": "a", "b1": "b", "b2": "b"}
    splits = {"a1": "train", "a2": "test", "b1": "train", "b2": "train"}
    chosen = one_of_each(labels, splits)
    assert chosen[0] == "a2"
    assert chosen[1] in ("b1", "b2")


def test_the_right_label_and_the_foremost_are_shown() -> None:
    window = {f"label{i}": i / 100 for i in range(10)}
    shown = foremost([window, window], "label0")
    assert shown == ["label0", "label5", "label6", "label7", "label8", "label9"]
    assert len(shown) == MOST_LABELS


def test_bars_are_as_long_as_probabilities() -> None:
    said = {"x": 0.25, "y": 0.5}
    panel_HWC = probability_panel(said, ["x", "y"], right="y", size=(60, 116))
    green_W = (panel_HWC == (60, 150, 90)).all(axis=2)[48]
    blue_W = (panel_HWC == (130, 150, 185)).all(axis=2)[18]
    assert np.flatnonzero(green_W).tolist() == list(range(8, 8 + 50 + 1))
    assert np.flatnonzero(blue_W).tolist() == list(range(8, 8 + 25 + 1))


def test_nothing_is_said_before_the_first_window() -> None:
    panel_HWC = probability_panel({}, ["x", "y"], right="y", size=(60, 116))
    assert not (panel_HWC == (60, 150, 90)).all(axis=2)[48].any()


def test_pictures_have_heads_of_their_own() -> None:
    picture = np.zeros((20, 30, 3), np.uint8)
    assert with_heads({"rgb": picture, "flow": picture}).shape == (20 + HEAD_PX, 2 * 30 + GAP_PX, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "look.gif"], "--output: found 'look.gif', expected a name that ends in .webp"),
        (
            ["--run", "student", "--workspace", "nowhere"],
            "nowhere/runs/student/checkpoints/final.pt does not exist",
        ),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(["look", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
