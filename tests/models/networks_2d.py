"""2D image networks with the layouts of the published ones, to know what an inflated network must compute."""

import torch
import torch.nn.functional as F
from torch import nn

from models.s3d import PAPER_MIXED


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
