"""What layers say while a network answers."""

import difflib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from stages.core.objectives.contract import Answer
from stages.core.running.errors import Refusal

LISTED = 40  # layers, in the line that says which there are


class Listening:
    """To some layers of one network, for as long as it is open."""

    def __init__(self, network: nn.Module, paths: tuple[str, ...], whose: str) -> None:
        self._said: dict[str, Tensor] = {}
        self._paths, self._whose = paths, whose
        layers = {path: find(network, path, whose) for path in paths}
        self._hooks = [layer.register_forward_hook(self._note(path)) for path, layer in layers.items()]

    def answer(self, network: nn.Module, images: Tensor) -> Answer:
        """`network` is the one that is listened to, perhaps compiled or wrapped."""
        self._said.clear()
        logits = network(images)
        silent = [path for path in self._paths if path not in self._said]
        if silent:
            asked = [name for name, layer in network.named_modules() if name and not list(layer.children())]
            raise Refusal(
                f"{self._whose}'s layer {silent[0]} is not asked when the network answers, as its inner ones may be: "
                f"{', '.join(asked[:LISTED])}"
            )
        return Answer(logits.float(), dict(self._said))

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _note(self, path: str) -> Callable[[nn.Module, Any, Any], None]:
        def note(_module: nn.Module, _given: Any, said: Any) -> None:
            said = getattr(said, "value", said)  # integers of Brevitas come with their scale
            if not isinstance(said, Tensor) or said.ndim not in (2, 3, 4):
                raise Refusal(f"{self._whose}'s layer {path} says no maps, tokens or vectors: name another")
            self._said[path] = said.clone()  # the next layer may write over it, as ReLU often does

        return note


def overhear(network: nn.Module, paths: tuple[str, ...], images: Tensor, whose: str) -> dict[str, Tensor]:
    """What layers say of a few pictures, in evaluation mode; nothing moves."""
    modes = {module: module.training for module in network.modules()}
    listening = Listening(network, paths, whose)
    try:
        with torch.no_grad():
            return dict(listening.answer(network.eval(), images).layers)
    finally:
        listening.close()
        for module, mode in modes.items():
            module.training = mode


def find(network: nn.Module, path: str, whose: str) -> nn.Module:
    layers = {name: module for name, module in network.named_modules() if name}
    if path in layers:
        return layers[path]
    near = difflib.get_close_matches(path, layers, n=3, cutoff=0.5)
    shallow = sorted(layers, key=lambda name: name.count("."))[:LISTED]
    listed = ", ".join(name for name in layers if name in shallow)
    more = f" and {len(layers) - LISTED} more" if len(layers) > LISTED else ""
    raise Refusal(f"{whose} has no layer {path!r}; near it: {', '.join(near) or 'none'}; it has {listed}{more}")
