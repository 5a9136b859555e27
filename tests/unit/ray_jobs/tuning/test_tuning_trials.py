"""A tuning is what its trials' folders say: which have ended, what comes next, what the best is worth."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
from support.made_run import make_run

from ensemble.numbers.metrics import measure_error
from ray_jobs.cli.command_line import Command, parse_kfold, parse_tune
from ray_jobs.cli.console import open_console
from ray_jobs.cli.lookup import find_run, find_runs
from ray_jobs.config.recipes import RECIPES
from ray_jobs.config.run import MAIN
from ray_jobs.config.tune import TuneConfig
from ray_jobs.driver.kfold import run_kfold
from ray_jobs.errors import ConfigChangedError, RunError
from ray_jobs.planning.plan import MemberPlan, Plan
from ray_jobs.runs.files import read_json, read_parquet, write_json, write_parquet
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.status import FoldState, FoldStatus, write_status
from ray_jobs.runs.record import log_news
from ray_jobs.status import main as show_status
from ray_jobs.tracking.wandb_runs import list_wandb_runs
from ray_jobs.tuning.decisions import Halving, choose_fields
from ray_jobs.tuning.driver import run_tuning, show_tuning
from ray_jobs.tuning.outcome import compare_trials, explain_tuning, print_tuning, read_all, write_trials
from ray_jobs.tuning.planning import Tuning, check_tuning, write_or_compare_tuning
from ray_jobs.tuning.progress import Progress, rebuild_halving
from ray_jobs.tuning.space import parse_space, with_fields
from ray_jobs.tuning.trainer import judge
from ray_jobs.tuning.trials import Result, Trial, TrialState, read_result, read_trials
from trainers.interface import DataError

LINES = ("optimizer.lr loguniform 1e-5 1e-1", "model.dropout choice 0.0 0.3")
RATES = {0: "0.004", 1: "0.01", 2: "0.001"}


@pytest.fixture(scope="module", autouse=True)
def made(tmp_path_factory):
    """Runs to copy: {what is missing of them: folder}; made when they are first needed."""
    MADE.clear()
    MADE["root"] = tmp_path_factory.mktemp("made")


MADE = {}


def copy_run(root, **made):
    """As `make_run`, which takes a second."""
    if str(made) not in MADE:
        MADE[str(made)] = make_run(MADE["root"] / str(len(MADE)), num_epochs=1, **made)
    folder, config, _ = MADE[str(made)]
    shutil.copytree(folder.root, root, dirs_exist_ok=True)
    return RunFolder(root), config


def make_tuning(root, tune=None):
    """A tuning without trials."""
    folder, tune = RunFolder(root), tune or TuneConfig(name=root.name, space=LINES, num_trials=3, search="random")
    config = RECIPES["clip_multimodal_small"]()
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, name=root.name, storage=str(root.parent)))
    write_json(folder.tune, {"tune": dataclasses.asdict(tune)})
    folder.write_config(config)
    plan = Plan({MAIN: MemberPlan(config, folder, None, None)}, [])
    return Tuning(plan, tune, parse_space(tune.space, config), ["training.epochs=24"])


def add_trial(tuning, number, noise, *, ended=True, rate=None, **made):
    """A trial whose predictions are off by so much more than those of the others."""
    trial = tuning.make_trial(number, {"optimizer.lr": rate or RATES[number], "model.dropout": "0.3"})
    folder, config = copy_run(trial.folder.root, **made)
    config = dataclasses.replace(with_fields(tuning.config, trial.fields), run=config.run)
    folder.write_config(config)
    for fold in folder.completed_folds(3):
        path = folder.fold(fold).predictions("validation", "best")
        table, rng = read_parquet(path), np.random.default_rng([number, fold])
        z_N = np.log1p(table["target"].to_numpy()) + rng.normal(0, noise, table.num_rows)
        column = table.column_names.index("prediction")
        write_parquet(path, table.set_column(column, "prediction", pa.array(np.expm1(z_N.clip(0)))))
        folder.fold(fold).write_manifest()
    if ended:
        plan = Plan({MAIN: MemberPlan(config, folder, None, None)}, [])
        result = judge(plan, is_stopped="waiting" in made)
        write_json(folder.summary, read_json(folder.summary) | {"trial": result.as_json("msle")})
        log_news(folder.trial_record, {"tune/score": result.score, "tune/state": result.state.value})
    return trial


def test_a_trial_has_ended_when_its_summary_and_its_folds_say_so(tmp_path):
    tuning = make_tuning(tmp_path / "search")
    whole, half = add_trial(tuning, 0, 0.5), add_trial(tuning, 1, 0.4, ended=False, waiting=(2,))
    stopped, failed = add_trial(tuning, 2, 0.9, waiting=(1, 2)), add_trial(tuning, 3, 0.4, rate="0.02", failed=(1,))
    results = {trial.number: read_result(trial, tuning.config) for trial in (whole, half, stopped, failed)}
    states = [result.state for result in results.values()]
    assert states == [TrialState.COMPLETE, TrialState.INTERRUPTED, TrialState.STOPPED, TrialState.FAILED]
    assert [result.folds for result in results.values()] == [(0, 1, 2), (0, 1), (0,), (0, 2)]
    assert results[2].reason == "after 1 of 3 folds: others were better"
    assert "broke" in results[3].reason
    tables = [read_parquet(whole.folder.fold(fold).predictions("validation", "best")) for fold in range(3)]
    oof = pa.concat_tables(tables)
    assert results[0].score == measure_error("msle", oof["target"].to_numpy(), oof["prediction"].to_numpy())
    assert results[0].seconds == 60
    known = read_trials(tuning.folder, tuning.space)
    assert {number: trial.fields for number, trial in known.items()} == {
        0: whole.fields, 1: half.fields, 2: stopped.fields, 3: failed.fields,
    }  # fmt: skip


def test_another_metric_scores_the_same_folders_anew(tmp_path):
    tuning = make_tuning(tmp_path / "search")
    trial = add_trial(tuning, 0, 0.5)
    ensemble = dataclasses.replace(tuning.config.ensemble, metric="mae")
    result = read_result(trial, dataclasses.replace(tuning.config, ensemble=ensemble))
    assert result.state == TrialState.COMPLETE
    assert result.score > 1 > read_result(trial, tuning.config).score


def test_a_metric_that_a_fold_does_not_allow_is_told(tmp_path):
    tuning = make_tuning(tmp_path / "search")
    trial = add_trial(tuning, 0, 0.5)
    ensemble = dataclasses.replace(tuning.config.ensemble, metric="log_loss")
    with pytest.raises(RunError, match=r"trial_000: .*A tuning scores each fold: choose another ensemble.metric"):
        read_result(trial, dataclasses.replace(tuning.config, ensemble=ensemble))


def test_a_trial_whose_fold_was_deleted_goes_on(tmp_path):
    tuning = make_tuning(tmp_path / "search")
    trial = add_trial(tuning, 0, 0.5)
    shutil.rmtree(trial.folder.fold(1).root)
    assert read_result(trial, tuning.config).state == TrialState.INTERRUPTED
    assert Progress(tuning).todo == [0, 1, 2, 3]


def test_a_stopped_trial_that_was_trained_further_as_a_run_counts_as_whole(tmp_path):
    tuning = make_tuning(tmp_path / "search")
    trial = add_trial(tuning, 1, 0.5, waiting=(2,))
    assert read_result(trial, tuning.config).state == TrialState.STOPPED
    config = trial.folder.read_config()
    copy_run(trial.folder.root)  # as kfold.py would leave it
    trial.folder.write_config(config)
    result = read_result(trial, tuning.config)
    assert (result.state, result.folds, result.reason) == (TrialState.COMPLETE, (0, 1, 2), None)
    assert result.score > 0
    trial.folder.summary.unlink()
    assert read_result(trial, tuning.config).state == TrialState.INTERRUPTED  # killed before it was summed up


def test_a_tuning_goes_on_with_what_has_not_ended(tmp_path):
    tuning = make_tuning(tmp_path / "search")
    planned = {number: trial.fields for number, trial in Progress(Unplanned(tuning)).trials.items()}
    assert list(planned) == [0, 1, 2, 3]
    add_trial(tuning, 0, 0.5)
    add_trial(tuning, 2, 0.9, rate=planned[2]["optimizer.lr"], failed=(0,))
    progress = Progress(Unplanned(tuning))
    assert progress.todo == [1, 3]
    assert progress.trials[1].fields == planned[1]
    assert progress.trials[3].fields["optimizer.lr"] == planned[3]["optimizer.lr"]
    assert Progress(Unplanned(tuning), retries_failed=True).todo == [2, 1, 3]
    assert not progress.is_over()
    add_trial(tuning, 1, 0.5, rate=planned[1]["optimizer.lr"])
    add_trial(tuning, 3, 0.5, rate=planned[3]["optimizer.lr"])
    assert Progress(Unplanned(tuning)).is_over()
    more = dataclasses.replace(tuning, tune=dataclasses.replace(tuning.tune, num_trials=5))
    assert Progress(Unplanned(more)).todo == [4, 5]


class Unplanned:
    """A tuning whose trials' data is not looked at."""

    def __init__(self, tuning):
        self.tuning = tuning

    def __getattr__(self, name):
        return getattr(self.tuning, name)

    def plan_trial(self, trial):
        return trial.name


