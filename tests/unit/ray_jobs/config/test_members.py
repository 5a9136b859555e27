"""Members: how they are written, resolved, combined, scored and submitted, and columns that were made elsewhere."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import mean_squared_log_error
from support.made_run import make_run

from ensemble.config import FITTED_METHODS, METHODS, EnsembleConfig
from ensemble.members.cv_plus import bound_coverage
from ensemble.numbers.intervals import predict_intervals
from ensemble.predictions import PredictionError
from ray_jobs.cli.command_line import parse_kfold
from ray_jobs.cli.console import open_console
from ray_jobs.config.json_fields import to_json
from ray_jobs.config.members import resolve_members
from ray_jobs.config.run import from_dict, to_dict
from ray_jobs.errors import ConfigChangedError, RunError
from ray_jobs.planning.checks import check_run
from ray_jobs.planning.continuation import write_or_compare
from ray_jobs.reporting.html_report import write_report
from ray_jobs.reporting.outcome import print_outcome
from ray_jobs.results.checks import check_ensemble
from ray_jobs.results.run_files import describe_run
from ray_jobs.results.stage import run_ensemble_stage
from ray_jobs.results.wording import explain_cross_fitting
from ray_jobs.runs.files import read_parquet, write_json
from ray_jobs.runs.folder import RunFolder
from ray_jobs.worker.worker import read_plan

WIDE = "wide model.hidden_dim=128"


def test_a_member_is_the_recipe_with_what_is_said_and_shares_its_rows():
    words = [
        "members=[wide model.hidden_dim=128 training.seed=3, titles data.text_columns=[title,year]]",
        "folds.count=4",
    ]
    config = parse_kfold(words).config
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config
    members = resolve_members(config)
    assert list(members) == ["main", "wide", "titles"] == config.member_names
    assert members["main"] == config
    wide = members["wide"]
    assert (wide.trainer.model.hidden_dim, wide.trainer.training.seed, wide.folds.count) == (128, 3, 4)
    assert members["titles"].trainer.data.text_columns == ("title", "year")
    assert replace(wide.trainer, model=config.trainer.model, training=config.trainer.training) == config.trainer


def test_a_member_of_another_recipe_has_its_model_and_the_data_of_the_run():
    config = parse_kfold(["members=[big clip_multimodal_b32 optimizer.lr=1e-3]", "data.target=price"]).config
    big = resolve_members(config)["big"]
    assert (big.recipe, big.trainer.model.clip, big.trainer.optimizer.lr) == ("clip_multimodal_b32", "ViT-B-32", 1e-3)
    assert big.trainer.data == config.trainer.data


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("a model.hiden_dim=3", "no field 'model.hiden_dim'; nearest: model.hidden_dim"),
        ("a clip_multimodl", "no recipe 'clip_multimodl': expected one of clip_multimodal"),
        ("a data.root=/other", "data.root=/other: expected none, as in the run"),
        ("a folds.count=5", "folds.count=5: expected 3, as in the run"),
        ("a model.dropout=2", "expected a share, at least 0 and below 1"),
    ],
)
def test_a_member_that_cannot_be_is_refused_by_name(member, message):
    with pytest.raises(RunError, match=r"--members: 'a': ") as error:
        resolve_members(parse_kfold([f"members=[{member}]"]).config)
    assert message in str(error.value)


def test_a_member_with_another_folds_seed_repeats_the_cross_validation_on_a_division_of_its_own(
    tmp_path, small_frame, write_data
):
    root = write_data(small_frame)
    words = [f"data.root={root}", f"run.storage={tmp_path / 'runs'}", "run.name=x"]
    words.append("members=[again folds.seed=7, seed1 training.seed=1]")
    said = []
    plan = write_or_compare(check_run(parse_kfold(words).config, None), [], said.append)
    folders = {name: member.folder for name, member in plan.members.items()}
    assert (plan.members["again"].folds.fold != plan.folds.fold).any()
    assert plan.members["seed1"].folds is plan.folds
    divided = {name: read_plan(own, 3, ordered=False).fold for name, own in folders.items()}
    assert (divided["again"] == plan.members["again"].folds.fold).all()
    assert (divided["seed1"] == plan.folds.fold).all()
    folders["again"].own_fold_plan.write_bytes(b"torn")
    write_or_compare(check_run(parse_kfold(words).config, None), [], said.append)
    (line,) = said
    assert "members/again/fold_plan.parquet is damaged: it is written anew" in line
    assert (read_plan(folders["again"], 3, ordered=False).fold == divided["again"]).all()
    words[-1] = words[-1].replace("folds.seed=7", "folds.seed=8")
    with pytest.raises(ConfigChangedError, match=r"folds.seed: 7 in the run, 8 now\n.*give the member another name"):
        write_or_compare(check_run(parse_kfold(words).config, None), [], said.append)
    with pytest.raises(RunError, match=r"it decides which rows folds.blend_fraction=0.2 holds out"):
        check_run(parse_kfold([*words, "folds.blend_fraction=0.2"]).config, None)


def test_members_have_columns_in_one_file_and_their_combination_is_scored_on_rows_that_no_member_saw(tmp_path):
    folder, _, summary = make_run(tmp_path / "run", members=(WIDE, "deep", "odd training.seed=1"))
    oof = pq.read_table(folder.oof).to_pandas()
    assert oof.groupby("member", sort=False).size().to_dict() == {"main": 180, "wide": 180, "deep": 180, "odd": 180}
    wide = oof.pivot(index="id", columns="member", values="prediction")
    target = oof.drop_duplicates("id").set_index("id")["target"].loc[wide.index]
    rows = {row.name: row for row in summary.stage.combinations.rows}
    mean = np.expm1(np.log1p(wide).mean(axis=1))
    assert rows["mean, z space"].error == pytest.approx(mean_squared_log_error(target, mean), rel=1e-12)
    assert rows["mean, z space"].submitted
    singles = {name: mean_squared_log_error(target, wide[name]) for name in wide}
    assert summary.stage.combinations.best_member == min(singles, key=singles.get)
    for name, error in singles.items():
        assert rows[name].error == pytest.approx(error, rel=1e-12)
        assert summary.stage.members[name].out_of_fold.best["msle"] == pytest.approx(error, rel=1e-12)
    assert set(rows) == {
        *singles,
        *(f"{method}{' 0.2' * (method == 'trimmed_mean')}, z space" for method in (*METHODS, *FITTED_METHODS)),
    }
    for method in FITTED_METHODS:  # members that err independently: every one of them helps
        row = rows[f"{method}, z space"]
        assert row.difference_high < 0
        assert row.low < row.error < row.high


def test_what_the_members_differing_is_worth_is_told(tmp_path):
    folder, config, summary = make_run(tmp_path / "run", members=(WIDE, "deep"), num_epochs=1)
    diversity = summary.stage.combinations.diversity
    mean = next(row.error for row in summary.stage.combinations.rows if row.name == "mean, z space")
    assert diversity["ensemble_error"] == pytest.approx(mean, rel=1e-9)
    assert diversity["member_error"] - diversity["ambiguity"] == pytest.approx(mean, rel=1e-9)
    assert 2.5 < diversity["effective_models"] <= 3  # they err independently
    assert [one["name"] for one in diversity["contributions"]] == ["main", "wide", "deep"]
    assert all(one["low"] < one["contribution"] < one["high"] for one in diversity["contributions"])
    page = write_report(folder, config, summary).read_text()
    assert "3 models amount to" in page
    assert f"{diversity['contributions'][1]['contribution']:+.4f}" in page
    json.loads(json.dumps(to_json(summary)), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@pytest.mark.parametrize("method", [*METHODS, *FITTED_METHODS])
def test_every_method_submits_the_members(tmp_path, method):
    ensemble = EnsembleConfig(method=method)
    folder, _, summary = make_run(tmp_path / "run", members=(WIDE,), ensemble=ensemble, num_epochs=1)
    submission = summary.stage.submission.facts
    assert (submission["method"], submission["n_models"], submission["fold_method"]) == (method, 2, "mean")
    assert [model["member"] for model in submission["model_weights"]] == ["main", "wide"]
    table = pq.read_table(folder.test_predictions)
    models = np.log1p(np.stack([table["model_0"].to_numpy(), table["model_1"].to_numpy()]))
    folds = [pd.read_parquet(folder.fold(fold).predictions("test", "best"))["prediction"] for fold in range(3)]
    np.testing.assert_allclose(models[0], np.mean(np.log1p(folds), axis=0))
    expected = models.mean(axis=0) if submission["weights"] is None else submission["weights"] @ models
    np.testing.assert_allclose(np.log1p(table["prediction"].to_numpy()), expected + submission.get("intercept", 0))


def test_chosen_members_are_combined_and_one_alone_as_a_run_without_others(tmp_path):
    folder, config, _ = make_run(tmp_path / "run", members=(WIDE, "deep"), num_epochs=1)
    for chosen, models in ((("deep", "main"), ["deep", "main"]), (("wide",), [0, 1, 2])):
        write_json(folder.config, to_dict(replace(config, ensemble=EnsembleConfig(members=chosen))))
        stage = run_ensemble_stage(str(folder.root))
        label = "member" if len(chosen) > 1 else "fold"
        assert [model[label] for model in stage.submission.facts["model_weights"]] == models
    alone = [
        pd.read_parquet(folder.of_member("wide").fold(f).predictions("test", "best"))["prediction"] for f in range(3)
    ]
    final = pq.read_table(folder.test_predictions)["prediction"].to_numpy()
    np.testing.assert_allclose(final, np.expm1(np.mean(np.log1p(alone), axis=0)))


def test_a_member_that_is_not_finished_is_named_with_what_to_do(tmp_path):
    folder, _, _ = make_run(tmp_path / "run", members=(WIDE,), num_epochs=1)
    folder.of_member("wide").fold(1).manifest.unlink()
    submission = run_ensemble_stage(str(folder.root)).submission
    assert not submission.created
    assert "folds [1] of member wide are not trained" in submission.reason
    assert "ensemble.members=[main] leaves it out" in submission.reason


def test_the_outcome_shows_members_and_combinations_by_error(tmp_path, capsys):
    folder, _, summary = make_run(tmp_path / "run", members=(WIDE,), num_epochs=1)
    print_outcome(open_console(), folder, summary)
    shown = capsys.readouterr().out
    names = [row.name for row in sorted(summary.stage.combinations.rows, key=lambda row: row.error)]
    places = [shown.index(f"\n{name} ", shown.index("out-of-fold rows")) for name in names]
    assert places == sorted(places)
    assert "mean, z space <- submitted" in shown
    assert "a small leak of the second level remains" in shown


def write_external(folder: RunFolder, path, **changes) -> None:
    """A member `boosted`, made of main's columns."""
    oof = pq.read_table(folder.oof).to_pandas()
    test = pd.concat([pd.read_parquet(folder.fold(fold).predictions("test", "best")) for fold in range(3)])
    table = pd.concat([oof[oof["member"] == "main"], test]).assign(member="boosted")
    table["prediction"] *= 1.1
    table = table.assign(**{name: make(table) for name, make in changes.items() if name in table})
    table = changes["rows"](table) if "rows" in changes else table
    pq.write_table(pa.Table.from_pandas(table, preserve_index=False), path)


