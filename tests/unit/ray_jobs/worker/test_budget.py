"""The time that a run gives a fold, and what it decided."""

import time

import pytest

from ray_jobs.config.run import RunSection
from ray_jobs.driver.coordinator import Coordination
from ray_jobs.results.wording import explain_choice, explain_ends
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.events import EndedEarly, FoldLaunched, FoldStarted
from ray_jobs.runs.json_files.status import FoldState, find_budget_end, read_status
from ray_jobs.runs.json_files.summary import FoldOutcome, Summary
from ray_jobs.worker.budget import TimeBudget


def test_what_comes_next_has_to_fit_beside_what_earlier_attempts_have_used():
    began = time.monotonic() - 40
    assert not TimeBudget(None, began=began).is_over(10, 1e9)
    assert not TimeBudget(100, began=began).is_over(10, 50)
    assert TimeBudget(100, began=began).is_over(10, 70)
    assert TimeBudget(100, used_s=30, began=began).is_over(10, 50)


def test_what_was_decided_once_holds_for_an_attempt_that_is_faster_or_has_more_time():
    budget = TimeBudget(1e9, ended_at=20)
    assert [budget.is_over(step, 1.0) for step in (10, 20, 30)] == [False, True, True]
    assert not TimeBudget(1e-9, ended_at=20).is_over(10, 1.0)


def test_the_events_keep_what_was_decided_whatever_becomes_of_the_fold(tmp_path):
    folder = RunFolder(tmp_path)
    state = Coordination(folder, 2)
    for event in (FoldLaunched(1, 1, 1, 1), FoldStarted(1, 1), EndedEarly(1, 1, 24, "budget")):
        state.apply(event)
    assert read_status(folder, 1).ended_by == "budget"
    folder.fold(1).status.unlink()
    assert (find_budget_end(folder, 1), find_budget_end(folder, 0)) == (24, None)
    state.apply(FoldLaunched(1, 2, 1, 1))
    assert read_status(folder, 1).ended_by is None
    state.apply(EndedEarly(1, 2, 24, "patience"))
    assert find_budget_end(folder, 1) == 24


@pytest.mark.parametrize("budget", ["2", "soon", "0h"])
def test_a_budget_that_is_no_time_is_refused(budget):
    with pytest.raises(ValueError, match=rf"run.time_budget={budget}: expected a time in s, min, h, d or w"):
        RunSection(time_budget=budget)
    assert RunSection(time_budget="1.5h").time_budget_s == 5400


def test_the_summary_says_what_ended_the_folds_and_what_was_chosen():
    done = [FoldOutcome(fold=fold, state=FoldState.COMPLETED, epochs=4, ended_by="budget") for fold in (0, 2)]
    assert explain_ends(Summary(folds=tuple(done))) == [
        "ended before all epochs, since no further epoch fitted into run.time_budget: folds 0 (4 epochs), 2 (4 epochs)"
    ]
    assert "final was not chosen" in explain_choice(Summary(folds=tuple(done)))
    patient = FoldOutcome(fold=1, state=FoldState.COMPLETED, epochs=7, ended_by="patience")
    assert "best and of final are a little optimistic" in explain_choice(Summary(folds=(patient,)))