class Untrainable(Unplanned):
    """A tuning of which one trial's data cannot be read."""

    def plan_trial(self, trial):
        if trial.number == 2:
            raise DataError("no column 'likes'")
        return trial.name


def test_a_trial_whose_data_cannot_be_read_has_failed_and_is_listed(tmp_path):
    tuning, told = make_tuning(tmp_path / "search"), []
    untrainable = Untrainable(dataclasses.replace(tuning, tune=dataclasses.replace(tuning.tune, search="tpe")))
    progress = Progress(untrainable, tell=lambda trial, result: told.append((trial.number, result.reason)))
    names = []
    while upcoming := progress.take_next():
        names.append(upcoming[1])
    assert names == ["trial_000", "trial_001", "trial_003"]
    assert told == [(2, "no column 'likes'")]
    trials, results = read_all(tuning)
    assert {number: result.state for number, result in results.items()} == {2: TrialState.FAILED}
    assert trials[2].fields == progress.trials[2].fields
    again = Progress(Unplanned(untrainable.tuning), retries_failed=True)
    assert again.take_next()[0].number == 2
    assert not trials[2].folder.config.exists()  # so that it begins as a new one


def test_a_search_that_learns_knows_every_trial_that_has_ended():
    """On a bowl, TPE's trials gather at its bottom, wherever the recipe lies, and not where trials fail after one good
    fold."""
    config, tune = RECIPES["clip_multimodal_small"](), TuneConfig(search="tpe", space=LINES)
    space, fields, results = parse_space(LINES, config), {}, []
    for number in range(31):
        fields[number] = choose_fields(tune, space, config, number, fields, results)
        score = abs(np.log10(float(fields[number]["optimizer.lr"])) + 4)
        failed = score > 2.0
        result = Result(TrialState.FAILED, (0,), 0.0) if failed else Result(TrialState.COMPLETE, (0, 1, 2), score)
        results.append((Trial(number, fields[number], None), result))
    distances = [abs(np.log10(float(fields[number]["optimizer.lr"])) + 4) for number in range(11, 31)]
    assert np.mean(distances) < 0.8  # of random draws 1.25
    assert len({tuple(one.values()) for one in fields.values()}) == 31
    again = choose_fields(tune, space, config, 30, fields, results[:30])
    assert again == fields[30]  # nothing but the results decides