def test_columns_made_elsewhere_join_the_members(tmp_path):
    folder, config, _ = make_run(tmp_path / "run", num_epochs=1)
    write_external(folder, tmp_path / "boosted.parquet")
    ensemble = EnsembleConfig(method="simplex", external=str(tmp_path / "boosted.parquet"))
    write_json(folder.config, to_dict(replace(config, ensemble=ensemble)))
    stage = run_ensemble_stage(str(folder.root))
    assert [model["member"] for model in stage.submission.facts["model_weights"]] == ["main", "boosted"]
    rows = {row.name: row.error for row in stage.combinations.rows}
    assert {"main", "boosted", "simplex, z space"} <= set(rows)
    table = pq.read_table(folder.test_predictions)
    ratio = np.expm1(np.log1p(table["model_1"].to_numpy())) / table["model_0"].to_numpy()
    assert (ratio > 1).all()
    assert (ratio < 1.1 + 1e-9).all()  # a mean in z space of predictions that are 1.1 as large


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fold": lambda t: (t["fold"] + 1) % 3}, "180 rows are validated by another fold"),
        ({"in_sample": lambda t: True}, "in_sample=true"),
        ({"member": lambda t: "main"}, "is a member of the run, too"),
        ({"prediction": lambda t: t["prediction"] * np.nan}, "NaN or infinite"),
        ({"rows": lambda t: t.iloc[1:]}, "has 179 out-of-fold predictions"),
        ({"rows": lambda t: pd.concat([t, t.iloc[:2]])}, "2 ids more than once"),
        ({"rows": lambda t: t[t["target"].notna()]}, "no prediction of a test row"),
        ({"rows": lambda t: t.drop(columns="fold")}, "no column 'fold'"),
    ],
)
def test_columns_made_elsewhere_that_are_not_out_of_fold_are_refused(tmp_path, changes, message):
    folder, config, _ = make_run(tmp_path / "run", num_epochs=1)
    path = tmp_path / "boosted.parquet"
    write_external(folder, path, **changes)
    write_json(folder.config, to_dict(replace(config, ensemble=EnsembleConfig(external=str(path)))))
    with pytest.raises(PredictionError, match=message):
        run_ensemble_stage(str(folder.root))


