"""Times as people type them: `90min`, `2h`, `7d`."""

from __future__ import annotations

import re

from trainers.values import refuse

_UNITS_S = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_DURATION = re.compile(rf"(\d+(?:\.\d+)?)({'|'.join(_UNITS_S)})")
EXAMPLES = "a time in s, min, h, d or w, such as 90min or 7d"


def read_duration(name: str, text: str) -> float:
    """The seconds of a time.

    Args:
        name: of the field, for the message.
        text: such as 2h.

    Raises:
        ValueError: it is none.
    """
    found = _DURATION.fullmatch(text)
    if not found:
        raise refuse(name, text, EXAMPLES)
    return float(found[1]) * _UNITS_S[found[2]]


def read_extent(name: str, text: str) -> tuple[int, float]:
    """A number of rows or a time: (rows, 0) or (0, seconds).

    Raises:
        ValueError: it is neither.
    """
    if re.fullmatch(r"\d{1,18}", text):
        return int(text), 0.0
    try:
        return 0, read_duration(name, text)
    except ValueError:
        raise refuse(name, text, f"a number of rows, or {EXAMPLES}") from None
