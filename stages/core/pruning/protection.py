"""What is protected by its name, with all that it consists of."""

from collections.abc import Iterable


def covers(protected: Iterable[str], name: str) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in protected)


def touches(protected: Iterable[str], name: str) -> bool:
    """Covers it, or a part of it."""
    return covers(protected, name) or any(covers([name], one) for one in protected)
