import csv
import json
import subprocess
import sys
from dataclasses import replace

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moving_squares import SMALL, put_clips, put_store, squares

from models.checkpoint import load_checkpoint
from models.evaluation import evaluate
from models.predict import Predictor, load, mean_ranking, sliding
from models.predictions import read_predictions
from models.train import train
from pipelines import cli
from stores.store import Store
from transforms.decode import decode_clip
from transforms.frames import FramesStage
from transforms.options import FramesOptions
from transforms.stage import Video


def write_video(path, clip):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = clip.width_px, clip.height_px, "yuv420p"
        for frame in range(clip.frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(clip.image(frame))))
        container.mux(stream.encode())


@pytest.fixture
def trained(tmp_path):
    """A run over frames that really were decoded from videos, by the frames stage's own options."""
    options = FramesOptions(shorter_side_px=40)
    clips = squares(4, split="train") + squares(1, split="test", seed=1)
    for clip in clips:
        path = tmp_path / f"{clip.clip_id.replace('/', '-')}.mp4"
        write_video(path, clip)
        records = list(decode_clip(Video(clip.clip_id, str(path)), options).records)
        object.__setattr__(clip, "records", lambda store, records=records: records)
    put_clips(tmp_path, clips)
    put_store(tmp_path, "frames", clips, spec=FramesStage(options).spec())
    train("rgb", workspace=str(tmp_path), options=SMALL)
    evaluate("rgb", workspace=str(tmp_path), options=SMALL)
    return tmp_path


def test_a_video_gets_the_very_logits_that_its_clip_got_in_the_evaluation(trained):
    assert Store(str(trained), "frames").require_snapshot().totals["clips"] == 15
    stored = read_predictions("rgb", workspace=str(trained))
    predictor = load(str(trained / "runs" / "rgb"))
    for clip_id, logits in zip(stored.clip_ids, stored.logits_BN, strict=True):
        found = predictor.predict(str(trained / f"{clip_id.replace('/', '-')}.mp4"))
        exponents = np.exp(logits - logits.max())
        expected = dict(zip(stored.labels, exponents / exponents.sum(), strict=True))
        assert dict(found) == pytest.approx(expected, rel=1e-3)
        assert [p for _, p in found] == sorted((p for _, p in found), reverse=True)


def sliding_twin(records, span, step):
    """All windows from their definition."""
    total = len(records)
    if total <= span:
        return [(0, records)]
    firsts = [first for first in range(0, total, step) if first + span <= total]
    if firsts[-1] + span < total:
        firsts.append(total - span)
    return [(first, records[first : first + span]) for first in firsts]


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 25))
def test_windows_slide_from_the_first_frame_to_the_last(total, span, step):
    records = list(range(total))
    found = list(sliding(iter(records), span=span, step=step))
    assert found == sliding_twin(records, span, step)
    if step <= span:
        assert {r for _, window in found for r in window} == set(records)


def test_sliding_holds_one_window():
    read = []

    def records():
        for i in range(1000):
            read.append(i)
            yield i

    windows = sliding(records(), span=5, step=2)
    assert next(windows) == (0, [0, 1, 2, 3, 4])
    assert next(windows) == (2, [2, 3, 4, 5, 6])
    assert len(read) == 7


def test_a_window_of_a_long_video_is_what_its_segment_gives(trained):
    """Ten frames at 25 fps, eight in a window: one begins with the video, one ends with it."""
    predictor = load(str(trained / "runs" / "rgb"))
    video = str(trained / "test-left-00.mp4")
    windows = list(predictor.windows(video, stride_s=0.2))
    assert [(round(w.start_s, 2), round(w.stop_s, 2)) for w in windows] == [(0.0, 0.32), (0.08, 0.4)]
    assert predictor.window_s == pytest.approx(0.32)
    for window in windows:
        segment = predictor.predict(video, start_s=window.start_s, stop_s=window.stop_s)
        assert dict(window.labels) == pytest.approx(dict(segment), rel=1e-3)
    mean = dict(mean_ranking(windows))
    for label in predictor.labels:
        expected = sum(dict(w.labels)[label] for w in windows) / 2
        assert mean[label] == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"stride_s: found 0, expected seconds"):
        next(predictor.windows(video, stride_s=0))


def test_the_frame_limit_of_the_store_does_not_bind_a_sliding_window(trained):
    checkpoint = load_checkpoint(str(trained / "runs" / "rgb" / "checkpoints" / "final.pt"))
    predictor = Predictor(replace(checkpoint, frames=checkpoint.frames | {"max_frames": 9}))
    video = str(trained / "test-left-00.mp4")
    assert len(list(predictor.windows(video, stride_s=1))) == 2
    with pytest.raises(ValueError, match=r"too_long: .*; predict it by windows with a stride"):
        predictor.predict(video)


def test_files_folders_and_globs_with_json_and_csv(trained, capsys):
    (trained / "broken.mp4").write_text("not a video")
    run = str(trained / "runs" / "rgb")
    output = str(trained / "found.json")
    arguments = ["predict", str(trained / "test-*.mp4"), str(trained / "broken.mp4"), "--checkpoint", run]
    assert cli.run([*arguments, "--stride_s", "0.2", "--output", output, "--top", "2"]) == 1
    assert "1 of 4 videos could not be read" in capsys.readouterr().err
    found = json.loads((trained / "found.json").read_text())
    assert [bool(video["error"]) for video in found] == [False, False, False, True]
    assert [len(video["windows"]) for video in found] == [2, 2, 2, 0]
    assert all(len(video["labels"]) == 2 for video in found[:3])
    assert found[0]["windows"][1]["start_s"] == 0.08

    assert (
        cli.run([*arguments[:2], "--checkpoint", run, "--output", str(trained / "found.csv"), "--quiet"]) == 0
    )
    rows = list(csv.DictReader((trained / "found.csv").read_text().splitlines()))
    assert [row["rank"] for row in rows] == ["1", "2", "3"] * 3
    best = load(run).predict(str(trained / "test-down-00.mp4"))[0]
    assert (rows[0]["label"], float(rows[0]["probability"])) == (best[0], pytest.approx(best[1], abs=1e-5))

    capsys.readouterr()
    assert cli.run(["predict", str(trained), "--checkpoint", run, "--top", "1"]) == 1
    out = capsys.readouterr().out
    assert out.count("\n") == 16  # fifteen videos and the one that is none
    assert "broken.mp4: not_a_video" in out


def test_a_file_that_is_no_video_is_refused_in_words(trained):
    predictor = load(str(trained / "runs" / "rgb" / "checkpoints" / "final.pt"))
    (trained / "notes.mp4").write_text("not a video")
    with pytest.raises(ValueError, match=r"notes.mp4: not_a_video"):
        predictor.predict(str(trained / "notes.mp4"))
    with pytest.raises(ValueError, match=r"gone.mp4: missing_file"):
        predictor.predict(str(trained / "gone.mp4"))


def test_a_network_of_another_stream_is_refused(workspace):
    train("flow", workspace=str(workspace), options=replace(SMALL))
    with pytest.raises(ValueError, match=r"run flow, which looks at flow; predict takes videos"):
        load(str(workspace / "runs" / "flow"))


def test_importing_the_models_loads_no_beam():
    modules = "models.train, models.evaluation, models.predict"
    code = f"import sys, {modules}; print([m for m in sys.modules if m.startswith(('apache_beam', 'tensorflow'))])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
