"""Numbers as a person reads them."""

SPACE = "\N{NO-BREAK SPACE}"  # a number and its unit stay on one line
ACRONYMS = {"cpu", "gpu", "jpeg"}


def percent(share: float) -> str:
    """One decimal, more where rounding would turn a share into all or nothing."""
    texts = (f"{share * 100:.{decimals}f}" for decimals in range(1, 6))
    text = next((text for text in texts if float(text) not in (0, 100) or share in (0, 1)), f"{share * 100}")
    return f"{text}{SPACE}%"


def level(confidence: float) -> str:
    return f"{confidence * 100:g}{SPACE}%"


def interval(low: float, high: float) -> str:
    return f"[{low * 100:.1f},{SPACE}{high * 100:.1f}]"


def points(difference: float) -> str:
    """A difference of two shares, with its sign."""
    text = f"{abs(difference) * 100:.1f}"
    if float(text) == 0:
        return "0.0" if difference == 0 else f"{sign(difference)}{abs(difference) * 100:.2f}"
    return f"{sign(difference)}{text}"


def points_interval(low: float, high: float) -> str:
    return f"[{points(low)},{SPACE}{points(high)}]"


def sign(number: float) -> str:
    return "+" if number > 0 else "−"


def megabytes(count: int) -> str:
    """Megabytes are millions of bytes; small files keep three digits."""
    size = count / 1e6
    return f"{size:.2f}{SPACE}MB" if size >= 0.1 else f"{count / 1e3:.3g}{SPACE}kB"


def gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f}{SPACE}GB"


def millions(count: int) -> str:
    return f"{count / 1e6:.3g}{SPACE}M" if count >= 1e6 else f"{count / 1e3:.3g}{SPACE}k"


def whole(count: float) -> str:
    return f"{count:,.0f}"


def factor(times: float) -> str:
    """Two digits are all that such a ratio bears."""
    return f"{times:,.0f}×" if times >= 10 else f"{times:.1f}×"


def faster(times: float) -> str:
    return _compare(times, "faster", "slower", "equally fast")


def smaller(times: float) -> str:
    return _compare(times, "smaller", "larger", "equally large")


def _compare(times: float, better: str, worse: str, even: str) -> str:
    if factor(times) == factor(1 / times) == "1.0×":
        return even
    return f"{factor(times)} {better}" if times > 1 else f"{factor(1 / times)} {worse}"


def milliseconds(time: float) -> str:
    """Three digits, also where the last is a zero."""
    return f"{time:#.3g}" if time < 100 else f"{time:.0f}"


def plural(count: int, noun: str) -> str:
    ending = "es" if noun.endswith("ss") else "s"
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}{ending}"


def listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def sentence(text: str) -> str:
    """As the first of a paragraph."""
    return f"{text[:1].upper()}{text[1:].removesuffix('.')}."


def spelt(name: str) -> str:
    """A name of parameters or metrics, for a person."""
    return name.upper() if name in ACRONYMS else name.replace("_", " ")


def heading(name: str) -> str:
    told = spelt(name)
    return f"{told[:1].upper()}{told[1:]}"


def tiny(number: float) -> str:
    """Two digits; a power of ten where zeros would have to be counted."""
    if number == 0 or abs(number) >= 1e-3:
        return f"{number:.2g}"
    digits, exponent = f"{number:.1e}".split("e")
    power = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{digits}{SPACE}·{SPACE}10{power}"