def test_halving_lets_the_better_part_train_the_next_fold():
    halving = Halving(2, 3)
    first = [halving.goes_on(f"t{number}", 1, score) for number, score in enumerate([0.5, 0.6, 0.4, 0.45, 0.9])]
    assert first == [True, False, True, True, False]
    assert [halving.goes_on(f"t{number}", 2, score) for number, score in ((0, 0.5), (2, 0.4), (3, 0.55))] == [
        True, True, False,
    ]  # fmt: skip
    assert halving.goes_on("t2", 3, 0.4)
    thirds = Halving(3, 5)
    for fold in range(1, 6):  # a rung after each fold
        assert thirds.goes_on("best", fold, 0.1)
        assert not thirds.goes_on(f"bad{fold}", fold, 0.2)


def test_the_scheduler_is_rebuilt_from_the_folders(tmp_path):
    tuning = make_tuning(tmp_path / "search")
    add_trial(tuning, 0, 0.3)
    add_trial(tuning, 1, 0.6, waiting=(1, 2))
    halving = rebuild_halving(Progress(Unplanned(tuning)))
    assert not halving.goes_on("trial_009", 1, 0.2)  # between 0.3² and 0.6², below the better half
    assert halving.goes_on("trial_010", 1, 0.05)
    assert not halving.goes_on("trial_011", 2, 0.2)


