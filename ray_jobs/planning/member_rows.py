"""Whether the members of a run read the same rows, and what all of them together know of these.

The run's rows are those that its own recipe reads. A member has every one of them, with the same target, and the same
test rows. A row that the run's own recipe has dropped as bad trains no member, though others could use it: the user is
told. Nothing else may differ. Pure: inventories in, inventories out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ray_jobs.config.run import MAIN, RunConfig
from ray_jobs.errors import RunError
from trainers.interface import NO_KEY, Inventory, RowKeys

_MOST_SHOWN = 3
_NONE = np.array([], str)


@dataclass(frozen=True)
class Reader:
    """A member, and what it reads."""

    name: str
    config: RunConfig
    inventory: Inventory

    def __str__(self) -> str:
        return f"{f'member {self.name!r}' if self.name != MAIN else 'the run'} ({self.config.family})"


def refuse_other_kind(run: Reader, member: Reader) -> None:
    """Raises RunError where a member predicts something else than the run's own recipe."""
    if run.config.kind.name != member.config.kind.name:
        raise RunError(
            f"{member} predicts {member.config.kind.title} and {run} {run.config.kind.title}: members predict the "
            "same of the same rows. Train it as a run of its own"
        )


def compare_rows(run: Reader, member: Reader) -> tuple[str, ...]:
    """Whether a member reads the run's rows.

    Returns:
        Sentences for the user: which rows the member could use and does not.

    Raises:
        RunError: it has other rows, targets or test rows.
    """
    ids, own = run.inventory.ids, member.inventory.ids
    lost, found, dropped = _find_missing(ids, own), _find_missing(own, ids), _find_dropped(run)
    left = [row_id for row_id in found if row_id in dropped]
    problems = [
        *_describe(lost, run, member),
        *_describe([row_id for row_id in found if row_id not in dropped], member, run),
    ]
    if not problems:
        problems += _compare_targets(run, member)
    tests = [_NONE if one.inventory.test_ids is None else one.inventory.test_ids for one in (run, member)]
    problems += _describe(_find_missing(tests[0], tests[1]), run, member, "test row")
    problems += _describe(_find_missing(tests[1], tests[0]), member, run, "test row")
    if problems:
        raise RunError("\n  ".join([_HEADING.format(member.name), *problems, _advise(lost, run, member)]))
    if not left:
        return ()
    return (
        f"{run} has dropped {_count(len(left))} that {member} could use, such as {_show(left, dropped)}: no member is "
        "trained on what the run's own recipe drops",
    )


_HEADING = "member {!r} does not have the rows of the run, and members are combined row by row:"


