"""How a tuning ends: what the best trial is worth, `trials.csv`, `tune.json`, the report, the last words.

The best of many trials on the same folds is lucky as well as good. So it is compared with the recipe as it is on the
same rows, by a bound that holds for all trials together, and the choice is made once more inside each fold and scored
there. Where ASHA has let the folds themselves choose which trials were trained to the end, neither would be unbiased,
and neither is given."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console

from ensemble.kinds import Kind
from ensemble.members.comparison import compare_pair
from ensemble.members.search import choose
from ensemble.run import Columns, Evaluation
from ray_jobs.config.run import to_dict
from ray_jobs.config.words import write_command
from ray_jobs.results.run_files import describe_run, measure_folds
from ray_jobs.runs.files import read_json, write_csv
from ray_jobs.tuning.display import build_trial_table, rank_trials
from ray_jobs.tuning.planning import Tuning
from ray_jobs.tuning.trials import Result, Trial, TrialState, read_result, read_trials


def describe_ensemble(tuning: Tuning) -> dict[str, Any]:
    """What the scores depend on besides the trials: the `ensemble` section, as `tune.json` has it."""
    ensemble: dict[str, Any] = to_dict(tuning.config)["ensemble"]
    return ensemble


def read_all(tuning: Tuning) -> tuple[dict[int, Trial], dict[int, Result]]:
    """The trials and what came out of each."""
    trials = read_trials(tuning.folder, tuning.space)
    return trials, {number: read_result(trial, tuning.config) for number, trial in trials.items()}


def write_trials(tuning: Tuning, ended: Sequence[tuple[Trial, Result]]) -> None:
    """Writes `trials.csv`, the best first: every tuned field, score, folds, seconds, state."""
    trials = {trial.number: trial for trial, _ in ended}
    results = {trial.number: result for trial, result in ended}
    names, num_folds = [one.field for one in tuning.space], tuning.config.folds.count
    header = ["rank", "trial", *names, tuning.config.error_name, "folds", "seconds", "state"]
    header += [f"fold_{fold}" for fold in range(num_folds)] + ["reason"]
    rows = []
    for rank, number in enumerate(rank_trials(results), start=1):
        trial, result = trials[number], results[number]
        by_fold = dict(zip(result.folds, result.fold_scores, strict=True))
        rows.append(
            [rank, trial.name, *trial.fields.values(), result.score, len(result.folds), round(result.seconds, 1)]
        )
        rows[-1] += [result.state.value, *(by_fold.get(fold) for fold in range(num_folds)), result.reason]
    write_csv(tuning.folder.trials_csv, header, rows)


def compare_trials(tuning: Tuning, trials: Mapping[int, Trial], results: Mapping[int, Result]) -> dict[str, Any]:
    """What the best trial is worth, of those that have trained all folds.

    Returns:
        `metric`, `num_trials`, `best` (its name, None: there is none), `fields`, `score`; where the recipe as it is has
        all its folds, too: `recipe_score`, `improvement` and, without ASHA, the bound `improvement_low` (95 %, for all
        trials together), `is_better`, `nested_score` (chosen inside each fold, scored on it); with a second trial
        `second` and its difference, from the best's.
    """
    kind, metric = tuning.config.kind, tuning.config.ensemble.metric
    order = [number for number in rank_trials(results) if results[number].state == TrialState.COMPLETE]
    states = [result.state.value for result in results.values()]
    outcome: dict[str, Any] = {
        "metric": tuning.config.error_name,
        "num_trials": len(trials),
        "states": {state: states.count(state) for state in dict.fromkeys(states)},
        "seconds": sum(result.seconds for result in results.values()),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "best": None,
    }
    if not order:
        return outcome
    best = trials[order[0]]
    outcome |= {"best": best.name, "fields": best.fields, "score": results[best.number].score}
    words = [*tuning.words, *_as_words(best), f"run.name={tuning.folder.root.name}_best"]
    outcome |= {"command": write_command("kfold.py", words)}
    if len(order) == 1:
        return outcome
    columns = [_read_columns(tuning, trials[number]) for number in order]
    first, second = columns[0].oof_MN[0], columns[1].oof_MN[0]
    difference = compare_pair(kind, metric, columns[0].target_N, first, second, columns[0].unit_N)
    outcome |= {"second": trials[order[1]].name, "second_score": results[order[1]].score}
    outcome |= {f"second_{name}": value for name, value in asdict(difference).items()}
    if 0 in order and tuning.tune.scheduler == "asha":
        recipe_score, best_score = results[0].score, results[best.number].score
        assert recipe_score is not None
        assert best_score is not None
        outcome |= {"recipe_score": recipe_score, "improvement": recipe_score - best_score}
    elif 0 in order:
        evaluations = [_evaluate(kind, one, metric) for one in columns]
        choice = choose(kind, evaluations, order.index(0), columns[0], metric)
        outcome |= {
            "recipe_score": results[0].score,
            "improvement": float(choice.improvement_C[0]),
            "improvement_low": float(choice.improvement_low_C[0]),
            "is_better": choice.replaces,
            "nested_score": choice.nested_error,
            "chosen_in_folds": [trials[order[index]].name for index in choice.chosen_F],
        }
    return outcome


def _read_columns(tuning: Tuning, trial: Trial) -> Columns:
    """A trial's out-of-fold predictions, in the order of their ids."""
    config = replace(trial.folder.read_config(), ensemble=tuning.config.ensemble)
    tables = measure_folds(trial.folder, config, range(config.folds.count), config.ensemble.checkpoint)
    table = pa.concat_tables(tables)
    target_N, prediction_N = config.kind.split(table)
    ids_N = table["id"].to_numpy(zero_copy_only=False)
    fold_N, run = table["fold"].to_numpy(), describe_run(trial.folder, config)
    units_N = run.find_units(ids_N)
    columns = Columns((trial.name,), ids_N, fold_N, target_N, prediction_N[None], units_N, run.is_ordered)
    return columns.keep(np.argsort(ids_N))


