"""Public data sets that may be fetched, each with the digest that its publisher or a well-known library states."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from stages.core.running import progress
from stages.core.running.errors import Refusal

BLOCK = 2**16


@dataclass(frozen=True)
class Download:
    url: str
    file: str
    digest: str  # algorithm:hexadecimal


def fetch(name: str, home: Path) -> Path:
    """The verified archive, downloaded unless it is there."""
    if name not in DOWNLOADS:
        raise Refusal(f"{name} cannot be fetched: get it from {BY_HAND[name]} and set prepare.source.path")
    import pooch
    import requests

    wanted = DOWNLOADS[name]
    place = home / "downloads"
    target = place / wanted.file
    pooch.get_logger().setLevel(logging.ERROR)
    try:
        with progress.download(wanted.file) as bar:
            downloader: Any = pooch.HTTPDownloader(progressbar=cast(bool, bar), chunk_size=BLOCK, timeout=60)
            pooch.retrieve(wanted.url, wanted.digest, wanted.file, place, downloader=downloader)
    except ValueError as error:  # pooch's word for a digest that differs; it keeps no such file
        raise Refusal(
            f"{wanted.url} gave another file than the one published ({wanted.digest}); {_by_hand(name, target)}"
        ) from error
    except requests.RequestException as error:
        reason = type(error).__name__ if error.response is None else f"status {error.response.status_code}"
        raise Refusal(f"{wanted.url} cannot be fetched ({reason}); {_by_hand(name, target)}") from error
    return target


def _by_hand(name: str, target: Path) -> str:
    wanted = DOWNLOADS[name]
    return (
        f"fetch {wanted.file} ({wanted.digest}) elsewhere and put it at {target}, "
        "or set prepare.source.path to a copy, packed or not"
    )


BY_HAND: Mapping[str, str] = {
    "intel": "https://www.kaggle.com/datasets/puneet6060/intel-image-classification",
    "neudet": "https://www.kaggle.com/datasets/kaustubhdikshit/neu-surface-defect-database",
}

DOWNLOADS: Mapping[str, Download] = {
    "cifar10": Download(  # digests of both as torchvision states them
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        "cifar-10-python.tar.gz",
        "md5:c58f30108f718f92721af3b95e74349a",
    ),
    "cifar100": Download(
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        "cifar-100-python.tar.gz",
        "md5:eb9058c3a382ffc7106e4002c42a8d85",
    ),
    "eurosat": Download(  # torchvision
        "https://huggingface.co/datasets/torchgeo/eurosat/resolve/c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip",
        "EuroSAT.zip",
        "md5:c8fa014336c82ac7804f0398fcb19387",
    ),
    "trashnet": Download(  # the authors' own copy
        "https://huggingface.co/datasets/garythung/trashnet/resolve/main/dataset-resized.zip",
        "dataset-resized.zip",
        "sha256:c060e8abfe5d6de0578ca15be1ed8ad0794a865d333c3473d53d1d9ad6e38b8c",
    ),
    "ucmerced": Download(  # torchgeo
        "https://hf.co/datasets/torchgeo/ucmerced/resolve/7c5ef3454d9b1cccfa7ccde0c01fc8f00a45909a/UCMerced_LandUse.zip",
        "UCMerced_LandUse.zip",
        "md5:5b7ec56793786b6dc8a908e8854ac0e4",
    ),
}
