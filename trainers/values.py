"""How a value or a name is refused: the same words for every field of every section.

`name=value: expected ...`, with the value as one types it; behind a name that is not known the nearest ones. What a
field is for, its section says.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Sequence

_MOST_SHOWN = 1000  # characters of names
_PLAIN = re.compile(r"[\w./:@%+,*~-]+")


def show_value(value: object) -> str:
    """A value as it is typed on a command line: none, true, [1,2], and in quotes what is empty or has spaces."""
    if isinstance(value, (tuple, list)):
        return f"[{','.join(map(show_value, value))}]"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.12g}"
    return str(value) if _PLAIN.fullmatch(str(value)) else repr(str(value))


def refuse(name: str, value: object, expected: str) -> ValueError:
    """The error of a value that a field does not take.

    Args:
        name: of the field, with its section, or of the flag.
        value: that was found.
        expected: such as `2 to 1000`; what to do may follow.
    """
    return ValueError(f"{name}={show_value(value)}: expected {expected}")


def suggest(name: str, known: Iterable[str]) -> str:
    """The nearest names that are known, to be put behind a message: "; nearest: a, b" or nothing."""
    return list_nearest(difflib.get_close_matches(name, list(known), n=3, cutoff=0.4))


def list_nearest(nearest: Sequence[str]) -> str:
    """ "; nearest: a, b" or nothing."""
    return f"; nearest: {', '.join(nearest)}" if nearest else ""


def describe_missing(missing: Iterable[tuple[str, str]], columns: Iterable[object]) -> str:
    """What a table lacks: "no column 'dat' (data.date_column; nearest: date); the table has 'id', 'date'".

    Args:
        missing: name of each column that is wanted, and the field by which; empty: by none.
        columns: that the table has.
    """
    known = list(map(str, columns))
    named = ", ".join(
        f"{name!r}{f' ({notes})' if notes else ''}"
        for name, field in missing
        for notes in [f"{field}{suggest(name, known)}".removeprefix("; ")]
    )
    has = ", ".join(map(repr, known))
    return f"no column {named}; the table has {has if len(has) <= _MOST_SHOWN else f'{has[:_MOST_SHOWN]}…'}"


def describe_name(marks: str, most: int) -> str:
    """What a name is made of: letters, digits and some marks; it begins with a letter or a digit."""
    return f"letters, digits and {' '.join(map(repr, marks))}, at most {most}, the first a letter or a digit"


def check_choice(name: str, value: object, allowed: Sequence[object]) -> None:
    """Raises ValueError unless a value is among those that are allowed."""
    if value not in allowed:
        raise refuse(name, value, f"one of {', '.join(map(str, allowed))}")


def check_number(
    name: str,
    value: object,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    unit: str = "",
    instead: str = "",
) -> None:
    """Raises ValueError unless a number is finite and in a range.

    Args:
        name: of the field.
        value: the number, or what may stand instead.
        least, above, most, below: the bounds, in `unit`.
        unit: such as seconds; empty: none.
        instead: none or auto, if that is allowed, too.
    """
    if instead and show_value(value) == instead:
        return
    number = value if isinstance(value, (int, float)) else math.nan
    if (
        math.isfinite(number)
        and (least is None or number >= least)
        and (above is None or number > above)
        and (most is None or number <= most)
        and (below is None or number < below)
    ):
        return
    bounds = [f"{least:g} to {most:g}"] if least is not None and most is not None else []
    if not bounds:
        named = {"at least": least, "above": above, "at most": most, "below": below}
        bounds = [f"{word} {bound:.12g}" for word, bound in named.items() if bound is not None]
    what = unit or ("" if math.isfinite(number) else "a finite number")
    raise refuse(name, value, f"{what}{', ' * bool(what)}{' and '.join(bounds)}{f', or {instead}' * bool(instead)}")
