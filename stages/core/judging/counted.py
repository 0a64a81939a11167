"""A share of pictures, never without its interval."""

from stages.core import statistics


def share(name: str, found: int, of: int, confidence: float) -> dict[str, float]:
    low, high = statistics.wilson(found, of, confidence)
    return {name: found / of, f"{name}_low": low, f"{name}_high": high}
