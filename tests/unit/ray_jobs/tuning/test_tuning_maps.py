"""A tuning of a family that predicts maps: trials are ranked and compared by their error, 1 - Dice, on the same
rows."""

from __future__ import annotations

import csv
import dataclasses

import pytest
from support.made_map_run import make_map_run

from ray_jobs.config.recipes import RECIPES
from ray_jobs.config.run import MAIN, RunSection
from ray_jobs.config.tune import TuneConfig
from ray_jobs.planning.inventories import describe_inputs
from ray_jobs.planning.plan import MemberPlan, Plan
from ray_jobs.runs.files import read_json, write_json
from ray_jobs.runs.folder import RunFolder
from ray_jobs.tuning.outcome import compare_trials, explain_tuning, write_trials
from ray_jobs.tuning.planning import Tuning
from ray_jobs.tuning.space import parse_space
from ray_jobs.tuning.trials import TrialState, read_result

LINES = ("optimizer.lr loguniform 1e-4 1e-2",)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A tuning with two trials, of which the second errs less, and what came out."""
    folder = RunFolder(tmp_path_factory.mktemp("tuning") / "search")
    tune = TuneConfig(name="search", space=LINES, num_trials=2, search="random")
    config = RECIPES["unet_segmentation_small"]()
    config = dataclasses.replace(config, run=RunSection(name="search", storage=str(folder.root.parent)))
    write_json(folder.tune, {"tune": dataclasses.asdict(tune)})
    folder.write_config(config)
    plan = Plan({MAIN: MemberPlan(config, folder, None, None)}, [])
    tuning = Tuning(plan, tune, parse_space(LINES, config), [])
    trials = {number: tuning.make_trial(number, {"optimizer.lr": f"0.00{number + 1}"}) for number in range(2)}
    for number, noise in enumerate((0.4, 0.25)):
        make_map_run(trials[number].folder.root, noise=noise)
    return tuning, trials, {number: read_result(trial, config) for number, trial in trials.items()}


def test_a_trial_s_score_is_what_its_dice_lacks(tuned):
    _, trials, results = tuned
    for number, result in results.items():
        scores = read_json(trials[number].folder.summary)["scores"]
        assert result.state == TrialState.COMPLETE
        assert result.score == pytest.approx(1 - scores["out_of_fold"]["best"]["dice"])
        assert result.fold_scores == pytest.approx([1 - fold["best"]["dice"] for fold in scores["folds"]])


def test_the_best_is_compared_with_the_recipe_by_its_error(tuned):
    tuning, trials, results = tuned
    outcome = compare_trials(tuning, trials, results)
    assert (outcome["metric"], outcome["best"], outcome["second"]) == ("dice_error", "trial_001", "trial_000")
    assert outcome["improvement"] == pytest.approx(results[0].score - results[1].score)
    assert 0 < outcome["improvement_low"] < outcome["improvement"]
    assert outcome["is_better"]
    assert outcome["nested_score"] == pytest.approx(results[1].score)
    assert outcome["second_high"] < 0
    assert f"Best: trial_001, dice_error {results[1].score:.4f}" in explain_tuning(outcome)[0]
    write_trials(tuning, [(trials[number], results[number]) for number in trials])
    with (tuning.folder.root / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["dice_error"]) for row in rows] == [results[1].score, results[0].score]


def test_trials_that_differ_in_the_training_share_what_they_read(tuned):
    tuning, _, _ = tuned
    config = tuning.config
    other = dataclasses.replace(config.trainer.optimizer, lr=0.1)
    same = dataclasses.replace(config, trainer=dataclasses.replace(config.trainer, optimizer=other))
    data = dataclasses.replace(config.trainer.data, size=32)
    differs = dataclasses.replace(config, trainer=dataclasses.replace(config.trainer, data=data))
    assert describe_inputs(same) == describe_inputs(config) != describe_inputs(differs)
