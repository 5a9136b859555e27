"""New rows for models of several families: each family finds and reads them itself, and their predictions of a block
are put together, matched row by row.

All families have to find rows of the same ids in the same order: one table, or tables that agree."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ray_jobs.config.run import RunConfig
from ray_jobs.results.run_files import list_combined_folds
from ray_jobs.runs.folder import RunFolder
from trainers.interface import (
    DataError,
    TrainedModel,
    load_new_rows_module,
    load_predict_module,
)
from trainers.predictions import BlockPredictions, NewMap

_MOST_BATCH_ROWS = 65_536


@dataclass(frozen=True)
class Part:
    """The models of one family, and the new rows as it has found them.

    Attributes:
        family: its name.
        models: the numbers of its models among all that predict.
        rows: the family's `NewRows`.
    """

    family: str
    models: tuple[int, ...]
    rows: Any


@dataclass(frozen=True)
class RowsOfFamilies:
    """New rows as several families read them, with the interface of a family's own `NewRows`."""

    parts: tuple[Part, ...]

    @property
    def path(self) -> Path:
        """The table, or folder, that the first family reads."""
        path: Path = self.parts[0].rows.path
        return path

    @property
    def masks(self) -> Path | None:
        """The folder with the truth, where the family's rows know one: all were given the same."""
        masks: Path | None = self.parts[0].rows.masks
        return masks

    @property
    def batch_rows(self) -> int:
        """Blocks of a multiple of so many rows have the bits that each family promises."""
        sizes = [part.rows.batch_rows for part in self.parts]
        return math.lcm(*sizes) if math.lcm(*sizes) <= _MOST_BATCH_ROWS else max(sizes)

    @property
    def PROBLEMS(self) -> str:  # noqa: N802 the interface's name
        """What is wrong with rows that are listed as a problem."""
        return " or ".join(dict.fromkeys(part.rows.PROBLEMS for part in self.parts))

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the user, each once."""
        return tuple(dict.fromkeys(note for part in self.parts for note in getattr(part.rows, "notes", ())))

    def check(self) -> int:
        """Lets each family look at all rows; returns how many there are.

        Raises:
            DataError: one cannot use them, or finds another number.
        """
        counts: list[int] = [part.rows.check() for part in self.parts]
        for part, count in zip(self.parts, counts, strict=True):
            if count != counts[0]:
                first = self.parts[0]
                raise DataError(
                    f"{first.family} finds {counts[0]:,} rows in {first.rows.path}, and {part.family} {count:,} in "
                    f"{part.rows.path}: the run's members are of both families and predict the same rows. Give a place "
                    "where both find them"
                )
        return counts[0]

    def read(self, num_rows: int) -> Iterator[pa.Table]:
        """The blocks of all families side by side: the columns of each have its number before their names."""
        for blocks in zip(*(part.rows.read(num_rows) for part in self.parts), strict=True):
            columns = {
                f"{number}:{name}": block[name] for number, block in enumerate(blocks) for name in block.column_names
            }
            yield pa.table(columns)


class PredictorOfFamilies:
    """The models of several families on one device, with the interface of a family's own `Predictor`; arguments as
    there."""

    def __init__(self, models: Sequence[TrainedModel], rows: RowsOfFamilies, device: str, num_threads: int) -> None:
        self.parts = rows.parts
        self.predictors = [
            load_predictor(part.family)([models[n] for n in part.models], part.rows, device, num_threads)
            for part in rows.parts
        ]
        self.order = np.argsort([number for part in rows.parts for number in part.models])

    def predict(self, block: pa.Table) -> BlockPredictions | Iterator[NewMap]:
        """What all models predict of a block, in their order, as the kind of the run wants it.

        Raises:
            DataError: the families have read other rows.
        """
        found = [one.predict(self._take(block, number)) for number, one in enumerate(self.predictors)]
        return self._join_blocks(found) if isinstance(found[0], BlockPredictions) else self._join_maps(found)

    def _join_blocks(self, found: Sequence[BlockPredictions]) -> BlockPredictions:
        for part, one in zip(self.parts, found, strict=True):
            self._refuse_other_rows(part, found[0].ids.tolist(), one.ids.tolist())
        problems = dict.fromkeys(problem for one in found for problem in one.problems)
        stacked_MN = np.concatenate([one.prediction for one in found])
        return BlockPredictions(found[0].ids, stacked_MN[self.order], tuple(problems))

    def _join_maps(self, maps: Sequence[Iterator[NewMap]]) -> Iterator[NewMap]:
        for found in zip(*maps, strict=True):
            for part, one in zip(self.parts, found, strict=True):
                self._refuse_other_rows(part, [found[0].row_id], [one.row_id])
            stacked_MCHW = np.concatenate([one.probability_MCHW for one in found])
            problems = "; ".join(dict.fromkeys(filter(None, (one.problem for one in found))))
            first = found[0]
            yield NewMap(first.row_id, stacked_MCHW[self.order], first.target_HW, first.background_HW3, problems)

    @staticmethod
    def _take(block: pa.Table, number: int) -> pa.Table:
        """What a family has read."""
        mine = {name: name.partition(":")[2] for name in block.column_names if name.startswith(f"{number}:")}
        return pa.table({short: block[name] for name, short in mine.items()})

    def _refuse_other_rows(self, part: Part, ids: list[str], own: list[str]) -> None:
        if ids != own:
            row = next((n for n, (one, other) in enumerate(zip(ids, own, strict=False)) if one != other), 0)
            first = self.parts[0]
            raise DataError(
                f"where {first.family} finds id {ids[row]!r} in {first.rows.path}, {part.family} finds {own[row]!r} in "
                f"{part.rows.path}: the run's members are of both families, and expect the same ids in the same order. "
                "Give a place where both find them so"
            )


def find_rows(folder: RunFolder, config: RunConfig, place: Path, *truth: Path | None) -> tuple[str, Any]:
    """Finds new rows for the members that are combined.

    Args:
        folder, config: the run.
        place: where the user says they are.
        truth: of maps, where the truth is, or None.

    Returns:
        The family whose models predict them, empty where there are several; and the rows, as that family has them.

    Raises:
        DataError: a family does not find them there.
    """
    configs = [folder.of_member(name).read_config() for name in config.combined_members]
    families = list(dict.fromkeys(own.family for own in configs))
    num_folds, parts = len(list_combined_folds(folder, config)), []
    for family in families:
        members = [number for number, own in enumerate(configs) if own.family == family]
        find = load_new_rows_module(family).find_new_rows
        rows = find([configs[number].trainer for number in members], place, *truth)
        models = tuple(number * num_folds + fold for number in members for fold in range(num_folds))
        parts.append(Part(family, models, rows))
    return (families[0], parts[0].rows) if len(parts) == 1 else ("", RowsOfFamilies(tuple(parts)))


def load_predictor(family: str, *, is_soup: bool = False) -> Any:
    """The class whose objects predict blocks of what `find_rows` has found, by all models or by the mean of their
    weights."""
    if not family:
        return PredictorOfFamilies
    module = load_predict_module(family)
    return module.Soup if is_soup else module.Predictor
