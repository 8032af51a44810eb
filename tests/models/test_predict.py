import subprocess
import sys
from dataclasses import replace

import av
import numpy as np
import pytest
from moving_squares import SMALL, put_clips, put_store, squares

from models.evaluation import evaluate
from models.predict import load
from models.predictions import read_predictions
from models.train import train
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
