"""`lightvision models`: every network there is, with its size as it would be built for given pictures."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.table import Table

from stages.core import params
from stages.core.running import files, progress
from stages.core.running.errors import Refusal

IMAGE_SIZE, CLASSES = 32, 10
BLOCKS = (4, 6, 8, 10, 12)


def add(members: Any, action: str) -> None:
    text = "List the networks with parameters and multiply-accumulates for one picture, the actual head included."
    parser: argparse.ArgumentParser = members.add_parser(action, description=text, allow_abbrev=False)
    parser.add_argument("--image-size", type=int, default=IMAGE_SIZE, help=f"in pixels; {IMAGE_SIZE} if not given")
    parser.add_argument("--classes", type=int, default=CLASSES, help=f"{CLASSES} if not given")
    parser.add_argument(
        "--timm", metavar="PATTERN", help="those of timm whose name fits, such as 'mobilenet*', instead"
    )
    parser.add_argument(
        "--torchvision", metavar="PATTERN", help="those of torchvision whose name fits, such as 'regnet*', instead"
    )
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    parser.set_defaults(run=show)


def show(image_size: int, classes: int, timm: str | None, torchvision: str | None, json: Path | None) -> int:
    if image_size < 1 or classes < 1:
        raise Refusal("--image-size and --classes begin at 1")
    elsewhere = [*(of_timm(timm) if timm else ()), *(of_torchvision(torchvision) if torchvision else ())]
    wanted = elsewhere or list(ours())
    rows = [measured(settings, image_size, classes) for settings in progress.track(wanted, "models", len(wanted))]
    table = Table(title=f"{len(rows)} networks for {image_size} x {image_size} pictures and {classes} classes")
    table.add_column("network in params.yaml", overflow="fold")
    for column in ("parameters", "MACs"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(row["network"], f"{row['parameters']:,}" if row["parameters"] else "", row["told"])
    Console().print(table)
    if json:
        files.write_json(json, {"image_size": image_size, "classes": classes, "networks": rows})
    return 0


def ours() -> Iterator[params.Member]:
    """One of each name, at its full width and with the stem that suits the pictures."""
    for blocks in BLOCKS:
        yield params.ResidualCNN(name="residual_cnn", blocks=blocks, hidden_layers=1)
    yield params.ResNet9(name="resnet9", width=1.0)
    for name in get_args(params.ResNetForCIFAR.model_fields["name"].annotation):
        yield params.ResNetForCIFAR(name=name, width=1.0)
    for kind in (params.ResNet, params.Mobile, params.ShuffleNet):
        for name in get_args(kind.model_fields["name"].annotation):
            yield kind(name=name, stem="auto", width=1.0)
    for name in get_args(params.EfficientNet.model_fields["name"].annotation):
        yield params.EfficientNet(name=name, stem="auto")
    for name in get_args(params.ViT.model_fields["name"].annotation):
        yield params.ViT(name=name, patch=0)


def of_timm(pattern: str) -> Iterator[params.Member]:
    import timm

    names = timm.list_models(pattern)
    if not names:
        raise Refusal(f"no network of timm is called {pattern!r}; with a star more fit: 'resnet*'")
    for name in names:
        yield params.Timm(name="timm", model=name, options={})


def of_torchvision(pattern: str) -> Iterator[params.Member]:
    from torchvision import models

    names = models.list_models(module=models, include=pattern)
    if not names:
        raise Refusal(f"no classifier of torchvision is called {pattern!r}; with a star more fit: 'regnet*'")
    for name in names:
        yield params.Torchvision(name="torchvision", model=name, options={})


def measured(settings: params.Member, image_size: int, classes: int) -> dict[str, Any]:
    """Built without memory for its weights; one that does not take such pictures says so in its place.

    Libraries have no word of their own for that: they run into errors of shape, or of what meta tensors cannot do.
    """
    import torch

    from stages.core import counting
    from stages.core.networks import families

    row: dict[str, Any] = {"network": written(settings), "parameters": None, "macs": None}
    try:
        try:
            with torch.device("meta"):
                network = families.build(settings, classes, image_size)
        except (Refusal, RuntimeError):  # some reckon with tensors while they are built
            network = families.build(settings, classes, image_size)
        row |= {"parameters": counting.parameters(network), "macs": counting.multiply_accumulates(network, image_size)}
        return row | {"told": f"{row['macs']:,}"}
    except (Refusal, RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        return row | {"told": f"not for {image_size} px: {' '.join(str(error).split())[:60]}"}


def written(settings: params.Member) -> str:
    """As a person would write it in params.yaml."""
    values = ", ".join(f"{name}: {'{}' if value == {} else value}" for name, value in settings.model_dump().items())
    return f"{{{values}}}"
