"""Which trials of a tuning have ended, and which comes next."""

from __future__ import annotations

from collections.abc import Callable

from ray_jobs.errors import RunError
from ray_jobs.planning.plan import Plan
from ray_jobs.runs.files import write_json
from ray_jobs.tuning.decisions import Halving, choose_fields
from ray_jobs.tuning.planning import Tuning
from ray_jobs.tuning.space import with_fields
from ray_jobs.tuning.trials import ENDED, Result, Trial, TrialState, read_result, read_trials, score_folds
from trainers.interface import DataError


class Progress:
    """The trials of a tuning: those that have ended, and which comes next.

    Args:
        tuning: whose.
        retries_failed: whether failed trials are trained again.
        tell: hears of trials that cannot be trained.
    """

    def __init__(
        self, tuning: Tuning, *, retries_failed: bool = False, tell: Callable[[Trial, Result], None] = lambda *_: None
    ) -> None:
        self.tuning, self.retries_failed, self.tell = tuning, retries_failed, tell
        self.trials = read_trials(tuning.folder, tuning.space)
        self.results = {number: read_result(trial, tuning.config) for number, trial in self.trials.items()}
        self.todo = [number for number in self.trials if not self._has_ended(number)]
        self.plans: dict[int, Plan] = {}
        self.is_exhausted = False
        # What every trial is made of is known, and checked, before anything is launched.
        if tuning.tune.search == "random":
            while self._choose() is not None:
                continue
        for number in self.todo:
            self.plans[number] = tuning.plan_trial(self.trials[number])

    def is_over(self) -> bool:
        """Whether every trial has ended."""
        return not self.todo and (self.is_exhausted or len(self.trials) > self.tuning.tune.num_trials)

    def take_next(self) -> tuple[Trial, Plan] | None:
        """The next trial to train; None: there is none left. One whose values turn out not to be trainable has
        failed."""
        while self.todo or self._choose():
            trial = self.trials[self.todo.pop(0)]
            try:
                plan = self.plans.pop(trial.number, None) or self.tuning.plan_trial(trial)
            except (RunError, DataError) as error:
                self.results[trial.number] = result = Result(TrialState.FAILED, reason=str(error))
                self._write_failed(trial, result)
                self.tell(trial, result)
                continue
            if not trial.folder.provenance.exists():  # new, or failed before it began
                trial.folder.config.unlink(missing_ok=True)
            return trial, plan
        return None

    def _write_failed(self, trial: Trial, result: Result) -> None:
        """A trial that never began has a folder, too: it has ended, and is listed with the others."""
        config = self.tuning.config
        trial.folder.root.mkdir(parents=True, exist_ok=True)
        trial.folder.write_config(with_fields(config, trial.fields))
        write_json(trial.folder.summary, {"trial": result.as_json(config.ensemble.metric)})

    def list_ended(self) -> list[tuple[Trial, Result]]:
        """The trials that have ended, with what came out."""
        return [(self.trials[number], result) for number, result in self.results.items() if result.state in ENDED]

    def _has_ended(self, number: int) -> bool:
        state = self.results[number].state
        return state in ENDED and not (self.retries_failed and state == TrialState.FAILED)

    def _choose(self) -> Trial | None:
        """Adds a trial, if there is one to add. Numbers have no gap: a trial that was killed before it had a folder is
        there again."""
        tuning, number = self.tuning, next(n for n in range(len(self.trials) + 1) if n not in self.trials)
        if self.is_exhausted or number > tuning.tune.num_trials:
            return None
        known = {other: trial.fields for other, trial in self.trials.items()}
        fields = choose_fields(tuning.tune, tuning.space, tuning.config, number, known, self.list_ended())
        if fields is None:
            self.is_exhausted = True
            return None
        self.trials[number] = tuning.make_trial(number, fields)
        self.todo.append(number)
        return self.trials[number]


def rebuild_halving(progress: Progress) -> Halving:
    """The scheduler as it was: told what the trials that have ended came to after each of their folds."""
    config = progress.tuning.config
    halving = Halving(progress.tuning.tune.reduction_factor, config.folds.count)
    for trial, result in progress.list_ended():
        if result.folds != tuple(range(len(result.folds))):
            continue  # a fold was removed by hand
        for number in range(1, len(result.folds) + 1):
            score, _ = score_folds(trial.folder, config, result.folds[:number])
            assert score is not None
            halving.goes_on(trial.name, number, score)
    return halving
