"""How figures and texts are written on the page."""

MOST_CHARACTERS = 600  # of one text on the page; the stored data holds all of it

# HTML drops or replaces these characters, and a reader of odd data wants to see them.
_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {127: 0x2421}


def percent(share: float) -> str:
    """0.5 is "50.0 %"."""
    return f"{100 * share:.1f}\u00a0%"


def span(low: float, high: float) -> str:
    """0.4 and 0.6 are "40.0 to 60.0 %"."""
    return f"{100 * low:.1f} to {percent(high)}"


def points(difference: float) -> str:
    """0.05 is "+5.0", with a real minus sign for losses; what rounds to nothing is "0.0"."""
    text = f"{100 * difference:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def p_value(p: float) -> str:
    """McNemar's p-value as it is printed."""
    return "McNemar’s p < 0.001" if p < 0.001 else f"McNemar’s p = {p:.3f}"


def figure(value: float | int | None) -> str:
    """A count, a loss, or a dash for what was not measured."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def decimals(value: float | None, places: int = 3) -> str:
    """A reward or another share that is no percentage, or a dash for what was not measured."""
    return "–" if value is None else f"{value:.{places}f}"


def signed(value: float, places: int = 3) -> str:
    """A difference of rewards with its sign, a real minus for losses; what rounds to nothing is "0.000"."""
    text = f"{value:+.{places}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def visible(text: object) -> str:
    """A text with its control characters shown as their pictures and lone surrogates replaced."""
    return str(text).translate(_PICTURES).encode("utf-8", "replace").decode("utf-8")


def cut(text: object) -> tuple[str, int]:
    """The beginning of a text, and how many characters are left out."""
    whole = visible(text)
    return whole[:MOST_CHARACTERS], max(0, len(whole) - MOST_CHARACTERS)
