"""Which trial comes next, and which goes on: Ray Tune's search spaces, searcher and scheduler, asked by the driver.

Tune's own loop is not used: it would keep a process and a state of its own for each trial, a second truth beside the
folders. Here nothing is kept: both are built anew from what the trials' folders say."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from ray_jobs.config.run import RunConfig
from ray_jobs.config.tune import TuneConfig
from ray_jobs.errors import RunError
from ray_jobs.tuning.space import Dimension, count_combinations, list_combinations, read_fields, with_fields
from ray_jobs.tuning.trials import Result, Trial, TrialState

_MOST_LISTED, _MOST_DRAWS = 10_000, 100


def choose_fields(
    tune: TuneConfig,
    space: Sequence[Dimension],
    config: RunConfig,
    number: int,
    earlier: Mapping[int, Mapping[str, str]],
    results: Sequence[tuple[Trial, Result]] = (),
) -> dict[str, str] | None:
    """The values of a trial's fields. Trial 0 is the recipe as it is; no trial repeats another.

    Args:
        tune: how.
        space: what is tuned.
        config: the recipe.
        number: of the trial; random draws depend on it and on the seed alone.
        earlier: the fields of trials with lower numbers.
        results: of trials that have ended, for a search that learns.

    Returns:
        None: every combination of the space has been tried.

    Raises:
        RunError: drawn values that are not allowed together.
    """
    if number == 0:
        return read_fields(space, config)
    taken = {tuple(fields.values()) for other, fields in earlier.items() if other < number}
    draws = _draw_untried(tune, space, number, taken)
    if tune.search == "tpe":
        draws = itertools.chain(_draw_from_optuna(tune, space, number, results), draws)
    for drawn in draws:
        try:
            fields = read_fields(space, with_fields(config, drawn))
        except RunError:
            if tune.search == "random":
                raise
            continue  # TPE has to find out by itself which values go together
        if tuple(fields.values()) not in taken:
            return fields
    return None


def _draw_untried(
    tune: TuneConfig, space: Sequence[Dimension], number: int, taken: Set[tuple[str, ...]]
) -> Iterator[dict[str, str]]:
    """One of the combinations that are left; where they cannot be listed, random draws by Tune's domains."""
    rng = np.random.default_rng([tune.seed, number])
    if count_combinations(space) <= _MOST_LISTED:
        left = [fields for fields in list_combinations(space) if tuple(fields.values()) not in taken]
        if left:
            yield left[rng.integers(len(left))]
        return
    for _ in range(_MOST_DRAWS):
        yield {one.field: one.write(one.as_domain().sample(random_state=rng)) for one in space}


def _draw_from_optuna(
    tune: TuneConfig, space: Sequence[Dimension], number: int, results: Sequence[tuple[Trial, Result]]
) -> Iterator[dict[str, str]]:
    """Tune's OptunaSearch (tree-structured Parzen estimator, Bergstra et al. 2011), told of every trial that has ended.
    A failed one counts as the worst."""
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    searcher = OptunaSearch(
        OptunaSearch.convert_search_space({one.field: one.as_domain() for one in space}),
        metric="score",
        mode="min",
        seed=int(np.random.default_rng([tune.seed, number]).integers(2**31)),
    )
    scores = {trial.number: None if one.state == TrialState.FAILED else one.score for trial, one in results}
    worst = max((score for score in scores.values() if score is not None), default=None)
    for trial, _ in results:
        point = {one.field: one.read(trial.fields[one.field]) for one in space}
        if worst is not None and None not in point.values():
            score = scores[trial.number]
            searcher.add_evaluated_point(point, worst if score is None else score)
    for draw in range(_MOST_DRAWS):
        suggested = searcher.suggest(str(draw))
        assert suggested is not None, "there is no limit to its draws"
        yield {one.field: one.write(suggested[one.field]) for one in space}


@dataclass(frozen=True)
class _Named:
    """All that Tune's scheduler asks of a trial."""

    trial_id: str


class Halving:
    """Tune's asynchronous successive halving (Li et al. 2020, https://arxiv.org/abs/1810.05934), a rung after each
    fold.

    Args:
        reduction_factor: one of so many goes on.
        num_folds: of a whole trial.
    """

    def __init__(self, reduction_factor: float, num_folds: int) -> None:
        from ray.tune.schedulers import ASHAScheduler

        self.factor = float(reduction_factor)
        # Tune's rungs lie at powers of the factor; so a fold is one if that is how the time is told.
        most = self.factor ** (num_folds - 0.5)
        self.scheduler: Any = ASHAScheduler("time", "score", "min", most, 1, self.factor)
        self.known: set[str] = set()
        self.lock = threading.Lock()

    def goes_on(self, name: str, num_folds: int, score: float) -> bool:
        """Whether a trial that has trained so many folds, with this score, is among those that train the next. Asked
        again, it says yes."""
        trial = _Named(name)
        with self.lock:
            if name not in self.known:
                self.known.add(name)
                self.scheduler.on_trial_add(None, trial)
            result = {"time": self.factor ** (num_folds - 1), "score": score}
            return bool(self.scheduler.on_trial_result(None, trial, result) != "STOP")


def refuse_missing_search(tune: TuneConfig) -> None:
    """Raises RunError where the search needs a package that is not installed."""
    if tune.search != "tpe":
        return
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise RunError(
            "tune.search=tpe needs the package optuna: `pip install 'ray-kfold[tune]'`, or tune.search=random"
        ) from None
