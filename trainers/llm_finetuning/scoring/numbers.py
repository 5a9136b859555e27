"""Numbers as people write them in answers: thousands, currency, percent, fractions, words such as million. No torch.

What is refused: text from which no number can be read gives none, never zero.
"""

from __future__ import annotations

import re
import unicodedata

_SCALES = {
    "thousand": 1e3,
    "million": 1e6,
    "billion": 1e9,
    "trillion": 1e12,
    "mn": 1e6,
    "bn": 1e9,
    "千": 1e3,
    "万": 1e4,
    "亿": 1e8,
}
_WORDS = "|".join(sorted(_SCALES, key=len, reverse=True))
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+"
_NUMBER = re.compile(
    rf"(?P<open>\()?\s*(?P<sign>[-+])?\s*(?:[$€£¥]|us\$|hk\$)?\s*(?P<inner>[-+])?(?P<digits>{_DIGITS})"
    rf"(?P<power>e[-+]?\d+)?(?:\s*/\s*(?P<below>{_DIGITS}))?\s*(?P<percent>%)?\s*(?P<scale>{_WORDS})?",
    re.IGNORECASE,
)
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_WRAPPED = re.compile(r"\\(?:text|mathrm|mathbf)\s*\{([^{}]*)\}")
_CLOSE = 1e-6  # by which a number that counts as exact may differ, relative to it


def unwrap_latex(text: str) -> str:
    r"""Text without LaTeX's marks: `\frac{3}{4}` is 3/4, `\text{km}` km, `\$` $, `\,` nothing."""
    text = _WRAPPED.sub(r" \1 ", _FRACTION.sub(r"\1/\2", text))
    for mark in (r"\left", r"\right", r"\,", r"\!", r"\;", r"\ "):
        text = text.replace(mark, "")
    return text.replace(r"\$", "$").replace(r"\%", "%").replace(r"\times", "×")


def _read(match: re.Match[str]) -> list[float]:
    """What the number may mean: itself, and times its word of scale."""
    value = float(match["digits"].replace(",", "") + (match["power"] or ""))
    if match["below"]:
        below = float(match["below"].replace(",", ""))
        if below == 0:
            return []
        value /= below
    if "-" in (match["sign"], match["inner"]):
        value = -value
    scale = _SCALES.get((match["scale"] or "").lower(), 1.0)
    values = dict.fromkeys((value, value * scale))
    return list(values)


def read_numbers(text: str, *, is_whole: bool = False) -> list[float]:
    """What the last number in a text may mean; the first meaning is the number as it is written.

    A word of scale gives a second meaning, an amount in brackets as in accounts, "(12.5)", its negative.

    Args:
        text: such as "$1,496.5 million".
        is_whole: the text must be one number with its unit, or it has none.
    """
    plain = unicodedata.normalize("NFKC", unwrap_latex(text)).replace("−", "-").replace("–", "-").strip()
    found = list(_NUMBER.finditer(plain))
    # "10-12" is a range: its dash is no sign
    usable = [one for one in found if _read(one)]
    if not usable or (is_whole and len(found) > 1):
        return []
    last = usable[-1]
    values = _read(last)
    if last["sign"] and last.start("sign") > 0 and plain[last.start("sign") - 1].isalnum():
        values = [abs(value) for value in values]
    if last["open"] and plain[last.end() :].lstrip().startswith(")"):
        values += [-value for value in values]
    return values


def are_close(value: float, gold: float, tolerance: float) -> bool:
    """Whether a number is within a relative tolerance of the right one; without a tolerance only rounding may
    differ."""
    return abs(value - gold) <= max(tolerance, _CLOSE) * abs(gold) + 1e-9


def matches_number(answer: str, gold: str, tolerance: float) -> bool:
    """Whether the last number of an answer is the right one.

    Percent signs, thousands commas, currencies and units do not count; 0.125 is right for "12.5%".

    Args:
        answer: any text.
        gold: a number.
        tolerance: relative, such as 0.05.
    """
    golds = read_numbers(gold)
    if "%" in gold:
        golds = [*golds, golds[0] / 100] if golds else golds
    return any(are_close(value, right, tolerance) for value in read_numbers(answer) for right in golds)
