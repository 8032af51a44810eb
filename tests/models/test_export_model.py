import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from models import export as module
from models.checkpoint import Checkpoint, build_network
from models.export import ClipsToLogits, export
from models.normalisation import normalisation_of, normalise
from models.options import EvaluateOptions, NetworkOptions
from pipelines import cli
from stores.checks import StageFailed

R3D = NetworkOptions(width=0.1, blocks=(1, 1, 1, 1), stem_kernel=(3, 5, 5))
S3D = NetworkOptions(backbone="s3dg", width=0.1)
JUDGED = EvaluateOptions(frames=8, crop_height_px=32, crop_width_px=48)


def checkpoint(network=R3D, stream="rgb"):
    torch.manual_seed(1)
    normalisation = normalisation_of(stream)
    built = build_network(network, num_classes=3, in_channels=normalisation.channels)
    torch.nn.init.normal_(built.classifier.weight)
    return Checkpoint(
        "student",
        stream,
        ("a", "b", "ü"),
        network,
        normalisation,
        JUDGED,
        {"fps": 25.0},
        "k",
        built.state_dict(),
    )


def clips(number, channels=3):
    return np.random.default_rng(0).integers(0, 256, (number, 8, 32, 48, channels), np.uint8)


def expected(saved, found):
    clips_BTHWC = torch.from_numpy(found)
    one = torch.ones(len(found))
    seen = normalise(clips_BTHWC, saved.normalisation, brightness_B=0 * one, contrast_B=one, scale_B=one)
    with torch.no_grad():
        return saved.build()(seen).numpy()


@pytest.mark.parametrize(
    ("network", "stream"),
    [
        (R3D, "flow"),
        pytest.param(R3D, "rgb", marks=pytest.mark.slow),
        pytest.param(S3D, "rgb", marks=pytest.mark.slow),
    ],
    ids=["r3d-flow", "r3d-rgb", "s3d-rgb"],
)
def test_onnx_gives_pytorchs_logits_for_any_number_of_clips(tmp_path, network, stream):
    onnxruntime = pytest.importorskip("onnxruntime")
    saved = checkpoint(network, stream)
    found = export(saved, str(tmp_path / "student.onnx"))
    assert found.difference <= module.TOLERANCE
    assert [p.name for p in tmp_path.iterdir()] == ["student.onnx"]
    session = onnxruntime.InferenceSession(str(tmp_path / "student.onnx"))
    for number in (1, 5):
        some = clips(number, saved.normalisation.channels)
        (logits_BN,) = session.run(["logits"], {"clips": some})
        np.testing.assert_allclose(logits_BN, expected(saved, some), rtol=1e-3, atol=1e-4)
    metadata = json.loads(session.get_modelmeta().custom_metadata_map["perfnet"])
    assert metadata["labels"] == ["a", "b", "ü"]
    assert metadata["frames"] == {"fps": 25.0}


def test_a_program_of_torch_export_runs_without_our_code(tmp_path):
    saved = checkpoint()
    path = str(tmp_path / "student.pt2")
    assert export(saved, path).difference <= module.TOLERANCE
    np.save(tmp_path / "clips.npy", clips(4))
    code = (
        "import sys, json, numpy, torch\n"
        "files = {'perfnet.json': ''}\n"
        f"program = torch.export.load({path!r}, extra_files=files)\n"
        f"clips = torch.from_numpy(numpy.load({str(tmp_path / 'clips.npy')!r}))\n"
        "print(json.loads(files['perfnet.json'])['labels'], any(m.startswith('models') for m in sys.modules))\n"
        f"numpy.save({str(tmp_path / 'logits.npy')!r}, program.module()(clips).detach().numpy())\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "['a', 'b', 'ü'] False"
    np.testing.assert_allclose(
        np.load(tmp_path / "logits.npy"), expected(saved, clips(4)), rtol=1e-3, atol=1e-4
    )


def test_a_file_that_differs_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_run_program", lambda path, clips: np.ones((3, 3), np.float32))
    with pytest.raises(StageFailed, match=r"logits differ from PyTorch's by .* nothing was written"):
        export(checkpoint(), str(tmp_path / "student.pt2"))
    assert list(tmp_path.iterdir()) == []


def test_other_clips_than_those_it_was_judged_by(tmp_path):
    found = export(
        checkpoint(),
        str(tmp_path / "s.pt2"),
        evaluate=EvaluateOptions(frames=4, crop_height_px=48, crop_width_px=32),
    )
    assert found.shape_THWC == (4, 48, 32, 3)


def test_the_normalisation_is_inside():
    saved = checkpoint()
    found = ClipsToLogits(saved.build(), saved.normalisation)(torch.from_numpy(clips(2)))
    np.testing.assert_allclose(found.detach().numpy(), expected(saved, clips(2)), rtol=1e-5, atol=1e-6)


def test_refusals(tmp_path, monkeypatch):
    with pytest.raises(
        ValueError, match=r"--output: found 'student.tflite', expected a name that ends in .onnx or .pt2"
    ):
        export(checkpoint(), "student.tflite")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ValueError, match=r"models export needs onnx: pip install -e '\.\[export\]'"):
        export(checkpoint(), str(tmp_path / "a.onnx"))


def test_the_command_says_what_it_checked(tmp_path, capsys):
    saved = tmp_path / "run" / "checkpoints" / "final.pt"
    checkpoint().save(str(saved))
    output = str(tmp_path / "student.pt2")
    assert cli.run(["models", "export", str(tmp_path / "run"), "--output", output, "--frames", "4"]) == 0
    out = capsys.readouterr().out
    assert "uint8 clips of 4 × 32 × 48 × 3" in out
    assert "of the largest logit from PyTorch" in out