def test_a_file_of_which_no_member_is_combined_is_refused(tmp_path):
    """One model alone would be left, of which nothing can be left out."""
    folder, config, _ = make_run(tmp_path / "run", num_epochs=1)
    path = tmp_path / "boosted.parquet"
    write_external(folder, path)
    chosen = replace(config, ensemble=EnsembleConfig(external=str(path), members=("main",)))
    with pytest.raises(PredictionError, match=r"boosted.parquet has boosted; add one, or set ensemble.external=none"):
        check_ensemble(chosen, read_parquet(folder.fold_plan), lambda: np.ones(2))
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    with pytest.raises(PredictionError, match=r"boosted.parquet has none; .* set ensemble.external=none"):
        check_ensemble(
            replace(config, ensemble=EnsembleConfig(external=str(path))),
            read_parquet(folder.fold_plan),
            lambda: np.ones(2),
        )


@pytest.mark.parametrize("method", ["mean", *FITTED_METHODS])
def test_the_only_model_of_a_run_without_folds_is_scored_on_a_blend_set(tmp_path, method):
    ensemble = EnsembleConfig(method=method)
    folder, config, summary = make_run(tmp_path / "run", num_folds=1, num_blend=60, num_epochs=1, ensemble=ensemble)
    combinations = summary.stage.combinations
    assert (combinations.scored_on, combinations.num_rows) == ("blend", 60)
    assert combinations.diversity["contributions"] == []
    print_outcome(open_console(), folder, summary)
    write_report(folder, config, summary)
    assert "amount to" not in folder.report.read_text()


