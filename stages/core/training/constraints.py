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


class All:
    """Several at once, in this order."""

    def __init__(self, *constraints: Constraint) -> None:
        self._constraints = constraints

    def before(self) -> None:
        for constraint in self._constraints:
            constraint.before()

    def after(self, rate: float) -> None:
        for constraint in self._constraints:
            constraint.after(rate)