def _evaluate(kind: Kind, columns: Columns, metric: str) -> Evaluation:
    """What choosing among trials sees: the predictions, and for each fold the error on all other rows, or earlier
    ones."""
    rest, oof_N = [columns.others(fold) for fold in np.unique(columns.fold_N)], columns.oof_MN[0]
    errors = [kind.measure_error(metric, columns.target_N[n], oof_N[n]) if n.any() else np.nan for n in rest]
    return Evaluation(oof_N, np.array(errors))


def _as_words(trial: Trial) -> list[str]:
    return [f"{name}={value}" for name, value in trial.fields.items()]


def explain_tuning(outcome: Mapping[str, Any]) -> list[str]:
    """What to believe of a tuning, in sentences."""
    metric = outcome["metric"]
    if outcome["best"] is None:
        return ["No trial has trained all its folds: there is no best."]
    fields = " ".join(f"{name}={value}" for name, value in outcome["fields"].items())
    lines = [f"Best: {outcome['best']}, {metric} {outcome['score']:.4f} ({fields})."]
    if "recipe_score" in outcome and "nested_score" not in outcome:
        lines.append(
            f"The recipe as it is has {outcome['recipe_score']:.4f}, {outcome['improvement']:+.4f} more. How much of "
            "that is luck is not known: the same folds chose which trials were trained to the end. The command below "
            "with another folds.seed, for the recipe, too, gives scores that can be compared; tune.scheduler=none "
            "gives bounds."
        )
    elif "recipe_score" in outcome:
        bound = (
            f"{outcome['improvement']:+.4f}, at least {outcome['improvement_low']:+.4f} (95 %, for all trials together)"
        )
        if outcome["best"] == "trial_000":
            lines.append("That is the recipe as it is: no trial was better.")
        elif outcome["is_better"]:
            lines.append(f"Better than the recipe as it is, {outcome['recipe_score']:.4f}, by {bound}.")
        else:
            lines.append(f"Not shown to be better than the recipe as it is, {outcome['recipe_score']:.4f}: by {bound}.")
        lines.append(
            f"Chosen inside each fold and scored on it: {metric} {outcome['nested_score']:.4f}. That is what tuning "
            f"is worth; the best's own {outcome['score']:.4f} is the best of {outcome['num_trials']} on the same "
            "folds and flattered by luck."
        )
    if "second" in outcome:
        lines.append(
            f"Minus the second best, {outcome['second']} with {outcome['second_score']:.4f}: "
            f"{outcome['second_difference']:+.4f} (95 % interval {outcome['second_low']:+.4f} to "
            f"{outcome['second_high']:+.4f})."
        )
    return lines


def print_tuning(console: Console, tuning: Tuning) -> None:
    """The last words: the trials, what the best is worth, where everything is."""
    folder, outcome = tuning.folder, read_json(tuning.folder.tune)["outcome"]
    trials, results = read_all(tuning)
    title = f"{outcome['metric']} of the out-of-fold predictions, the best first"
    console.print(build_trial_table(title, trials, results, tuning.config.folds.count, ranked=True))
    for number, result in results.items():
        if result.state == TrialState.FAILED:
            console.print(f"{trials[number].name} FAILED: {result.reason}", style="bold red")
            console.print(f"  its logs: {folder.of_trial(trials[number].name).log}")
    for line in explain_tuning(outcome):
        console.print(line)
    if outcome["best"] is not None:
        console.print(
            f"its models, predictions and submission are trained already: {folder.of_trial(outcome['best']).root}"
        )
        console.print(f"as a run of its own:\n    {outcome['command']}")
    console.print(f"all trials: {folder.trials_csv}\nreport: {folder.report}")
