"""Trains one trial: its folds as `kfold.py` trains them, side by side or one after another, and what its folder then
says.

Runs in a thread of the driver. Only the folds' workers reserve anything, each for as long as it trains: a trial that
ends, however, leaves nothing behind."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ray_jobs.cli.console import NamedConsole
from ray_jobs.cluster.placement import Placement
from ray_jobs.driver.session import Session, list_unfinished, start_coordinator
from ray_jobs.planning.continuation import write_or_compare
from ray_jobs.planning.plan import Plan
from ray_jobs.results.stage import run_ensemble_stage
from ray_jobs.results.summary import build_summary, save_summary
from ray_jobs.runs.json_files.status import FoldState, forget_attempt, last_attempt, read_statuses
from ray_jobs.runs.record import log_news
from ray_jobs.runs.repair import reset_damaged_folds
from ray_jobs.tuning.decisions import Halving
from ray_jobs.tuning.planning import Tuning
from ray_jobs.tuning.trials import Result, Trial, TrialState, score_folds

_FLUSH_S = 2.0


class _NoWatcher(contextlib.nullcontext[None]):
    """The tuning's table shows the trials; `status.py` shows a trial's folds."""

    def update(self) -> None:
        """Shows nothing."""


@dataclass(frozen=True)
class TrialTrainer:
    """What all trials of a tuning share.

    Args:
        tuning: whose trials.
        session: the tuning's, on its cluster.
        placement: of one trial.
        halving: decides after each fold whether a trial goes on; None: folds run side by side.
        prepare: makes ready what a plan reads, on all nodes; called once for all trials that read the same.
        concluding: held while a trial is scored and combined, which needs a core of the driver's.
    """

    tuning: Tuning
    session: Session
    placement: Placement
    halving: Halving | None
    prepare: Callable[[Plan], None]
    concluding: threading.Lock

    def run(self, trial: Trial, plan: Plan) -> Result:
        """Trains what is left of a trial and writes what came out.

        Raises:
            RunError, OSError: the trial cannot be trained, or its folder takes nothing.
            KeyboardInterrupt, ClusterLostError: its folds go on another time.
        """
        folder, config = plan.folder, plan.config
        warn = partial(NamedConsole(self.session.console, trial.name).print, style="yellow")
        with folder.lock():
            plan = write_or_compare(plan, self._write_command(trial), warn)
            folder.remove_leftovers()
            reset_damaged_folds(folder, config.folds.count, warn)
            folder.stop_request.unlink(missing_ok=True)
            self.prepare(plan)
            is_stopped = self._train(trial, plan)
            with self.concluding:
                return self._conclude(trial, plan, is_stopped=is_stopped)

    def _write_command(self, trial: Trial) -> list[str]:
        """What continues the trial alone, as a run."""
        tuned = [f"{name}={value}" for name, value in trial.fields.items()]
        words = [word for word in self.tuning.words if not word.lstrip("-").startswith("run.storage=")]
        return [*words, *tuned, f"run.storage={trial.folder.root.parent}", f"run.name={trial.name}"]

    def _train(self, trial: Trial, plan: Plan) -> bool:
        """Trains the folds that are left; whether the scheduler stopped the trial."""
        import ray

        todo = list_unfinished(plan)
        if not todo:
            return False
        plan.folder.summary.unlink(missing_ok=True)  # it has not ended any more, if it had
        for fold in todo:
            forget_attempt(fold.folder, fold.fold)
        coordinator = start_coordinator(plan, self.placement)
        try:
            if self.halving is None:
                self._launch(trial, plan, coordinator, todo)
                return False
            return self._train_in_turn(trial, plan, coordinator, self.halving)
        finally:
            with contextlib.suppress(Exception):  # Ray may be gone
                ray.get(coordinator.flush.remote(), timeout=_FLUSH_S)
                ray.kill(coordinator)

    def _train_in_turn(self, trial: Trial, plan: Plan, coordinator: Any, halving: Halving) -> bool:
        """Fold after fold while the trial is among the better ones; the recipe as it is goes on in any case, to be
        compared with."""
        num_folds = plan.config.folds.count
        for number in range(num_folds):
            todo = [fold for fold in list_unfinished(plan) if fold.fold == number]
            if todo:
                self._launch(trial, plan, coordinator, todo)
            if not plan.folder.fold(number).is_complete():
                return False
            score, _ = score_folds(plan.folder, plan.config, range(number + 1))
            log_news(plan.folder.trial_record, {"tune/score": score, "tune/folds_done": number + 1})
            assert score is not None
            goes_on = halving.goes_on(trial.name, number + 1, score)
            # Before an interrupt: others that have ended since do not change it.
            was_let_on = last_attempt(plan.folder, number + 1) > 0
            if trial.number > 0 and number + 1 < num_folds and not goes_on and not was_let_on:
                return True
        return False

    def _launch(self, trial: Trial, plan: Plan, coordinator: Any, todo: list[Any]) -> None:
        run = replace(plan.config.run, name=f"{self.tuning.folder.root.name}_{trial.name}")
        config = replace(plan.config, run=run)
        launcher = self.session.make_launcher(plan, config, self.placement, coordinator)
        launcher.train(todo, NamedConsole(self.session.console, trial.name), _NoWatcher())

    def _conclude(self, trial: Trial, plan: Plan, *, is_stopped: bool) -> Result:
        """Scores and combines what is trained, and writes the summary, which says how the trial has ended."""
        folder, config = plan.folder, plan.config
        stage = run_ensemble_stage(str(folder.root))
        result = judge(plan, is_stopped=is_stopped)
        summary = build_summary(folder, config, stage, {"train": result.seconds})
        save_summary(folder, config, replace(summary, trial=result.as_json(config.ensemble.metric)))
        scores = {
            f"tune/fold_{fold}_score": value for fold, value in zip(result.folds, result.fold_scores, strict=True)
        }
        log_news(
            folder.trial_record,
            {"tune/score": result.score, "tune/folds_done": len(result.folds), "tune/seconds": result.seconds}
            | {"tune/state": result.state.value, **scores},
        )
        return result


def judge(plan: Plan, *, is_stopped: bool) -> Result:
    """What a trial that has ended has come to."""
    folder, config = plan.folder, plan.config
    folds = tuple(folder.completed_folds(config.folds.count))
    statuses = read_statuses(folder, config.folds.count)
    score, fold_scores = score_folds(folder, config, folds)
    seconds = sum(status.finished - status.started for status in statuses if status.finished and status.started)
    errors = [f"fold {one.fold}: {one.error}" for one in statuses if one.state == FoldState.FAILED]
    if len(folds) == config.folds.count:
        state, reason = TrialState.COMPLETE, None
    elif is_stopped:
        state, reason = TrialState.STOPPED, f"after {len(folds)} of {config.folds.count} folds: others were better"
    else:
        state, reason = TrialState.FAILED, "; ".join(errors) or "a fold ended early"
    return Result(state, folds, score, fold_scores, seconds, reason)
