"""What a network has to be after every step, whatever the optimizer did. Contract: made from what learns."""

from typing import Protocol

from torch import nn


class Constraint(Protocol):
    def before(self) -> None:
        """Of a step, when gradients are known."""
        ...

    def after(self, rate: float) -> None:
        """Of a step with this learning rate."""
        ...


class Unconstrained:
    def __init__(self, _network: nn.Module) -> None:
        pass

    def before(self) -> None:
        pass

    def after(self, rate: float) -> None:
        pass
