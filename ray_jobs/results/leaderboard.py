"""What the leaderboard compares: columns of out-of-fold predictions of runs, and which are of the same rows.

Shape suffixes: C entries, N rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ensemble.kinds import Kind, Metric
from ensemble.members.comparison import Repeated, rank
from ensemble.predictions import PredictionError
from ensemble.run import find_units
from ray_jobs.config.run import RunConfig
from ray_jobs.errors import RunFolderError
from ray_jobs.results.combinations import retrain
from ray_jobs.results.headline import find_metric
from ray_jobs.results.run_files import combines_folds, describe_run
from ray_jobs.runs.files import read_parquet
from ray_jobs.runs.folder import RunFolder

_LEAST_SHARE = 0.5  # of the smaller one's rows that two entries of one table share


@dataclass(frozen=True)
class Entry:
    """Out-of-fold predictions of a member or an ensemble.

    Attributes:
        run: its name.
        what: the member, or the ensemble and its method.
        rows: (target, prediction, fold) by the row's id, as the kind keeps them.
        unit_of: the group of each row by its id, where the run kept groups together; else empty.
        kind: of the predictions.
        metric: that counts in the run.
        describe_metric: how a metric's values are read in the run.
        alone: where it was trained with several seeds, what each of them alone predicts, by the row's id.
    """

    run: str
    what: str
    rows: Mapping[str, tuple[Any, Any, int]]
    unit_of: Mapping[str, int]
    kind: Kind
    metric: str
    describe_metric: Callable[[str], Metric]
    alone: Sequence[Mapping[str, Any]] = ()


def read_entries(folder: RunFolder) -> list[Entry]:
    """Every member of a run, and its ensemble where there are several.

    Raises:
        RunFolderError: no fold of it is finished, or a file is damaged.
    """
    if not folder.oof.exists():
        raise RunFolderError(f"{folder.root} has no out-of-fold predictions yet")
    table, config = read_parquet(folder.oof), folder.read_config()
    if "leaderboard" not in config.kind.offers:
        raise RunFolderError(
            f"{folder.root} predicts {config.kind.title}, which have no leaderboard; its scores are in summary.json"
        )
    members = dict.fromkeys(table["member"].to_pylist())
    tables = {member: table.filter(pc.equal(table["member"], member)) for member in members}
    if folder.honest_predictions.exists() and not combines_folds(config):
        tables[f"ensemble ({config.ensemble.method})"] = read_parquet(folder.honest_predictions)
    plan = read_parquet(folder.fold_plan)
    ids = plan["id"].to_pylist()
    units = find_units(plan, ids)
    unit_of = {} if units is None else dict(zip(ids, units.tolist(), strict=True))
    facts = (unit_of, config.kind, config.ensemble.metric, partial(find_metric, folder, config))
    try:
        if retrained := _read_retrained(folder, config, plan, facts):
            return retrained
        return [Entry(folder.root.name, what, _by_id(config.kind, lines), *facts) for what, lines in tables.items()]
    except PredictionError as error:
        raise RunFolderError(f"{folder.root} has {error}") from None


def _read_retrained(
    folder: RunFolder, config: RunConfig, plan: pa.Table, facts: tuple[Any, Any, Any, Any]
) -> list[Entry]:
    """Every member of a run that was trained with several seeds, as the mean of its trainings, and the ensemble; none
    of another run, or before all of them are finished."""
    names = config.combined_members
    if config.ensemble.seeds == 1 or any(
        len(folder.of_member(name).completed_folds(config.folds.count)) < config.folds.count for name in names
    ):
        return []
    columns = config.kind.read_columns(describe_run(folder, config), config.ensemble.checkpoint)
    found = retrain(config, columns, [config.kind.read_combination(config.ensemble)])
    fold_of = dict(zip(plan["id"].to_pylist(), plan["fold"].to_pylist(), strict=True))
    ids, entries = columns.ids_N.tolist(), []
    folds = [fold_of[row_id] for row_id in ids]
    seeds = [()] * len(found.predictions_CN) if found.by_seed_CSN is None else found.by_seed_CSN
    whats = (*found.names, f"ensemble ({config.ensemble.method})")
    for what, predicted_N, alone_SN in zip(whats, found.predictions_CN, seeds, strict=True):
        rows = dict(zip(ids, zip(columns.target_N, predicted_N, folds, strict=True), strict=True))
        alone = [dict(zip(ids, one_N, strict=True)) for one_N in alone_SN]
        entries.append(Entry(folder.root.name, what, rows, *facts, alone))
    return entries


def _by_id(kind: Kind, table: pa.Table) -> dict[str, tuple[Any, Any, int]]:
    values = zip(*kind.split(table), table["fold"].to_pylist(), strict=True)
    return dict(zip(table["id"].to_pylist(), values, strict=True))


@dataclass(frozen=True)
class Group:
    """Entries that are compared, on the rows that all of them have."""

    entries: list[Entry]
    ids: list[str]

    @property
    def num_rows(self) -> int:
        """Rows that all entries have."""
        return len(self.ids)

    def find_units(self) -> np.ndarray | None:
        """(N,) what is drawn together: the groups of the run that has the fewest; None: single rows, in which there are
        no groups."""
        found = [
            np.unique([entry.unit_of[row_id] for row_id in self.ids], return_inverse=True)[1]
            for entry in self.entries
            if entry.unit_of
        ]
        return min(found, key=np.max, default=None)

    def describe_rows(self) -> str:
        """The rows, and the groups that intervals are estimated from where there are any."""
        units = self.find_units()
        return f"{self.num_rows:,} rows" + (f" in {units.max() + 1:,} groups" if units is not None else "")

    @property
    def kind(self) -> Kind:
        """Of all their predictions."""
        return self.entries[0].kind

    @property
    def metrics(self) -> list[str]:
        """The metrics that count in their runs, each once."""
        return list(dict.fromkeys(entry.metric for entry in self.entries))

    def label_error(self, metric: str) -> str:
        """A metric's error, for people."""
        return self.entries[0].describe_metric(metric).error_label

    def rank(self, metric: str) -> tuple[list[list[Any]], int]:
        """A line for each entry, the best first: rank, run, what, rows, metric, error and its interval, difference from
        the best and its interval, then the errors of the entry's own folds; and the most folds of any.

        Raises:
            RunFolderError: the metric is not defined for these rows.
        """
        target_N = np.array([self.entries[0].rows[row_id][0] for row_id in self.ids])
        predictions_CN = np.array([[entry.rows[row_id][1] for row_id in self.ids] for entry in self.entries])
        try:
            ranking = rank(
                self.kind,
                metric,
                target_N,
                predictions_CN,
                range(len(self.entries)),
                self.find_units(),
                [self._take_seeds(entry) for entry in self.entries],
            )
        except ValueError as error:
            names = ", ".join(f"{entry.run} {entry.what}" for entry in self.entries)
            raise RunFolderError(f"{names}: {error}") from None
        folds = [self._score_folds(metric, entry, target_N, predictions_CN[c]) for c, entry in enumerate(self.entries)]
        num_folds, lines = max(map(len, folds)), []
        for place, index in enumerate(np.argsort(ranking.error_C, kind="stable").tolist(), start=1):
            entry, missing = self.entries[index], [None] * (num_folds - len(folds[index]))
            numbers = ranking.describe(index).values()
            lines.append([place, entry.run, entry.what, self.num_rows, metric, *numbers, *folds[index], *missing])
        return lines, num_folds

    def _take_seeds(self, entry: Entry) -> Repeated | None:
        if not entry.alone:
            return None
        return Repeated(np.array([[own[row_id] for row_id in self.ids] for own in entry.alone]), entry.run)

    def explain_intervals(self) -> str:
        """What the intervals hold."""
        once = [entry for entry in self.entries if not entry.alone]
        if not once:
            return "The intervals hold that other seeds train other models."
        whose = "" if len(once) == len(self.entries) else f" of {len(once)} of the models, which have one seed,"
        return f"The intervals{whose} are over rows only, and hold nothing of other seeds (ensemble.seeds)."

    def _score_folds(
        self, metric: str, entry: Entry, target_N: np.ndarray, prediction_N: np.ndarray
    ) -> list[float | None]:
        fold_N = np.array([entry.rows[row_id][2] for row_id in self.ids])
        held = [fold_N == fold for fold in range(fold_N.max() + 1)]
        return [_try_to_measure(self.kind, metric, target_N[rows], prediction_N[rows]) for rows in held]


