"""A second set of weights that follows the first slowly, and often knows more (Polyak averaging).

torch's own AveragedModel asks the device for its count of steps at each of them; here the host counts.
"""

import torch
from torch import Tensor, nn

EARLY = 10  # steps after which the average is no longer just the newest weights


class Average:
    """`decay` is reached gradually, so that a short training is averaged over itself and not over its beginning."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._decay, self._newest = decay, network.state_dict()  # which shares its memory with the network
        self._moving = [name for name, tensor in self._newest.items() if tensor.is_floating_point()]
        self.state = network.state_dict()
        for name, tensor in self._newest.items():
            self.state[name] = tensor.clone()
        self.steps = 0

    @torch.no_grad()
    def follow(self) -> None:
        self.steps += 1
        share = 1 - min(self._decay, self.steps / (EARLY + self.steps))
        averages, newest = ([state[name] for name in self._moving] for state in (self.state, self._newest))
        torch._foreach_lerp_(averages, newest, share)  # pyright: ignore[reportPrivateImportUsage]
        for name in self._newest.keys() - set(self._moving):
            self.state[name].copy_(self._newest[name])

    def restore(self, state: dict[str, Tensor], steps: int) -> None:
        for name, tensor in state.items():
            self.state[name].copy_(tensor)
        self.steps = steps
