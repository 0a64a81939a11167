"""Residual networks from two kinds of block; parameter names as in torchvision, so that its weights fit."""

import torch
from torch import Tensor, nn

from stages.core import params

DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
DEPTHS_FOR_CIFAR = {"resnet20": (3, 3, 3), "resnet56": (9, 9, 9), "resnet110": (18, 18, 18)}
BOTTLENECKS = ("resnet50", "resnet101")
CHANNELS = (64, 128, 256, 512)
CHANNELS_FOR_CIFAR = (16, 32, 64)
NARROWEST = 8  # channels that a width leaves


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al. 2015, the basic block)."""

    expansion = 1

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _shortcut(channels_in, channels, stride)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu2(y + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 beside a shortcut; the stride is in the 3x3, as in torchvision."""

    expansion = 4

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(channels, channels * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels * self.expansion)
        self.downsample = _shortcut(channels_in, channels * self.expansion, stride)
        self.relu3 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.relu2(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu3(y + self.downsample(x))


class ResNet(nn.Module):
    """He et al. 2015, table 1 and section 4.2; the small stem is the one they use for CIFAR."""

    def __init__(self, settings: params.ResNet | params.ResNetForCIFAR, classes: int, small_stem: bool) -> None:
        super().__init__()
        block = Bottleneck if settings.name in BOTTLENECKS else Block
        depths = (DEPTHS | DEPTHS_FOR_CIFAR)[settings.name]
        channels_of_stages = CHANNELS_FOR_CIFAR if settings.name in DEPTHS_FOR_CIFAR else CHANNELS
        widths = [max(NARROWEST, round(channels * settings.width)) for channels in channels_of_stages]
        if small_stem:
            self.conv1, self.maxpool = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.Identity()
        else:
            self.conv1, self.maxpool = nn.Conv2d(3, widths[0], 7, 2, 3, bias=False), nn.MaxPool2d(3, 2, 1)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        channels = widths[0]
        self.stages = len(depths)
        for number, (depth, width) in enumerate(zip(depths, widths, strict=True), start=1):
            blocks: list[nn.Module] = []
            for place in range(depth):
                blocks.append(block(channels, width, stride=2 if number > 1 and place == 0 else 1))
                channels = width * block.expansion
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for number in range(1, self.stages + 1):
            x = self.get_submodule(f"layer{number}")(x)
        return self.fc(torch.flatten(self.avgpool(x), 1))


class ResNet9(nn.Module):
    """The network of the DAWNBench contest on CIFAR-10: plain layers that pool, two of them with a residual pair."""

    def __init__(self, settings: params.ResNet9, classes: int) -> None:
        super().__init__()
        widths = [max(NARROWEST, round(channels * settings.width)) for channels in CHANNELS]
        self.stem = _layer(3, widths[0])
        self.layer1 = nn.Sequential(*_layer(widths[0], widths[1]), nn.MaxPool2d(2))
        self.pair1 = _Pair(widths[1])
        self.layer2 = nn.Sequential(*_layer(widths[1], widths[2]), nn.MaxPool2d(2))
        self.layer3 = nn.Sequential(*_layer(widths[2], widths[3]), nn.MaxPool2d(2))
        self.pair2 = _Pair(widths[3])
        self.maxpool = nn.AdaptiveMaxPool2d(1)
        self.fc = nn.Linear(widths[3], classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pair1(self.layer1(self.stem(x)))
        x = self.pair2(self.layer3(self.layer2(x)))
        return self.fc(torch.flatten(self.maxpool(x), 1))


class _Pair(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = _layer(channels, channels), _layer(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x))


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
        elif isinstance(module, Bottleneck):
            nn.init.zeros_(module.bn3.weight)


def _layer(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, 1, 1, bias=False), nn.BatchNorm2d(channels_out), nn.ReLU()
    )


def _shortcut(channels_in: int, channels_out: int, stride: int) -> nn.Module:
    if stride == 1 and channels_in == channels_out:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out))
