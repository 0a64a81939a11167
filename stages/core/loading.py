"""Any model, whatever numbers it is made of, ready to answer."""

from pathlib import Path

from stages.core import params
from stages.core.networks import artifact
from stages.core.networks.artifact import Model
from stages.core.quantized import stored


def load(folder: Path) -> Model:
    """Brevitas takes seconds to import, so it is imported only for a network that needs it."""
    quantization = artifact.read_card(folder).quantization
    if quantization is None:
        return artifact.load(folder)
    if isinstance(quantization, params.Integer):
        from stages.core.quantized import integers

        return integers.load(folder)
    return stored.load(folder)
