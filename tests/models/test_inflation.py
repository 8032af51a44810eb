import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.inflation import inflate, inflated_normalisation
from models.normalisation import FLOW, IMAGENET, PIXELS
from models.r3d import R3D50G
from models.s3d import PAPER_MIXED, S3DG


class Bottleneck(nn.Module):
    """A cell of ResNet-50 with the names and the strides of torchvision's and timm's."""

    def __init__(self, inputs, channels, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, 4 * channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * channels)
        self.downsample = None
        if stride != 1 or inputs != 4 * channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, 4 * channels, 1, stride, bias=False), nn.BatchNorm2d(4 * channels)
            )

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """A 2D ResNet with the layout of torchvision's resnet50, as narrow and shallow as one likes."""

    def __init__(self, blocks=(3, 4, 6, 3), width=64):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        inputs = width
        for stage, cells in enumerate(blocks):
            layer = []
            for cell in range(cells):
                stride = 2 if stage and not cell else 1
                layer.append(Bottleneck(inputs, width << stage, stride))
                inputs = 4 * (width << stage)
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layer))
        self.fc = nn.Linear(inputs, 10)

    def features(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class BasicConv2d(nn.Module):
    def __init__(self, inputs, outputs, **shape):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, bias=False, **shape)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class Inception(nn.Module):
    def __init__(self, inputs, one, two_in, two, three_in, three, four):
        super().__init__()
        self.branch1 = BasicConv2d(inputs, one, kernel_size=1)
        self.branch2 = nn.Sequential(
            BasicConv2d(inputs, two_in, kernel_size=1),
            BasicConv2d(two_in, two, kernel_size=3, padding=1),
        )
        self.branch3 = nn.Sequential(
            BasicConv2d(inputs, three_in, kernel_size=1),
            BasicConv2d(three_in, three, kernel_size=3, padding=1),
        )
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), BasicConv2d(inputs, four, kernel_size=1))
        self.channels = one + two + three + four

    def forward(self, x):
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], dim=1)


class GoogLeNet(nn.Module):
    """Inception-v1 with torchvision's names and pooling."""

    def __init__(self):
        super().__init__()
        self.conv1 = BasicConv2d(3, 64, kernel_size=7, stride=2, padding=3)
        self.conv2 = BasicConv2d(64, 64, kernel_size=1)
        self.conv3 = BasicConv2d(64, 192, kernel_size=3, padding=1)
        inputs = 192
        for number, group in enumerate(PAPER_MIXED, start=3):
            for letter, channels in zip("abcde", group.values(), strict=False):
                block = Inception(inputs, *channels)
                self.add_module(f"inception{number}{letter}", block)
                inputs = block.channels
        self.fc = nn.Linear(inputs, 10)

    def features(self, x):
        x = F.max_pool2d(self.conv1(x), 3, 2, ceil_mode=True)
        x = F.max_pool2d(self.conv3(self.conv2(x)), 3, 2, ceil_mode=True)
        x = F.max_pool2d(self.inception3b(self.inception3a(x)), 3, 2, ceil_mode=True)
        for letter in "abcde":
            x = self.get_submodule(f"inception4{letter}")(x)
        x = F.max_pool2d(x, 2, 2, ceil_mode=True)
        return self.inception5b(self.inception5a(x))


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