def test_the_best_is_compared_with_the_recipe_and_with_the_second(tmp_path, capsys):
    tuning = make_tuning(tmp_path / "search")
    for number, noise in ((0, 0.8), (1, 0.4), (2, 0.41)):
        add_trial(tuning, number, noise)
    add_trial(tuning, 3, 0.1, rate="0.02", waiting=(1, 2))  # one lucky fold is no best
    trials, results = read_all(tuning)
    outcome = compare_trials(tuning, trials, results)
    assert (outcome["best"], outcome["second"], outcome["is_better"]) == ("trial_001", "trial_002", True)
    assert outcome["improvement"] == pytest.approx(results[0].score - results[1].score)
    assert 0 < outcome["improvement_low"] < outcome["improvement"]
    assert outcome["second_low"] < outcome["second_difference"] < outcome["second_high"]
    assert outcome["second_difference"] == pytest.approx(results[1].score - results[2].score)
    assert outcome["score"] <= outcome["nested_score"] < outcome["recipe_score"]
    assert outcome["command"] == (
        "python ray_jobs/kfold.py training.epochs=24 optimizer.lr=0.01 model.dropout=0.3 run.name=search_best"
    )
    write_trials(tuning, [(trials[number], results[number]) for number in trials])
    with (tuning.folder.root / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == ["trial_001", "trial_002", "trial_000", "trial_003"]
    assert (rows[0]["optimizer.lr"], rows[0]["folds"], rows[3]["state"], rows[3]["fold_1"]) == (
        "0.01",
        "3",
        "stopped",
        "",
    )
    write_json(tuning.folder.tune, {"tune": dataclasses.asdict(tuning.tune), "outcome": outcome})
    print_tuning(open_console(), tuning)
    shown = capsys.readouterr().out
    assert "Better than the recipe as it is" in shown
    assert "flattered by luck" in shown
    assert shown.index("trial_001") < shown.index("trial_000 (recipe)")


def test_of_trials_that_folds_have_chosen_no_bound_is_given(tmp_path):
    tuning = make_tuning(tmp_path / "search")
    tuning = dataclasses.replace(tuning, tune=dataclasses.replace(tuning.tune, scheduler="asha"))
    for number, noise in ((0, 0.8), (1, 0.4)):
        add_trial(tuning, number, noise)
    outcome = compare_trials(tuning, *read_all(tuning))
    assert outcome["improvement"] == pytest.approx(outcome["recipe_score"] - outcome["score"])
    assert not {"improvement_low", "is_better", "nested_score"} & set(outcome)
    assert "How much of that is luck is not known" in " ".join(explain_tuning(outcome))


def test_luck_is_not_called_better(tmp_path):
    tuning = make_tuning(tmp_path / "search")
    for number in range(3):
        add_trial(tuning, number, 0.5)
    outcome = compare_trials(tuning, *read_all(tuning))
    assert not outcome["is_better"]
    text = " ".join(explain_tuning(outcome))
    assert "Not shown to be better" in text or "no trial was better" in text


def test_without_a_whole_trial_there_is_no_best_and_the_place_of_the_logs_is_shown(tmp_path, capsys):
    tuning = make_tuning(tmp_path / "search")
    add_trial(tuning, 0, 0.5, failed=(0, 1, 2))
    trials, results = read_all(tuning)
    assert results[0].state == TrialState.FAILED
    outcome = compare_trials(tuning, trials, results)
    assert explain_tuning(outcome) == ["No trial has trained all its folds: there is no best."]
    write_json(tuning.folder.tune, {"tune": dataclasses.asdict(tuning.tune), "outcome": outcome})
    print_tuning(open_console(), tuning)
    assert f"its logs: {tuning.folder.root}/trials/trial_000/log" in capsys.readouterr().out


def test_the_report_shows_every_trial(tmp_path):
    from ray_jobs.tuning.report import write_tuning_report_or_warn

    tuning = make_tuning(tmp_path / "search")
    add_trial(tuning, 0, 0.8)
    add_trial(tuning, 1, 0.4)
    trials, results = read_all(tuning)
    write_tuning_report_or_warn(tuning, trials, results, compare_trials(tuning, trials, results))
    page = tuning.folder.report.read_text()
    assert "trial_001" in page
    assert "the recipe as it is" in page
    for name in ("score_by_trial", "score_by_field"):
        assert (tuning.folder.figures / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_trial_shares_cache_and_inputs_with_its_tuning_and_the_storage(tmp_path):
    tuning = make_tuning(tmp_path / "search")
    trial = tuning.folder.of_trial("trial_000")
    assert trial.cache == RunFolder(tmp_path / "other").cache == tmp_path / ".kfold_cache"
    assert trial.inputs == tuning.folder.inputs == tmp_path / "search" / "inputs"
    other = RunFolder(tmp_path / "trials" / "run")  # a storage that happens to have that name
    assert other.cache == tmp_path / "trials" / ".kfold_cache"


def test_a_trial_is_one_run_in_wandb(tmp_path):
    tuning = make_tuning(tmp_path / "search")
    add_trial(tuning, 0, 0.5)
    (first,) = list_wandb_runs(tuning.folder, tuning.config)
    assert (first.name, first.group, first.job_type) == ("search_trial_000", "search", "trial")
    assert first.config["optimizer"]["lr"] == 0.004
    assert first.source.is_complete()
    add_trial(tuning, 1, 0.5)
    (second,) = list_wandb_runs(tuning.folder, tuning.config, known=["trial_000"])
    assert second.key == "trial_001"
    assert len({run.id for run in list_wandb_runs(tuning.folder, tuning.config)}) == 2


def test_other_jobs_tell_a_tuning_from_a_run(tmp_path, capsys):
    tuning = make_tuning(tmp_path / "search")
    add_trial(tuning, 0, 0.5)
    storage = f"run.storage={tmp_path}"
    with pytest.raises(RunError, match="is a tuning: expected a run; name one of its trials"):
        find_run("search", str(tmp_path))
    with pytest.raises(RunError, match="no run in this folder"):
        find_runs(str(tmp_path))
    assert find_run("trial_000", str(tuning.folder.trials)).name == "trial_000"
    assert show_status(["search", storage]) == 0
    assert "trial_000 (recipe)" in capsys.readouterr().out


def check(tmp_path, *, tune=None, **run):
    config = RECIPES["clip_multimodal_small"]()
    data = dataclasses.replace(config.trainer.data, max_rows=30)
    config = dataclasses.replace(config, trainer=dataclasses.replace(config.trainer, data=data))
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, storage=str(tmp_path), **run))
    tune = tune or TuneConfig(name="search", space=LINES)
    return check_tuning(config, tune, parse_space(tune.space, config), ["data.max_rows=30"])


