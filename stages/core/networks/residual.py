"""Residual networks from one block; parameter names as in torchvision, so that its weights fit."""

import torch
from torch import Tensor, nn

from stages.core import params


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al. 2015, the basic block)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.downsample = _shortcut(channels_in, channels_out, stride)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu2(y + self.downsample(x))


class ResNet18(nn.Module):
    """He et al. 2015, table 1, 18 layers; the small stem is the one they use for CIFAR."""

    def __init__(self, settings: params.ResNet, classes: int) -> None:
        super().__init__()
        widths = [max(8, round(channels * settings.width)) for channels in (64, 128, 256, 512)]
        if settings.stem == "small":
            self.conv1, self.maxpool = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.Identity()
        else:
            self.conv1, self.maxpool = nn.Conv2d(3, widths[0], 7, 2, 3, bias=False), nn.MaxPool2d(3, 2, 1)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        self.layer1 = _pair(widths[0], widths[0], stride=1)
        self.layer2 = _pair(widths[0], widths[1], stride=2)
        self.layer3 = _pair(widths[1], widths[2], stride=2)
        self.layer4 = _pair(widths[2], widths[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[3], classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class ResidualCNN(nn.Module):
    """16 channels at first; each second block doubles them and halves the picture; then hidden layers of half size."""

    def __init__(self, settings: params.ResidualCNN, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        blocks: list[nn.Module] = []
        width = 16
        for number in range(settings.blocks):
            stride = 1 + number % 2
            blocks.append(Block(width, width * stride, stride))
            width *= stride
        self.blocks = nn.Sequential(*blocks)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        head: list[nn.Module] = []
        for _ in range(settings.hidden_layers):
            head += [nn.Linear(width, width // 2), nn.BatchNorm1d(width // 2), nn.ReLU(), nn.Dropout(0.5)]
            width //= 2
        self.head = nn.Sequential(*head, nn.Linear(width, classes))
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.relu(self.bn1(self.conv1(x))))
        return self.head(torch.flatten(self.avgpool(x), 1))


def initialise(network: nn.Module) -> None:
    """He initialisation; each block starts as its shortcut alone (Goyal et al. 2017)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    for module in network.modules():
        if isinstance(module, Block):
            nn.init.zeros_(module.bn2.weight)


def _pair(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(Block(channels_in, channels_out, stride), Block(channels_out, channels_out, 1))


def _shortcut(channels_in: int, channels_out: int, stride: int) -> nn.Module:
    if stride == 1 and channels_in == channels_out:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out))
