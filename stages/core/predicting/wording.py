"""Names as they may be shown: a file's can hold anything, from colours for a terminal to bytes that are no text."""

import unicodedata

ESCAPED = range(0xDC80, 0xDD00)  # in which Python keeps bytes that are no UTF-8


def shown(name: str) -> str:
    """For eyes: whatever moves a cursor, hides or turns text is spelled out."""
    return name if name.isprintable() else "".join(one if one.isprintable() else _spelled(one) for one in name)


def text(name: str) -> str:
    """For files of any program: bytes that are no UTF-8 are spelled out, and nothing else."""
    return "".join(_spelled(one) if 0xD800 <= ord(one) < 0xE000 else one for one in name)


def width(line: str) -> int:
    """In columns of a terminal."""
    if line.isascii():
        return len(line)
    return sum(2 if unicodedata.east_asian_width(one) in "WF" else not unicodedata.combining(one) for one in line)


def _spelled(character: str) -> str:
    if ord(character) in ESCAPED:
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