def test_a_tuning_goes_on_only_as_it_began(tmp_path, write_data, small_frame):
    tuning = check(tmp_path)
    assert tuning.words == ["data.max_rows=30"]
    write_or_compare_tuning(tuning, ["tune.name=search"])
    write_or_compare_tuning(check(tmp_path, tune=TuneConfig(name="search", space=LINES, num_trials=40)), [])
    for change in ({"seed": 1}, {"space": LINES[:1]}, {"scheduler": "asha"}, {"search": "random"}):
        with pytest.raises(ConfigChangedError, match=rf"(?s)tune.{next(iter(change))}: .* another tune.name"):
            write_or_compare_tuning(check(tmp_path, tune=TuneConfig(**{"name": "search", "space": LINES} | change)), [])
    folder = tuning.folder
    known = json.loads(folder.provenance.read_text()) | {"data_fingerprint": "other"}
    del known["checksum"]
    write_json(folder.provenance, known, checksum=True)
    with pytest.raises(ConfigChangedError, match="its data changed"):
        write_or_compare_tuning(tuning, [])


def test_a_dry_run_tells_that_memory_is_short_for_the_folds_of_a_trial(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("ray_jobs.driver.session.find_free_bytes", lambda: 4 * 2**30)
    tuning = check(tmp_path)
    for scheduler, is_told in (("none", True), ("asha", False)):
        show_tuning(
            open_console(), dataclasses.replace(tuning, tune=dataclasses.replace(tuning.tune, scheduler=scheduler))
        )
        assert ("there is memory for 1 fold(s) at once" in " ".join(capsys.readouterr().out.split())) is is_told


def test_a_dry_run_tells_that_the_target_is_constant(tmp_path, write_data, small_frame, capsys):
    config = check(tmp_path).config
    data = dataclasses.replace(config.trainer.data, root=str(write_data(small_frame.assign(views=7))), max_rows=None)
    config = dataclasses.replace(config, trainer=dataclasses.replace(config.trainer, data=data))
    tune = TuneConfig(name="other", space=LINES)
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, name=None))
    assert run_tuning(Command(config, dry_run=True), tune, parse_space(LINES, config), []) == 0
    assert "target views is 7 in all 24 training rows" in " ".join(capsys.readouterr().out.split())


