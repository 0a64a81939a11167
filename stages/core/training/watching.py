"""A loss that is no number is noticed a step or two after it happened, and no step waits for the device to find out."""

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

LATEST = 2  # steps that a device may be ahead of what is known of it


class Event(Protocol):
    """What of torch.cuda.Event is needed."""

    def query(self) -> bool: ...

    def synchronize(self) -> None: ...


class NotFinite(Exception):
    """`step` counts from 0 in its epoch."""

    def __init__(self, step: int, images: Tensor) -> None:
        super().__init__(f"the loss of step {step} is not finite")
        self.step, self.images = step, images


class _Seen(NamedTuple):
    step: int
    loss: Tensor
    images: Tensor
    arrived: Event | None


@dataclass
class Watch:
    last: float = float("nan")

    def __post_init__(self) -> None:
        self._waiting: deque[_Seen] = deque()

    def see(self, step: int, loss: Tensor, images: Tensor) -> None:
        """Raises NotFinite for this loss or, on a GPU, for one before it."""
        arrived = None
        host = loss.detach().float()
        if loss.is_cuda:
            host = torch.empty((), pin_memory=True).copy_(host, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        self.note(step, host, images, arrived)

    def note(self, step: int, loss: Tensor, images: Tensor, arrived: Event | None) -> None:
        """`loss` is on its way to the host; it is there once `arrived` has happened."""
        self._waiting.append(_Seen(step, loss, images, arrived))
        while self._waiting and (_is_here(self._waiting[0]) or len(self._waiting) > LATEST):
            self._judge(self._waiting.popleft())

    def finish(self) -> None:
        """The epoch is over: nothing is left unknown."""
        while self._waiting:
            self._judge(self._waiting.popleft())

    def _judge(self, seen: _Seen) -> None:
        if seen.arrived is not None:
            seen.arrived.synchronize()
        self.last = seen.loss.item()
        if not torch.isfinite(seen.loss):
            raise NotFinite(seen.step, seen.images)


def culprit(network: nn.Module, images: Tensor) -> str:
    """Where in the network it began, as far as the weights and one more pass over the same pictures tell."""
    if not torch.isfinite(images).all():
        return "the pictures themselves are not finite"
    for name, weight in network.named_parameters():
        if not torch.isfinite(weight).all():
            return f"first in the weights {name}"
    found: list[str] = []

    def note(name: str, answer: object) -> None:
        if isinstance(answer, Tensor) and not torch.isfinite(answer).all():
            found.append(name)

    handles = [
        module.register_forward_hook(lambda _module, _inputs, answer, name=name: note(name, answer))
        for name, module in network.named_modules()
        if not list(module.children())
    ]
    try:
        with torch.no_grad():
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    return f"first in what the layer {found[0]} answers" if found else "every layer answers finite numbers"


def _is_here(seen: _Seen) -> bool:
    return seen.arrived is None or seen.arrived.query()