@pytest.mark.parametrize("method", ["mean", *FITTED_METHODS])
def test_members_of_a_run_without_folds_are_scored_on_parts_of_the_rows_that_validate(tmp_path, method):
    ensemble = EnsembleConfig(method=method)
    folder, config, summary = make_run(tmp_path / "run", num_folds=1, members=(WIDE,), num_epochs=1, ensemble=ensemble)
    combinations = summary.stage.combinations
    assert (combinations.scored_on, combinations.num_rows) == ("out_of_fold", 60)
    assert "each fifth of the rows, drawn at random, by weights from the others" in explain_cross_fitting(combinations)
    of_time = replace(combinations, scored_on="blend", fold_kind="time")
    assert "of the blend set, drawn at random, not in the order of time, by" in explain_cross_fitting(of_time)
    columns = config.kind.read_columns(describe_run(folder, config), "best")
    assert (np.unique(columns.fold_N, return_counts=True)[1].tolist(), columns.is_ordered) == ([12] * 5, False)
    plan = read_parquet(folder.fold_plan).append_column("group", pa.array([0] * 60))
    with pytest.raises(RunError, match=r"one group of rows validates: .* raise folds.holdout_fraction"):
        check_ensemble(config, plan, lambda: np.ones(2))


def test_weights_are_scored_in_the_order_of_time_where_the_folds_have_one(tmp_path):
    folder, config, summary = make_run(tmp_path / "run", members=(WIDE,), num_epochs=1)
    assert summary.stage.combinations.weights_from == "other_folds"
    config = replace(config, folds=replace(config.folds, kind="time"))
    write_json(folder.config, to_dict(config))
    combinations = run_ensemble_stage(str(folder.root)).combinations
    assert config.kind.read_columns(describe_run(folder, config), "best").is_ordered
    assert "each fold by weights from the earlier folds" in explain_cross_fitting(combinations)
    one, other = ({row.name: row.error for row in each.rows} for each in (combinations, summary.stage.combinations))
    assert one["mean, z space"] == other["mean, z space"]
    assert one["simplex, z space"] != other["simplex, z space"]


