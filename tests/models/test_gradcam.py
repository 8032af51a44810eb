from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from moving_squares import SMALL, put_workspace, squares
from torch import nn

from models.checkpoint import build_network
from models.gradcam import Responses, explain, grad_cam, stages, stretched
from models.gradcam_sheet import TITLE_PX, gradcam_sheet, overlay, title
from models.options import NetworkOptions
from models.train import train
from pipelines import cli


class Corners(nn.Module):
    """Class 0 sees the upper left quarter of the first half of the frames, class 1 everything else."""

    def __init__(self):
        super().__init__()
        self.res2 = _Masks()
        self.classifier = nn.Linear(2, 2, bias=False)
        self.classifier.weight.data = torch.eye(2)

    def forward(self, clip_BCTHW):
        return self.classifier(self.res2(clip_BCTHW).mean(dim=(2, 3, 4)))


class _Masks(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, clip_BCTHW):
        bright = clip_BCTHW[:, :1] * self.scale
        corner = torch.zeros_like(bright)
        corner[:, :, : bright.shape[2] // 2, : bright.shape[3] // 2, : bright.shape[4] // 2] = 1
        return torch.cat([bright * corner, bright * (1 - corner)], dim=1)


def test_a_class_that_depends_on_one_corner_lights_up_that_corner():
    clip = torch.ones(1, 3, 4, 8, 8)
    maps, logits = grad_cam(Corners().eval(), clip, stage="res2", classes_B=torch.tensor([0]))
    assert maps[0, :2, :4, :4].min() > 0
    maps[0, :2, :4, :4] = 0
    assert maps.abs().max() == 0
    assert logits.shape == (1, 2)
    predicted, _ = grad_cam(Corners().eval(), clip, stage="res2")  # class 1 sees more
    assert predicted[0, :2, :4, :4].max() == 0
    assert predicted[0, 2:].min() > 0


@pytest.mark.parametrize(
    ("options", "stage"),
    [
        (SMALL.network, "res2"),
        (SMALL.network, "res4"),
        (SMALL.network, "res5"),
        (SMALL.network, "stem"),  # what follows writes into it
        (SMALL.network, "res2.0.expand"),
        (NetworkOptions(backbone="s3dg", width=0.1), "mixed_4"),
        (NetworkOptions(backbone="s3dg", width=0.1), "mixed_5.5b"),
    ],
)
def test_maps_equal_a_naive_twin(options, stage):
    """The twin needs no hook: it perturbs nothing either, but differentiates a network whose stage is a leaf."""
    torch.manual_seed(0)
    network = build_network(options, num_classes=5, in_channels=3).eval()
    for module in network.modules():  # so that no stage is silent
        if isinstance(module, nn.BatchNorm3d):
            module.weight.data.uniform_(0.5, 1.5)
    clips = torch.randn(2, 3, 8, 32, 32)
    maps, logits = grad_cam(network, clips, stage=stage)
    assert torch.allclose(logits, network(clips), atol=1e-5)

    features = []
    module = network.get_submodule(stage)
    with module.register_forward_hook(lambda m, i, out: features.append(out.clone())):
        network(clips)
    for b in range(2):
        leaf = features[0][b : b + 1].clone().requires_grad_()
        with module.register_forward_hook(lambda m, i, out, leaf=leaf: leaf.clone()):
            score = network(clips[b : b + 1])[0].max()
        (gradient,) = torch.autograd.grad(score, leaf)
        expected = torch.zeros(leaf.shape[2:])
        for c in range(leaf.shape[1]):
            expected += gradient[0, c].sum() / gradient[0, c].numel() * leaf[0, c].detach()
        torch.testing.assert_close(maps[b], expected.clamp_min(0), rtol=1e-4, atol=1e-7)
    assert maps.max() > 0


def test_stages_are_named_where_one_is_not_there():
    network = build_network(SMALL.network, num_classes=3, in_channels=3)
    assert stages(network) == ["stem", "res2", "res3", "res4", "res5"]
    with pytest.raises(
        ValueError, match=r"--stage: the network has no 'res6'; it has stem, res2, res3, res4, res5"
    ):
        grad_cam(network, torch.zeros(1, 3, 4, 32, 32), stage="res6")
    with pytest.raises(ValueError, match="--stage: classifier has no maps"):
        grad_cam(network.eval(), torch.zeros(1, 3, 4, 32, 32), stage="classifier")


def test_stretched_maps_have_the_size_of_the_clip_and_their_largest_value_is_one():
    maps = torch.zeros(2, 2, 2, 2)
    maps[0, 1, 0, 1] = 7.0
    found = stretched(maps, (8, 16, 16))
    assert found.shape == (2, 8, 16, 16)
    assert found[0].max() == 1
    assert found[0, -1, 0, -1] == 1  # the corner, at the end
    assert found[0, 0, -1, 0] == 0
    assert found[1].max() == 0


def responses(**changes):
    maps_THW = torch.zeros(10, 24, 32)
    maps_THW[:, :12, :16] = 1
    values = Responses(
        "rgb",
        "rgb",
        torch.full((10, 24, 32, 3), 100, dtype=torch.uint8),
        maps_THW,
        "hug",
        0.834,
        "hug",
        "hug",
    )
    return replace(values, **changes)


def test_titles_say_prediction_and_truth():
    assert title(responses()) == "rgb: hug 0.83 (right)"
    assert title(responses(truth="kick")) == "rgb: hug 0.83 (truth kick)"
    assert title(responses(predicted="\x1bkick")) == "rgb: hug 0.83, predicted \\x1bkick (truth hug)"


def test_the_sheet_has_frames_above_and_responses_below():
    flow = torch.full((10, 24, 32, 2), 128, dtype=torch.uint8)
    sheet_HWC = gradcam_sheet([responses(), responses(run="flow", stream="flow", clip_THWC=flow)], columns=4)
    block_px = TITLE_PX + 2 * (24 + 4)
    assert sheet_HWC.shape == (2 * block_px, 4 * 32 + 3 * 4, 3)
    frame_HWC = sheet_HWC[TITLE_PX : TITLE_PX + 24, :32]
    assert (frame_HWC == 100).all()
    answer_HWC = sheet_HWC[TITLE_PX + 28 : TITLE_PX + 52, :32].astype(int)
    assert answer_HWC[2, 2].argmax() == 0  # red
    assert answer_HWC[-2, -2].argmax() == 2  # blue
    assert (sheet_HWC[block_px + TITLE_PX : block_px + TITLE_PX + 24, :32] == 255).all()  # no motion is white


def test_heat_is_blue_for_none_and_red_for_most():
    found = overlay(np.zeros((2, 2, 3), np.uint8), np.array([[0, 1], [0.5, 0]], np.float32)).astype(int)
    assert found[0, 0].argmax() == 2
    assert found[0, 1].argmax() == 0
    assert found[1, 0].argmax() == 1


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gradcam")
    workspace = put_workspace(folder, squares(4, split="train") + squares(1, split="test", seed=1))
    for run in ("rgb", "flow"):
        train(run, workspace=str(workspace), options=SMALL)
    return workspace


def test_a_clip_of_the_stores_is_explained(trained):
    found = explain("flow", "test/left-00", workspace=str(trained), options=SMALL, stage="res5")
    assert found.clip_THWC.shape == (8, 40, 40, 2)
    assert found.maps_THW.shape == (8, 40, 40)
    assert (found.stream, found.truth) == ("flow", "left")
    assert found.label == found.predicted
    named = explain("flow", "test/left-00", workspace=str(trained), options=SMALL, stage="res5", label="down")
    assert (named.label, named.predicted) == ("down", found.predicted)
    with pytest.raises(
        ValueError, match=r"clip 'x' has no split in column 'split' or is not in the store flow"
    ):
        explain("flow", "x", workspace=str(trained), options=SMALL, stage="res5")
    with pytest.raises(ValueError, match=r"--label: run flow does not know 'up'; it knows down, left, right"):
        explain("flow", "test/left-00", workspace=str(trained), options=SMALL, stage="res5", label="up")
    with pytest.raises(ValueError, match="run pose is not trained"):
        explain("pose", "test/left-00", workspace=str(trained), options=SMALL, stage="res5")


def test_the_command_writes_a_sheet(trained, tmp_path, capsys):
    path = tmp_path / "sheet.png"
    arguments = ["gradcam", "test/left-00", "--runs", "rgb", "flow", "--stage", "res4", "--output", str(path)]
    assert cli.run([*arguments, "--workspace", str(trained)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(path)
    sheet = cv2.imread(str(path))
    assert sheet.shape == (2 * (TITLE_PX + 2 * 44), 8 * 40 + 7 * 4, 3)
