"""What teacher and student looked at, where they disagree."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from stages.core.batches import Pictures
from stages.core.datasets.storage import Split
from stages.core.judging import attention, drawings, showing
from stages.core.judging.attention import LEAST, Sight
from stages.core.networks.families import Ensemble
from stages.core.running import files


def write(
    folder: Path,
    networks: Mapping[str, nn.Module],
    chances: Mapping[str, np.ndarray],
    split: Split,
    pictures: Pictures,
    count: int,
) -> None:
    """Two networks; one without a layer to look at has no drawings."""
    folder.mkdir(parents=True)
    if not count:
        told = {"layers": dict.fromkeys(networks), "reason": "evaluate.attention is 0: none was asked for"}
        files.write_json(folder / "attention.json", told | {"pictures": []})
        return
    first, second = (chances[name] for name in networks)
    shown, reason = showing.disputed(first, second, count)
    sights = {name: attention.find(network, _seen(split, pictures, shown[0])) for name, network in networks.items()}
    for picture in shown:
        drawings.save(folder, picture, drawings.enlarged(split.images[picture]))
        for name, sight in sights.items():
            if sight:
                answer = int(chances[name][picture].argmax())
                heat = attention.heat(sight, _seen(split, pictures, picture), answer).cpu().numpy()
                drawings.save(folder, picture, drawings.heated(split.images[picture], heat), of=name)
    reasons = [f"of {' and '.join(networks)}, {reason}"] if reason else []
    reasons += [said for name in networks if (said := _limit(name, networks[name], sights[name]))]
    told = {
        "layers": {name: sight and sight.path for name, sight in sights.items()},
        "reason": "; ".join(reasons),
        "pictures": [_said(picture, {name: chances[name] for name in networks}, split) for picture in shown],
    }
    files.write_json(folder / "attention.json", told)


def _said(picture: int, chances: Mapping[str, np.ndarray], split: Split) -> dict[str, object]:
    classes = split.facts.classes
    row: dict[str, object] = {"picture": picture, "label": classes[split.labels[picture]]}
    for name, chance in chances.items():
        row[name] = classes[chance[picture].argmax()]
        row[f"{name}_confidence"] = round(float(chance[picture].max()), 6)
    return row


def _limit(name: str, network: nn.Module, sight: Sight | None) -> str:
    if sight is None:
        return f"no layer of the {name} keeps {LEAST} rows and columns that its answer depends on"
    return f"the {name} is an ensemble: its first member is shown" if isinstance(network, Ensemble) else ""


def _seen(split: Split, pictures: Pictures, picture: int) -> Tensor:
    raw = torch.from_numpy(np.ascontiguousarray(split.images[[picture]])).to(pictures.device)
    return pictures.normalise(raw.permute(0, 3, 1, 2))