@pytest.mark.parametrize("method", ["mean", "weighted_mean", *FITTED_METHODS])
def test_fold_models_are_weighted_and_scored_on_a_blend_set_that_none_has_seen(tmp_path, method):
    ensemble = EnsembleConfig(method=method)
    folder, _, summary = make_run(tmp_path / "run", num_blend=300, num_epochs=1, ensemble=ensemble)
    combinations = summary.stage.combinations
    assert (combinations.scored_on, combinations.num_rows) == ("blend", 300)
    models = [pd.read_parquet(folder.fold(fold).predictions("blend", "best")) for fold in range(3)]
    assert (models[0]["target"] > 0).all()
    rows = {row.name: row for row in combinations.rows}
    for fold, model in enumerate(models):
        error = mean_squared_log_error(model["target"], model["prediction"])
        assert rows[f"fold_{fold}"].error == pytest.approx(error, rel=1e-12)
    mean = np.expm1(np.mean([np.log1p(model["prediction"]) for model in models], axis=0))
    assert rows["mean, z space"].error == pytest.approx(mean_squared_log_error(models[0]["target"], mean), rel=1e-12)
    submission = summary.stage.submission.facts
    assert [model["fold"] for model in submission["model_weights"]] == [0, 1, 2]
    if method in ("simplex", "greedy", "weighted_mean"):  # fold 2 errs upwards by 0.2, fold 0 does not
        assert submission["weights"][0] > submission["weights"][2]
    combined = pq.read_table(folder.honest_predictions).to_pandas()
    error = mean_squared_log_error(combined["target"], combined["prediction"])
    assert error == pytest.approx(combinations.submitted.error, rel=1e-12)


def test_without_a_blend_set_fold_models_are_not_scored_together(tmp_path):
    folder, config, summary = make_run(tmp_path / "run", num_epochs=1)
    assert summary.stage.combinations is None
    with pytest.raises(PredictionError, match=r"add members, or train a run with folds.blend_fraction=0.1"):
        config.kind.read_columns(describe_run(folder, config), "best")


@pytest.mark.parametrize("members", [(), (WIDE,)])
def test_an_interval_stands_beside_each_prediction_and_says_what_is_behind_it(tmp_path, members):
    ensemble = EnsembleConfig(interval=0.9, checkpoint="final")
    folder, _, summary = make_run(tmp_path / "run", num_rows=400, members=members, ensemble=ensemble, num_epochs=1)
    table = pd.read_csv(folder.submission("mean"))
    assert list(table) == ["ID", "price", "price_low", "price_high"]
    assert (table["price_low"] < table["price"]).mean() > 0.99
    assert (table["price"] < table["price_high"]).mean() > 0.99
    facts = summary.stage.submission.facts["interval"]
    assert (facts["level"], facts["kind"]) == (0.9, "cv+")
    assert facts["guaranteed"] == pytest.approx(bound_coverage(0.9, 1200, 3))
    truth = np.expm1(np.random.default_rng(99).normal(4, 1.2, 40).clip(0))
    covered = ((table["price_low"] <= truth) & (truth <= table["price_high"])).mean()
    assert covered > 0.75
    if members:  # the fold's models of all members, combined, are what the residuals are of
        oof = pd.read_parquet(folder.oof).query("checkpoint == 'final'")
        z = np.log1p(oof.pivot(index="id", columns="member", values="prediction")).mean(axis=1)
        target = oof.drop_duplicates("id").set_index("id").loc[z.index]
        tests = [
            np.mean([np.log1p(pd.read_parquet(own.fold(fold).predictions("test", "final"))["prediction"]) for own in
                     (folder, folder.of_member("wide"))], axis=0) for fold in range(3)
        ]  # fmt: skip
        low, high = predict_intervals(np.expm1(tests), np.expm1(z), target["target"], target["fold"], 0.9)
        np.testing.assert_allclose(table["price_low"], low)
        np.testing.assert_allclose(table["price_high"], high)


