import pickle

import pytest
import torch
from networks_2d import GoogLeNet, ResNet
from torch import nn

from models.inflation import inflate, inflated_normalisation
from models.normalisation import FLOW, IMAGENET, PIXELS
from models.r3d import R3D50G
from models.s3d import S3DG


def randomise(network):
    """Weights and statistics of a network that has seen something."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return network.eval()


def saved(network, path):
    torch.save(network.state_dict(), path)
    return str(path)


def relative_error(found, expected):
    return float((found - expected).norm() / expected.norm())


SMALL = {"width": 0.125, "blocks": (2, 2, 2, 2)}


@torch.no_grad()
def still(network, image, frames):
    """Features of the middle frame of a video that shows one image all the time."""
    maps = network.eval().features(image[:, :, None].expand(-1, -1, frames, -1, -1))
    return maps[:, :, maps.shape[2] // 2]


def test_an_inflated_resnet_sees_a_still_video_as_the_2d_network_sees_the_image(tmp_path):
    """To 1e-5 of the norm, the rounding of float32: 25 frames reach far enough beyond the middle one."""
    flat = randomise(ResNet((2, 2, 2, 2), width=8))
    network = R3D50G(4, gate="none", **SMALL)
    inflate(network, saved(flat, tmp_path / "2d.pth"), backbone="r3d50g")
    image = torch.randn(1, 3, 64, 64)
    assert relative_error(still(network, image, 25), flat.features(image).detach()) < 1e-5


@pytest.mark.parametrize("size", [32, 64])
def test_an_inflated_inception_sees_a_still_video_as_the_2d_network_sees_the_image(tmp_path, size):
    flat = randomise(GoogLeNet())
    network = S3DG(4, gate="none")
    inflate(network, saved(flat, tmp_path / "2d.pth"), backbone="s3dg")
    image = torch.randn(1, 3, size, size)
    assert relative_error(still(network, image, 113), flat.features(image).detach()) < 1e-5


def test_gates_start_open_so_that_the_features_stay_near_those_of_the_2d_network(tmp_path):
    """Within a tenth, through the four gates of the paper's network: they start at 0.98, not at 0.5."""
    flat = randomise(ResNet((2, 2, 2, 2), width=8))
    network = R3D50G(4, gate="block", **SMALL)
    inflate(network, saved(flat, tmp_path / "2d.pth"), backbone="r3d50g")
    image = torch.randn(1, 3, 64, 64)
    assert relative_error(still(network, image, 25), flat.features(image).detach()) < 0.1


def test_the_report_counts_every_tensor(tmp_path):
    flat = ResNet((2, 2, 2, 2), width=8)
    network = R3D50G(4, **SMALL)
    report = inflate(network, saved(flat, tmp_path / "2d.pth"), backbone="r3d50g")
    assert len(report.used) == len(flat.state_dict()) - 2
    assert report.left_over == ("fc.weight", "fc.bias")
    gates = [f"res{i}.2.project.{what}" for i in range(2, 6) for what in ("weight", "bias")]
    assert sorted(report.untouched) == sorted([*gates, "classifier.weight", "classifier.bias"])
    assert str(report).startswith(f"{len(report.used)} tensors inflated, 2 not used (fc), 10 left at")


@pytest.mark.parametrize(
    "wrap", [lambda w: {"state_dict": w}, lambda w: {f"module.{k}": v for k, v in w.items()}]
)
def test_checkpoints_of_training_scripts_are_read_as_well(tmp_path, wrap):
    flat = ResNet((2, 2, 2, 2), width=8)
    torch.save(wrap(flat.state_dict()), tmp_path / "2d.pth")
    network = R3D50G(4, **SMALL)
    inflate(network, str(tmp_path / "2d.pth"), backbone="r3d50g")
    assert torch.equal(network.res3[0].shortcut[1].weight, flat.layer2[0].downsample[1].weight)


def test_the_first_convolution_for_flow_is_the_mean_over_the_colours(tmp_path):
    flat = ResNet((2, 2, 2, 2), width=8)
    network = R3D50G(4, 2, **SMALL)
    inflate(network, saved(flat, tmp_path / "2d.pth"), backbone="r3d50g")
    for channel in range(2):
        for frame in range(5):
            found = network.stem[0].weight[:, channel, frame]
            torch.testing.assert_close(found, flat.conv1.weight.mean(dim=1) / 5)


def test_pixels_become_what_the_2d_network_was_trained_on():
    assert inflated_normalisation("rgb", PIXELS, backbone="r3d50g") == IMAGENET
    assert inflated_normalisation("pose", PIXELS, backbone="s3dg") == PIXELS
    assert inflated_normalisation("flow", FLOW, backbone="r3d50g") == FLOW


class Harmful:
    def __reduce__(self):
        return print, ("unpickled",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"no weights", "is no file of weights"),
        (pickle.dumps(Harmful()), r"is no file of weights \(UnpicklingError\)"),
        ({"epoch": 3}, "holds no weights by name"),
        (
            GoogLeNet,
            r"has nothing for .* layers of r3d50g, the first is stem.0.weight; it must be a 2D ResNet-50",
        ),
        (lambda: ResNet((2, 2, 2, 1), width=8), r"has nothing for 15 layers of r3d50g, the first is res5\.1"),
        (
            lambda: ResNet((2, 2, 2, 2), width=16),
            r"conv1.weight is \(16, 3, 7, 7\)|inflation needs network.width 1",
        ),
    ],
)
def test_a_file_of_something_else_is_refused_in_one_line(tmp_path, content, message, capsys):
    path = tmp_path / "2d.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content if isinstance(content, dict) else content().state_dict(), path)
    with pytest.raises(ValueError, match=message) as caught:
        inflate(R3D50G(4, **SMALL), str(path), backbone="r3d50g")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("network.inflate_from: ")
    assert "unpickled" not in capsys.readouterr().out