def test_a_recipe_with_members_is_tuned_without_them(tmp_path):
    command, tune = parse_tune(
        ["--config-name=clip_multimodal_small_ensemble", "data.max_rows=30", "tune.name=search"], ""
    )
    config = dataclasses.replace(command.config, run=dataclasses.replace(command.config.run, storage=str(tmp_path)))
    tuning = check_tuning(config, tune, parse_space(LINES, config), command.words)
    assert list(tuning.plan.members) == [MAIN]
    assert tuning.words == ["--config-name=clip_multimodal_small_ensemble", "data.max_rows=30", "members=[]"]
    assert parse_kfold(tuning.words).config.members == ()
    with pytest.raises(RunError, match="a trial trains one recipe"):
        parse_tune(["members=[wide model.hidden_dim=128]"], "")


def test_names_are_taken_once(tmp_path):
    copy_run(tmp_path / "search")
    with pytest.raises(RunError, match=r"is a run; choose another tune\.name"):
        check(tmp_path)
    with pytest.raises(RunError, match=r"tune\.name names the tuning"):
        check(tmp_path, name="other")
    tuning = check(tmp_path, tune=TuneConfig(name="second", space=LINES))
    write_or_compare_tuning(tuning, [])
    with pytest.raises(RunError, match=r"is a tuning, which tune.py continues"):
        run_kfold(Command(tuning.config, dry_run=False), [])


def test_trials_read_the_data_once_unless_that_is_what_is_tuned(tmp_path):
    lines = ("model.dropout choice 0.0 0.3", "data.text_columns choice [title] [title,description]")
    tuning = check(tmp_path, tune=TuneConfig(name="search", space=lines))
    same = tuning.plan_trial(tuning.make_trial(1, {"model.dropout": "0.0", "data.text_columns": "[title,description]"}))
    assert same.inventory is tuning.plan.inventory
    other = tuning.plan_trial(tuning.make_trial(2, {"model.dropout": "0.0", "data.text_columns": "[title]"}))
    again = tuning.plan_trial(tuning.make_trial(3, {"model.dropout": "0.3", "data.text_columns": "[title]"}))
    assert other.inventory is again.inventory is not tuning.plan.inventory
    assert other.inventory.tables["train"].texts[0] in same.inventory.tables["train"].texts[0]
    assert other.inventory.tables["train"].texts[0] != same.inventory.tables["train"].texts[0]
    assert other.folds is same.folds is tuning.plan.folds
    assert other.config.run.storage == str(tuning.folder.trials)
    assert other.config.tracking.wandb == "disabled"


def test_a_fold_that_trains_shows_its_trial_as_under_way(tmp_path, capsys):
    tuning = make_tuning(tmp_path / "search")
    trial = add_trial(tuning, 0, 0.5, ended=False, waiting=(1, 2))
    write_status(trial.folder, FoldStatus(1, state=FoldState.TRAINING, attempt=1))
    assert show_status(["search", f"run.storage={tmp_path}"]) == 0
    assert "interrupted" in capsys.readouterr().out  # no driver is at work