@pytest.mark.parametrize(
    "changes", [{"checkpoint": "best"}, {"method": "simplex", "checkpoint": "final"}, {"method": "simplex"}]
)
def test_an_interval_without_the_conditions_of_the_theorem_is_called_empirical(tmp_path, changes):
    ensemble = EnsembleConfig(interval=0.9, **changes)
    _, _, summary = make_run(tmp_path / "run", members=(WIDE,), ensemble=ensemble, num_epochs=1)
    assert summary.stage.submission.facts["interval"]["kind"] == "empirical"
    assert summary.stage.submission.facts["interval"]["guaranteed"] is None


def test_an_interval_of_a_member_on_another_division_is_called_empirical(tmp_path):
    """Its models have seen rows that the others' residuals come from."""
    ensemble = EnsembleConfig(interval=0.9, checkpoint="final")
    folder, _, summary = make_run(tmp_path / "run", members=("again folds.seed=7",), ensemble=ensemble, num_epochs=1)
    assert summary.stage.submission.facts["interval"]["kind"] == "cv+"
    shutil.copyfile(folder.fold_plan, folder.of_member("again").own_fold_plan)
    facts = run_ensemble_stage(str(folder.root)).submission.facts["interval"]
    assert (facts["kind"], facts["guaranteed"]) == ("empirical", None)


def test_no_interval_is_given_from_folds_in_the_order_of_time():
    config = parse_kfold(["ensemble.interval=0.9", "folds.kind=time"]).config
    with pytest.raises(RunError, match=r"folds.kind=time: expected another kind of folds with ensemble.interval"):
        check_ensemble(config, pa.table({"id": ["a"], "fold": [0]}), lambda: np.ones(1))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ensemble.metric=msel"], r"expected one of msle, .*, or the name of a scikit-learn scorer"),
        (["ensemble.metric=log_loss"], "log_loss needs probabilities"),
        (
            ["ensemble.metric=r2", "ensemble.method=weighted_mean", "members=[a training.seed=1]"],
            "expected an error such as msle",
        ),
        (["ensemble.external=/nowhere.parquet"], "no such file"),
        (
            ["ensemble.method=greedy", "folds.kind=predefined", "data.fold_column=fold"],
            "expected several members, a blend set",
        ),
    ],
)
def test_what_could_only_fail_after_the_training_is_refused_before_it(
    tmp_path, small_frame, write_data, words, message
):
    root = write_data(small_frame.assign(fold=small_frame.index % 3))
    with pytest.raises((RunError, PredictionError), match=message):
        check_run(parse_kfold([f"data.root={root}", f"run.storage={tmp_path / 'runs'}", *words]).config, None)


def test_members_are_compared_by_a_scorer_of_scikit_learn(tmp_path):
    _, _, summary = make_run(tmp_path / "run", members=(WIDE,), ensemble=EnsembleConfig(metric="r2"), num_epochs=1)
    rows = {row.name: row.error for row in summary.stage.combinations.rows}
    assert -1 < rows["greedy, z space"] < min(rows["main"], rows["wide"]) + 0.05
    assert not any(name.startswith("weighted_mean") for name in rows)


