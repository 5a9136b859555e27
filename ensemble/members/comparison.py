"""Is one combination better than another, or only luckier? Paired bootstrap over rows, ids or groups.

All predictions are scored on the same drawn rows, so that what makes a row hard for everybody cancels. Where models
were trained with several seeds, the intervals hold what another seed changes, too (`Repeated`).

Shape suffixes: C candidates, N rows, U units that are drawn whole (rows, ids or groups), D draws, S seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.special import ndtri, stdtrit

from ensemble.kinds import Kind

NUM_DRAWS = 2000
_BLOCK_VALUES = 2**20


@dataclass(frozen=True)
class Difference:
    """Error of the first prediction minus that of the second (below 0: the first is better), and its interval."""

    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Improvements:
    """How much lower than the baseline's each candidate's error is, (C,), and lower bounds that hold for all at
    once."""

    improvement_C: np.ndarray
    low_C: np.ndarray


def compare_pair(
    kind: Kind,
    metric: str,
    target_N: np.ndarray,
    first_N: np.ndarray,
    second_N: np.ndarray,
    unit_N: np.ndarray | None = None,
    *,
    level: float = 0.95,
    num_draws: int | None = None,
    seed: int = 0,
) -> Difference:
    """The difference of two errors with a two-sided percentile interval (Efron and Tibshirani 1993, "An Introduction to
    the Bootstrap", chapter 13).

    Args:
        kind: of the predictions.
        metric: by which.
        target_N, first_N, second_N: the rows' truth and two predictions, as the kind keeps them.
        unit_N: what a row belongs to: its id where rows are repeated, or its group; None: each row is drawn by itself.
        level: of the interval.
        num_draws: bootstrap samples; None: as many as the kind takes for the metric.
        seed: the same seed draws the same rows.

    Raises:
        ValueError: values that do not fit together or are not finite; fewer than two units; an unknown metric.
    """
    errors_C, drawn_DC = kind.draw_errors(metric, target_N, np.stack([first_N, second_N]), unit_N, num_draws, seed)
    low, high = np.quantile(drawn_DC[:, 0] - drawn_DC[:, 1], [(1 - level) / 2, (1 + level) / 2])
    return Difference(float(errors_C[0] - errors_C[1]), float(low), float(high))


def compare_with_baseline(
    kind: Kind,
    metric: str,
    target_N: np.ndarray,
    candidates_CN: np.ndarray,
    baseline_N: np.ndarray,
    unit_N: np.ndarray | None = None,
    *,
    level: float = 0.95,
    num_draws: int | None = None,
    seed: int = 0,
) -> Improvements:
    """How far each of many candidates is below a baseline's error, with one-sided bounds that hold for all of them
    together.

    The bound is the improvement less q of its bootstrap standard deviations, q being the `level` quantile over the
    draws of the largest standardised deviation of any candidate (the max statistic; White 2000, "A Reality Check for
    Data Snooping", https://doi.org/10.1111/1468-0262.00152, studentised as in Romano and Wolf 2005,
    https://doi.org/10.1111/j.1468-0262.2005.00615.x). So with probability of about `level` no candidate's true
    improvement is below its bound: the best of many that are equally good has a bound above 0 no more often than 1 -
    level. Arguments as in `compare_pair`."""
    everyone = np.concatenate([np.asarray(baseline_N)[None], candidates_CN])
    errors_C, drawn_DC = kind.draw_errors(metric, target_N, everyone, unit_N, num_draws, seed)
    return bound_improvements(errors_C[1:], drawn_DC[:, 1:], float(errors_C[0]), drawn_DC[:, 0], level=level)


def bound_improvements(
    error_C: np.ndarray, drawn_DC: np.ndarray, baseline: float, baseline_D: np.ndarray, *, level: float = 0.95
) -> Improvements:
    """As `compare_with_baseline`, of errors that were measured, of all rows and of the same drawn samples."""
    improvement_C, drawn_DC = baseline - error_C, baseline_D[:, None] - drawn_DC
    deviation_C = drawn_DC.std(axis=0)
    varies_C = deviation_C > 1e-12 * np.maximum(abs(baseline), np.abs(error_C))  # more than rounding
    standard_DC = (drawn_DC - improvement_C)[:, varies_C] / deviation_C[varies_C]
    largest = np.quantile(standard_DC.max(axis=1), level) if varies_C.any() else 0.0
    return Improvements(improvement_C, improvement_C - largest * deviation_C)


@dataclass(frozen=True)
class Ranking:
    """Errors of C predictions of the same rows, with intervals, and what each differs from the reference by.

    Attributes:
        error_C, low_C, high_C: lower is better.
        difference_C, difference_low_C, difference_high_C: error minus the reference's on the same drawn rows; an
            interval below 0: better than the reference.
        reference: index of the reference among the C.
        seed_errors: of each of the C the errors of its trainings with one seed each; empty: there is one.
    """

    error_C: np.ndarray
    low_C: np.ndarray
    high_C: np.ndarray
    difference_C: np.ndarray
    difference_low_C: np.ndarray
    difference_high_C: np.ndarray
    reference: int
    seed_errors: tuple[tuple[float, ...], ...] = ()

    def describe(self, index: int) -> dict[str, float]:
        """`error`, `low`, `high`, `difference`, `difference_low`, `difference_high` of one of the C."""
        names = ("error", "low", "high", "difference", "difference_low", "difference_high")
        return {name: float(getattr(self, f"{name}_C")[index]) for name in names}


@dataclass(frozen=True)
class Repeated:
    """A candidate that is the mean of several trainings with other seeds.

    Attributes:
        alone_SN: what each of them alone predicts.
        source: of candidates with one source the s-th trainings go together: they have the same seed.
    """

    alone_SN: np.ndarray
    source: str = ""


def rank(
    kind: Kind,
    metric: str,
    target_N: np.ndarray,
    predictions_CN: np.ndarray,
    references: Sequence[int],
    unit_N: np.ndarray | None = None,
    repeated_C: Sequence[Repeated | None] = (),
    *,
    level: float = 0.95,
    num_draws: int | None = None,
) -> Ranking:
    """Compares predictions with the best of the references by a paired percentile bootstrap (see `comparison`).

    Of candidates that were trained with several seeds the bootstrap's interval is widened: to the variance over rows
    comes that over seeds, as the errors of the trainings have it less what rows contribute to it, by Student's t with
    the degrees of freedom that the sum has (Satterthwaite 1946, https://doi.org/10.2307/3002019).

    The intervals are of each comparison alone. Who picks the best of many by them picks a lucky one:
    `compare_with_baseline` has bounds that hold for all together.

    Args:
        kind, metric, target_N: as in `compare_pair`.
        predictions_CN: as the kind keeps them.
        references: indices among the C; the one with the least error is the reference.
        unit_N, level, num_draws: as in `compare_pair`.
        repeated_C: of each candidate its trainings with other seeds, if it has several; empty: none has.
    """
    num = len(predictions_CN)
    seeds = [() if one is None else one.alone_SN for one in repeated_C] or [()] * num
    everyone = np.stack([*predictions_CN, *(one_N for alone in seeds for one_N in alone)])
    errors, drawn = kind.draw_errors(metric, target_N, everyone, unit_N, num_draws)
    starts = np.cumsum([num, *map(len, seeds)]).tolist()
    trained = [_Trained(errors[start:end], drawn[:, start:end]) for start, end in pairwise(starts)]
    return _rank(errors[:num], drawn[:, :num], references, trained, repeated_C, level)


def rank_drawn(error_C: np.ndarray, drawn_DC: np.ndarray, references: Sequence[int], *, level: float = 0.95) -> Ranking:
    """As `rank`, of errors that were measured, of all rows and of the same drawn samples."""
    none = _Trained(np.empty(0), drawn_DC[:, :0])
    return _rank(error_C, drawn_DC, references, [none] * len(error_C), (), level)


def _rank(
    error_C: np.ndarray,
    drawn_DC: np.ndarray,
    references: Sequence[int],
    trained: Sequence[_Trained],
    repeated_C: Sequence[Repeated | None],
    level: float,
) -> Ranking:
    reference = min(references, key=lambda index: error_C[index])
    ends, differences = [], []
    for place in range(len(error_C)):
        ends.append(_find_ends(error_C[place], drawn_DC[:, place], [trained[place]], level))
        is_paired = _is_paired(repeated_C, place, reference)
        noise = [trained[place].minus(trained[reference])] if is_paired else [trained[place], trained[reference]]
        difference = error_C[place] - error_C[reference]
        differences.append(_find_ends(difference, drawn_DC[:, place] - drawn_DC[:, reference], noise, level))
    (low_C, high_C), (difference_low_C, difference_high_C) = np.transpose(ends), np.transpose(differences)
    return Ranking(
        error_C, low_C, high_C, error_C - error_C[reference], difference_low_C, difference_high_C, reference,
        tuple(tuple(one.error_S.tolist()) for one in trained),
    )  # fmt: skip


@dataclass(frozen=True)
class _Trained:
    """Errors of trainings with other seeds, on all rows, (S,), and on drawn ones, (D, S)."""

    error_S: np.ndarray
    drawn_DS: np.ndarray

    def minus(self, other: _Trained) -> _Trained:
        """How much more these have than others with the same seeds."""
        return _Trained(self.error_S - other.error_S, self.drawn_DS - other.drawn_DS)


def _is_paired(repeated_C: Sequence[Repeated | None], place: int, reference: int) -> bool:
    if not repeated_C:
        return False
    one, other = repeated_C[place], repeated_C[reference]
    return bool(one and other and one.source == other.source and len(one.alone_SN) == len(other.alone_SN))


def _find_ends(value: float, drawn_D: np.ndarray, trained: Sequence[_Trained], level: float) -> tuple[float, float]:
    """The percentile interval of a value, widened by what seeds add to its variance."""
    low, high = np.quantile(drawn_D, [(1 - level) / 2, (1 + level) / 2])
    of_rows, several = float(drawn_D.var()), [one for one in trained if len(one.error_S) > 1]
    of_seeds, squares = 0.0, 0.0
    for one in several:
        num = len(one.error_S)
        seen = float(one.error_S.var(ddof=1))
        from_rows = float((one.drawn_DS - one.error_S).var(axis=1, ddof=1).mean())
        of_seeds += max(0.0, seen - from_rows) / num
        squares += (seen / num) ** 2 / (num - 1)
    total = of_rows + of_seeds
    if not of_rows > 0 or not squares > 0:
        return float(low), float(high)
    quantile = stdtrit(total**2 / squares, (1 + level) / 2) / ndtri((1 + level) / 2)
    factor = float(np.sqrt(total / of_rows) * quantile)
    return value + factor * (float(low) - value), value + factor * (float(high) - value)


def number_units(unit_N: np.ndarray | None, num_rows: int) -> tuple[np.ndarray, int]:
    """The number of each row's unit, from 0, and how many there are; None: each row is one.

    Raises:
        ValueError: fewer than two units, or not one for each row.
    """
    unit_N = np.arange(num_rows) if unit_N is None else np.unique(unit_N, return_inverse=True)[1].ravel()
    num_units = int(unit_N.max()) + 1
    if len(unit_N) != num_rows or num_units < 2:
        raise ValueError(
            f"{len(unit_N)} units of {num_units} kinds for {num_rows} rows: expected one each, at least 2 kinds"
        )
    return unit_N, num_units


def draw_counts(num_units: int, num_draws: int, seed: int) -> Iterator[np.ndarray]:
    """How often each unit is drawn in each sample: blocks (d, U) float64."""
    rng, height = np.random.default_rng(seed), max(1, _BLOCK_VALUES // num_units)
    for start in range(0, num_draws, height):
        num = min(height, num_draws - start)
        places = rng.integers(num_units, size=(num, num_units)) + num_units * np.arange(num)[:, None]
        yield np.bincount(places.ravel(), minlength=num * num_units).reshape(num, num_units).astype(np.float64)


def draw_sums(
    statistics_CNS: np.ndarray,
    finish: Callable[[np.ndarray], np.ndarray],
    unit_N: np.ndarray | None = None,
    num_draws: int | None = None,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """`Kind.draw_errors` of an error that follows from sums over the rows.

    Args:
        statistics_CNS: what is summed.
        finish: the errors (...) from sums (..., S).
        unit_N, num_draws, seed: as there.

    Returns:
        The errors of all rows, (C,), and of each drawn sample, (D, C).
    """
    num_candidates, num_rows, num_statistics = statistics_CNS.shape
    unit_N, num_units = number_units(unit_N, num_rows)
    sums_UT = np.zeros((num_units, num_candidates * num_statistics))
    np.add.at(sums_UT, unit_N, statistics_CNS.swapaxes(0, 1).reshape(num_rows, -1))
    blocks = (c_DU @ sums_UT for c_DU in draw_counts(num_units, num_draws or NUM_DRAWS, seed))
    shape = (num_candidates, num_statistics)
    drawn_DC = np.concatenate([finish(sums_DT.reshape(-1, *shape)) for sums_DT in blocks])
    return finish(sums_UT.sum(axis=0).reshape(shape)), drawn_DC
