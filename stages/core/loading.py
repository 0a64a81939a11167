"""Any model, in floating point or not, ready to answer."""

from pathlib import Path

from stages.core.networks import artifact
from stages.core.networks.artifact import Model


def load(folder: Path) -> Model:
    """Brevitas takes seconds to import, so it is imported only for a network that needs it."""
    if artifact.read_card(folder).quantization is None:
        return artifact.load(folder)
    from stages.core import quantization

    return quantization.load(folder)