def find_places(ids: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Where each id is among others, (N,) int; -1: nowhere."""
    if not len(among):
        return np.full(len(ids), -1)
    order = np.argsort(among)
    places = order[np.minimum(np.searchsorted(among, ids, sorter=order), len(among) - 1)]
    return np.where(among[places] == ids, places, -1)


def _find_missing(ids: np.ndarray, among: np.ndarray) -> list[str]:
    missing: list[str] = ids[find_places(ids, among) < 0].tolist()
    return missing


def _find_dropped(reader: Reader) -> dict[str, str]:
    """What was wrong with rows that are not among the training rows, by id."""
    bad = {row["id"]: row["problem"] for row in reader.inventory.bad_rows}
    gone = np.array(list(bad), str)
    return {row_id: bad[row_id] for row_id in gone[find_places(gone, reader.inventory.ids) < 0].tolist()}


def _describe(ids: Sequence[str], has: Reader, lacks: Reader, what: str = "training row") -> list[str]:
    """Rows that one has and the other lacks, and why it does, if it says so."""
    if not ids:
        return []
    dropped = _find_dropped(lacks)
    num_dropped = sum(row_id in dropped for row_id in ids)
    why = f"; {lacks.config.family} has dropped {num_dropped:,} of them as bad" if num_dropped else ""
    shown = sorted(ids, key=lambda row_id: row_id not in dropped)
    return [f"{_count(len(ids), what)} that {has} has and {lacks} has not, such as {_show(shown, dropped)}{why}"]


def _count(number: int, what: str = "training row") -> str:
    return f"{number:,} {what}{'s' * (number > 1)}"


def _show(ids: Sequence[str], problems: Mapping[str, str]) -> str:
    shown = [f"{row_id!r}" + (f" ({problems[row_id]})" if row_id in problems else "") for row_id in ids[:_MOST_SHOWN]]
    return ", ".join(shown) + ", …" * (len(ids) > _MOST_SHOWN)


def _compare_targets(run: Reader, member: Reader) -> list[str]:
    """What differs in the targets of rows that both have."""
    ids, target, own = run.inventory.ids, run.inventory.target, member.inventory.target
    if run.inventory.classes != member.inventory.classes:
        names = [", ".join(map(repr, one.inventory.classes)) or "none" for one in (run, member)]
        return [f"other classes: {names[0]} in {run}, {names[1]} in {member}"]
    if target is None or own is None:
        without = [str(one) for one in (run, member) if one.inventory.target is None]
        return [f"{without[0]} has no target"] if len(without) == 1 else []
    own = own[find_places(ids, member.inventory.ids)]
    if all(np.issubdtype(values.dtype, np.number) for values in (target, own)):
        is_other = ~np.isclose(own, target, rtol=1e-9, atol=0, equal_nan=True)  # parsers may differ in the last bit
    else:
        is_other = own.astype(str) != target.astype(str)
    if not is_other.any():
        return []
    row = int(is_other.argmax())
    return [
        f"another target in {_count(int(is_other.sum()))}, such as {str(ids[row])!r}: {target[row]} "
        f"({run.inventory.target_name}) in {run}, {own[row]} ({member.inventory.target_name}) in {member}"
    ]


def _advise(lost: Sequence[str], run: Reader, member: Reader) -> str:
    text = "Mend these rows or take them out of the table, or give both the same table and columns"
    if lost and set(lost) <= _find_dropped(member).keys():
        text += (
            f". Or make {member.name!r} the run's own recipe and the other one a member: no member is trained on what "
            "the run's own recipe drops"
        )
    return text


def gather_notes(run: Reader, members: Sequence[Reader]) -> Iterator[str]:
    """What members of other families say of their rows, once for each that reads otherwise."""
    for member in members:
        if member.config.family == run.config.family:
            continue
        if member.inventory.bad_rows:
            yield f"{len(member.inventory.bad_rows):,} bad rows of {member}, listed in its folder in bad_rows.csv"
        for note in member.inventory.notes:
            if note not in run.inventory.notes:
                yield f"{member}: {note}"


def with_all_row_keys(run: Reader, members: Sequence[Reader]) -> Inventory:
    """The run's inventory with the row keys of all families, for folds and leaks: what one family sees that two rows
    share another may not read."""
    keys = dict(run.inventory.row_keys)
    for member in members:
        for kind, own in _align(run.inventory, member.inventory):
            if member.config.family != run.config.family and not any(_is_same(own, known) for known in keys.values()):
                keys[kind if kind not in keys else f"{kind} ({member.name})"] = own
    return dataclasses.replace(run.inventory, row_keys=keys)


def _align(run: Inventory, member: Inventory) -> Iterator[tuple[str, RowKeys]]:
    """A member's keys of the run's rows, by kind."""
    train = find_places(run.ids, member.ids)
    tests = [_NONE if one.test_ids is None else one.test_ids for one in (run, member)]
    test = find_places(*tests)
    for kind, keys in member.row_keys.items():
        yield kind, RowKeys(keys.train[train], keys.test[test], keys.shown)


def _is_same(one: RowKeys, other: RowKeys) -> bool:
    """Whether the same rows share something."""
    firsts = []
    for keys in (one, other):
        both = np.concatenate([keys.train, keys.test])
        _, first, number = np.unique(both, return_index=True, return_inverse=True)
        firsts.append(np.where(both == NO_KEY, -1, first[number]))
    return np.array_equal(firsts[0], firsts[1])