def test_seeds_train_every_member_again_under_seeds_that_follow_from_its_own():
    words = ["members=[wide model.hidden_dim=128 training.seed=3]", "ensemble.seeds=3"]
    config = parse_kfold(words).config
    members = resolve_members(config)
    assert list(members) == ["main", "main.seed1", "main.seed2", "wide", "wide.seed1", "wide.seed2"]
    assert list(members) == config.member_names
    assert members["main"] == config
    seeds = [own.trainer.training.seed for own in members.values()]
    assert (seeds[0], seeds[3]) == (0, 3)
    assert len(set(seeds)) == 6
    again = members["wide.seed2"]
    assert again.trainer.training == replace(members["wide"].trainer.training, seed=seeds[5])
    assert (again.trainer.model, again.run.name) == (members["wide"].trainer.model, "wide.seed2")
    assert members["wide"].run.name == "wide"
    assert resolve_members(again) == {"main": again}
    more = resolve_members(replace(config, ensemble=replace(config.ensemble, seeds=4)))
    assert {name: more[name] for name in members if name != "main"} == {n: o for n, o in members.items() if n != "main"}


@pytest.mark.parametrize("seeds", ["0", "101", "two"])
def test_a_number_of_seeds_that_is_none_is_refused(seeds):
    with pytest.raises((RunError, ValueError), match=r"ensemble.seeds"):
        parse_kfold([f"ensemble.seeds={seeds}"])


def test_a_family_that_does_not_name_its_seed_is_trained_once(monkeypatch):
    config = parse_kfold(["ensemble.seeds=2"]).config
    monkeypatch.delattr(type(config.trainer), "SEED")
    with pytest.raises(RunError, match=r"the family clip_regression does not say which of its fields is the seed"):
        resolve_members(config)


def test_seeds_are_scored_together_as_one_member_and_their_spread_is_told(tmp_path):
    once, _, before = make_run(tmp_path / "once", members=(WIDE,))
    folder, config, summary = make_run(tmp_path / "run", members=(WIDE,), ensemble=EnsembleConfig(seeds=3))
    rows = {row.name: row for row in summary.stage.combinations.rows}
    assert [row.name for row in summary.stage.combinations.rows if row.kind == "member"] == ["main", "wide"]
    oof = pq.read_table(folder.oof).to_pandas().pivot(index="id", columns="member", values="prediction")
    target = pq.read_table(folder.oof).to_pandas().drop_duplicates("id").set_index("id")["target"].loc[oof.index]
    trainings = ["wide", "wide.seed1", "wide.seed2"]
    mean = np.expm1(np.log1p(oof[trainings]).mean(axis=1))
    assert rows["wide"].error == pytest.approx(mean_squared_log_error(target, mean), rel=1e-12)
    alone = [mean_squared_log_error(target, oof[name]) for name in trainings]
    assert rows["wide"].seed_errors == pytest.approx(alone, rel=1e-12)
    assert rows["wide"].seed_std == pytest.approx(np.std(alone, ddof=1))
    everyone = np.expm1(np.log1p(oof).mean(axis=1))
    assert rows["mean, z space"].error == pytest.approx(mean_squared_log_error(target, everyone), rel=1e-12)
    assert len(rows["mean, z space"].seed_errors) == 3
    assert rows["mean, z space"].submitted
    assert summary.stage.combinations.num_seeds == 3
    text = folder.readme.read_text()
    assert "Each member is 3 trainings with other seeds, and the intervals hold what another seed changes" in text
    assert f"wide {rows['wide'].seed_std:.4f}" in text
    assert "over rows only" in once.readme.read_text()
    assert before.stage.combinations.num_seeds == 1
    write_report(folder, config, summary)
    assert (folder.figures / "seeds.png").exists()
    assert "The same with other seeds" in folder.report.read_text()


def test_one_member_with_seeds_is_their_mean(tmp_path):
    folder, _, summary = make_run(tmp_path / "run", ensemble=EnsembleConfig(seeds=2))
    oof = pq.read_table(folder.oof).to_pandas().pivot(index="id", columns="member", values="prediction")
    assert list(oof) == ["main", "main.seed1"]
    rows = {row.name: row for row in summary.stage.combinations.rows}
    assert rows["mean, z space"].error == pytest.approx(rows["main"].error, rel=1e-12)
    assert summary.stage.submission.facts["n_models"] == 2