def _try_to_measure(kind: Kind, metric: str, target_N: np.ndarray, prediction_N: np.ndarray) -> float | None:
    """The error; None where there is no row, or the metric is not defined for these."""
    try:
        return kind.measure_error(metric, target_N, prediction_N) if len(target_N) else None
    except ValueError:
        return None


def group_entries(entries: Sequence[Entry]) -> list[Group]:
    """Entries of the same rows with the same targets together; a group keeps the rows that all of its entries have.

    Raises:
        RunFolderError: entries of the same rows were scored on different tasks.
    """
    groups: list[Group] = []
    for entry in entries:
        for number, group in enumerate(groups):
            if group.kind.name != entry.kind.name:
                continue
            shared = [row_id for row_id in group.ids if row_id in entry.rows]
            first = group.entries[0].rows
            is_enough = len(shared) >= max(2, _LEAST_SHARE * min(len(group.ids), len(entry.rows)))
            if is_enough:
                _refuse_other_task(group.entries[0], entry, shared[0])
            if is_enough and all(np.array_equal(first[row_id][0], entry.rows[row_id][0]) for row_id in shared):
                groups[number] = Group([*group.entries, entry], shared)
                break
        else:
            groups.append(Group([entry], sorted(entry.rows)))
    return groups


def _refuse_other_task(first: Entry, other: Entry, row_id: str) -> None:
    """Raises RunFolderError where the kind says why two runs cannot be compared on a row."""
    reason = first.kind.explain_difference(first.rows[row_id][0], other.rows[row_id][0])
    if reason is not None:
        raise RunFolderError(f"{first.run} {first.what} and {other.run} {other.what} are not compared: {reason}")
