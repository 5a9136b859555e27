"""What is wrong with a table: collected, counted and told with its first offenders, so that a user mends it in one go.

Advice is given only where it helps.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from trainers.interface import FORMULA, DataError
from trainers.reading.tables import shorten

MAX_ID_LENGTH = 200  # characters; with a suffix it has to be the name of a file
SHOWN_OFFENDERS = 3
# Paths, nothing at all, and characters that control terminals and the direction of text.
_UNSAFE_ID = re.compile(r"[/\\\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]|^\.|^\s*$")


@dataclass
class Problems:
    """What is wrong with a table: {kind: [(row number, id, detail)]}, in the order in which it was found."""

    table: Path
    found: dict[str, list[tuple[int, str, str]]] = field(default_factory=lambda: defaultdict(list))
    explain: Callable[[], str] | None = None  # finds a likely cause; asked only where it is told

    def add(self, kind: str, row: int, row_id: str, detail: str = "") -> None:
        self.found[kind].append((row, shorten(row_id, MAX_ID_LENGTH), shorten(detail, 200)))

    def describe(self, num_rows: int) -> str:
        lines = []
        for kind, offenders in self.found.items():
            shown = ", ".join(
                f"row {row + 1} (id {row_id!r}{f': {detail}' if detail else ''})"
                for row, row_id, detail in offenders[:SHOWN_OFFENDERS]
            )
            more = f" and {len(offenders) - SHOWN_OFFENDERS} more" if len(offenders) > SHOWN_OFFENDERS else ""
            lines.append(f"  {kind}: {len(offenders)} of {num_rows} rows: {shown}{more}")
        if self.explain is not None and (cause := self.explain()):
            lines.append(f"  The ids and the names of the pictures: {cause}.")
        return "\n".join(lines)

    def note_mended(self, num_rows: int) -> str:
        """A sentence on test rows with problems, which are predicted all the same."""
        kinds = "; ".join(f"{kind}: {len(offenders):,}" for kind, offenders in self.found.items())
        return (
            f"{len(self.rows):,} of {num_rows:,} test rows are predicted by what is left of them (the mean colour "
            f"stands for a picture, the median for a number): {kinds}"
        )

    @property
    def rows(self) -> set[int]:
        """Those that have one."""
        return {row for offenders in self.found.values() for row, _, _ in offenders}


def refuse_problems(fatal: Problems, bad: Problems, num_rows: int, *, drops: bool, is_test: bool) -> None:
    """Raises DataError where something is wrong that may not be dropped.

    Args:
        fatal: what never may.
        bad: what `data.on_bad_row=drop` leaves out, of test rows mends.
        num_rows: of the table.
        drops: whether it is set.
        is_test: whether these are rows that are only predicted.
    """
    blocking = dict(fatal.found) if drops else {**fatal.found, **bad.found}
    if not blocking:
        return
    advice = "Correct the table"
    if not fatal.found and is_test:
        advice += (
            ", or set data.on_bad_row=drop: these rows are then predicted by what is left of them (listed in "
            "bad_rows.csv)"
        )
    elif not fatal.found and len(bad.rows) < num_rows:
        advice += ", or set data.on_bad_row=drop to go on without bad training rows (they are listed in bad_rows.csv)"
    described = Problems(fatal.table, blocking, bad.explain).describe(num_rows)
    raise DataError(f"{fatal.table} cannot be used:\n{described}\n{advice}")


def list_bad_rows(bad: Problems, table: str, done: str) -> tuple[dict[str, str], ...]:
    """Lines of the list of bad rows."""
    return tuple(
        {"table": table, "id": row_id, "problem": f"{kind}{f': {detail}' if detail else ''}", "done": done}
        for kind, offenders in bad.found.items()
        for _, row_id, detail in offenders
    )


def check_ids(ids: np.ndarray, fatal: Problems, first_row: int = 0) -> None:
    """Finds ids that cannot name a file or a line of a CSV table."""
    for row, row_id in enumerate(ids, start=first_row):
        if _UNSAFE_ID.search(row_id):
            fatal.add("id is empty or could be a path (it names a picture file)", row, row_id)
        elif FORMULA.search(row_id):
            fatal.add("id would be run as a formula by a spreadsheet that opens the submission", row, row_id)
        if len(row_id) > MAX_ID_LENGTH:
            fatal.add(f"id is longer than {MAX_ID_LENGTH} characters", row, row_id)


def check_unique(ids: Iterable[str], rows: Iterable[int], fatal: Problems) -> None:
    """Finds ids that are there twice."""
    seen: dict[str, int] = {}
    for row, row_id in zip(rows, ids, strict=True):
        if row_id in seen:
            fatal.add("duplicate id", row, row_id, f"first in row {seen[row_id] + 1}")
        seen.setdefault(row_id, row)
