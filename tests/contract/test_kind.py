"""What every kind of predictions has to do, asked of each folder of `ensemble/` that has a `kind.py`. A new one is
asked once `BUILDERS` says how a few predictions of it are written."""

from __future__ import annotations

import dataclasses
import importlib
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    jaccard_score,
    log_loss,
    mean_absolute_error,
    mean_squared_log_error,
)
from support.processes import REPOSITORY

from ensemble.answers.files import build_answer_table
from ensemble.classes.files import build_class_table
from ensemble.combination import Combination
from ensemble.config import EnsembleConfig
from ensemble.kinds import Kind, find_kinds
from ensemble.maps.combine import choose_classes
from ensemble.maps.files import build_map_table, encode_map, read_maps
from ensemble.members.comparison import compare_pair, compare_with_baseline, rank
from ensemble.numbers.scores import predict_constant
from ensemble.pictures import Picture
from ensemble.predictions import build_table
from ensemble.run import Combinable, Materials, Model, NoSubmissionError, Run
from ensemble.samples.files import build_loss_table as build_samples_table
from ensemble.token_losses.files import build_loss_table
from ray_jobs.reporting.report_figures import PICTURES
from trainers.predictions import Answer, AnsweredQuestion, TokenLosses

KINDS = find_kinds()
NUM_FOLDS, NUM_ROWS, NUM_TEST = 3, 8, 5
each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def build_numbers(ids: list[str], noise: float, rng: np.random.Generator, **of: object) -> pa.Table:
    target = np.array([float(sum(map(ord, row_id)) % 17 + 1) for row_id in ids])
    prediction = target * np.exp(rng.normal(0, noise, len(ids)))
    return build_table(np.array(ids), prediction, np.log1p(prediction), target, **of)


def build_maps(ids: list[str], noise: float, rng: np.random.Generator, **of: object) -> pa.Table:
    maps = []
    for row_id in ids:
        true = (np.random.default_rng(sum(map(ord, row_id))).random((6, 7)) < 0.4).astype(np.uint8)
        probability = (true * 0.6 + 0.2 + rng.normal(0, noise, true.shape)).clip(0, 1)
        maps.append(encode_map(row_id, probability[None].astype(np.float32), true))
    return build_map_table(maps, **of)


def build_classes(ids: list[str], noise: float, rng: np.random.Generator, **of: object) -> pa.Table:
    target = np.array([sum(map(ord, row_id)) % 3 for row_id in ids])
    powers = np.exp(2 * np.eye(3)[target] + rng.normal(0, 3 * noise, (len(ids), 3)))
    probability = powers / powers.sum(axis=1, keepdims=True)
    return build_class_table(np.array(ids), probability, target, ("cat", "dog", "emu"), **of)


def build_samples(ids: list[str], noise: float, rng: np.random.Generator, **of: object) -> pa.Table:
    times, error = np.empty((len(ids), 4)), rng.normal(0, noise, (len(ids), 4, 50)).astype(np.float16)
    for row, row_id in enumerate(ids):
        times[row] = np.sort(np.random.default_rng(sum(map(ord, row_id))).random(4))
    process = {"noise_scale": 1.0, "time_mean": -0.8, "time_spread": 0.8, "clamp": 0.05}
    loss, square = (error.astype(float) ** 2).mean(axis=2), np.full(len(ids), 0.5)
    return build_samples_table(np.array(ids), times, loss, square, error, process, {}, **of)


def build_token_losses(ids: list[str], noise: float, rng: np.random.Generator, **of: object) -> pa.Table:
    tokens = np.array([sum(map(ord, row_id)) % 5 + 2 for row_id in ids])
    nats = rng.gamma(2, noise, tokens.sum()).astype(np.float32)
    floor = np.where(np.arange(len(ids)) % 3 == 0, np.nan, 0.1)
    losses = TokenLosses(np.array(ids), tokens, nats, 4 * tokens, floor, 4.0 * tokens, 8, 4)
    return build_loss_table(losses, **of)


def score_numbers(path: Path) -> dict[str, float]:
    table = pq.read_table(path).to_pandas()
    return {
        "msle": mean_squared_log_error(table["target"], table["prediction"]),
        "mae": mean_absolute_error(table["target"], table["prediction"]),
    }


def score_maps(path: Path) -> dict[str, float]:
    maps = list(read_maps(path))
    said = np.concatenate([choose_classes(one.probability_CHW).ravel() for one in maps])
    true = np.concatenate([one.target_HW.ravel() for one in maps])
    return {"dice": f1_score(true, said), "iou": jaccard_score(true, said)}


def score_classes(path: Path) -> dict[str, float]:
    table = pq.read_table(path).to_pandas()
    probability = np.stack(table["probability"])
    return {
        "log_loss": log_loss(table["target_class"], probability, labels=range(3)),
        "accuracy": accuracy_score(table["target"], table["prediction"]),
    }


def build_answers(ids: list[str], noise: float, rng: np.random.Generator, **of: object) -> pa.Table:
    rows = []
    for row_id in ids:
        number = sum(map(ord, row_id))
        gold, said = str(number % 7), str(number % 7 if rng.random() > noise else (number + 1) % 7)
        answer = Answer(f"it is {said}", said, float(rng.integers(3)) / 2, said == gold)
        rows.append(AnsweredQuestion(row_id, "?", ("sum", "largest")[number % 2], gold, "sft_grpo", answer))
    return build_answer_table(rows, **of)


def score_answers(path: Path) -> dict[str, float]:
    table = pq.read_table(path).to_pandas()
    return {"accuracy": accuracy_score(table["target"], table["prediction"])}


def score_samples(path: Path) -> dict[str, float]:
    table = pq.read_table(path).to_pandas()
    time, loss = np.concatenate(table["t"]), np.concatenate(table["v_loss"])
    return {"v_loss": loss.mean(), "v_loss_bin_2": loss[(time >= 0.3) & (time < 0.45)].mean()}


def score_token_losses(path: Path) -> dict[str, float]:
    table = pq.read_table(path).to_pandas()
    every = torch.tensor(np.concatenate(table["token_nats"].to_list()).astype(np.float64))
    bits = every.sum() / np.log(2) / table["bytes"].sum()
    return {"perplexity": float(every.mean().exp()), "bits_per_byte": float(bits)}


# By kind: how predictions of some rows are written, and scores of a file by somebody else's code.
BUILDERS: dict[str, tuple[Callable[..., pa.Table], Callable[[Path], dict[str, float]]]] = {
    "number": (build_numbers, score_numbers),
    "map": (build_maps, score_maps),
    "classes": (build_classes, score_classes),
    "answers": (build_answers, score_answers),
    "samples": (build_samples, score_samples),
    "token_losses": (build_token_losses, score_token_losses),
}


class Files:
    """A fold's files, in one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def predictions(self, rows: str, checkpoint: str) -> Path:
        return self.root / f"{rows}_{checkpoint}.parquet"


@dataclasses.dataclass
class Made:
    """A kind, and a run of it with three members."""

    kind: Kind
    run: Run

    @property
    def path(self) -> Path:
        return self.run.members["main"][0].predictions("validation", "best")


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS)
def made(request, tmp_path_factory):
    kind, root = request.param, tmp_path_factory.mktemp("run")
    build, members = BUILDERS[kind.name][0], {}
    ids = {fold: [f"v{fold}_{n}" for n in range(NUM_ROWS)] for fold in range(NUM_FOLDS)}
    for number, name in enumerate(("main", "wide", "deep")):
        members[name] = []
        for fold in range(NUM_FOLDS):
            files = Files(root / name / str(fold))
            files.root.mkdir(parents=True)
            rng = np.random.default_rng([number, fold])
            of = {"fold": fold, "checkpoint": "best", "member": name}
            pq.write_table(build(ids[fold], 0.3, rng, **of), files.predictions("validation", "best"))
            pq.write_table(build([f"t{n}" for n in range(NUM_TEST)], 0.3, rng, **of), files.predictions("test", "best"))
            members[name].append(files)
    plan = pa.table(
        {"id": [row_id for own in ids.values() for row_id in own], "fold": np.repeat(np.arange(NUM_FOLDS), NUM_ROWS)}
    )
    metric = next(iter(kind.scores))
    ensemble = EnsembleConfig(metric=metric, method="mean")
    return Made(kind, Run(ensemble, members, NUM_FOLDS, tuple(members), plan, "target"))


def read_kept(made: Made, checkpoint: str = "best") -> tuple[np.ndarray, np.ndarray]:
    files = [fold.predictions("validation", checkpoint) for fold in made.run.members["main"]]
    return made.kind.split(pa.concat_tables(made.kind.measure(path, made.run.ensemble) for path in files))


def scores_of(made: Made) -> dict[str, float | None]:
    return made.kind.score(*read_kept(made), made.run.ensemble.metric)


@each_kind
def test_it_says_what_it_is_and_what_it_can(kind):
    assert kind.name in BUILDERS, "say in BUILDERS how a few predictions of it are written"
    assert kind.title
    assert kind.constant
    assert {"mean"} <= set(kind.methods)
    for name in kind.scores:
        metric = kind.describe_metric(name)
        assert (metric.name, metric.most is None or metric.higher_is_better) == (name, True)
    for how in kind.list_combinations(EnsembleConfig(metric=next(iter(kind.scores))), for_sweep=True):
        assert how.method in kind.methods
    with pytest.raises(ValueError, match=r"expected one of (dice|msle|log_loss|perplexity|v_loss|accuracy), "):
        kind.check_metric("no such metric")
    catalogue = importlib.import_module("docs.catalogue")
    named = [getattr(catalogue, name) for name in dir(catalogue) if name.isupper()]
    assert {moment for moment, _ in kind.records} <= {value for value in named if isinstance(value, str)}
    pictures = kind.load_pictures()
    assert {one for one in pictures if isinstance(one, str)} <= {picture.name for picture in PICTURES}
    names = [one.name if isinstance(one, Picture) else one for one in pictures]
    assert len(set(names)) == len(names)


@each_kind
def test_naming_it_loads_nothing_heavy(kind):
    code = f"import sys; from ensemble.kinds import load_kind; load_kind({kind.name!r}); "
    code += (
        "sys.exit(str({'torch', 'ray', 'pandas', 'scipy', 'sklearn', 'matplotlib', 'pyarrow'} & set(sys.modules) "
        "or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False, capture_output=True, text=True)
    assert not done.stderr.strip()


def test_scores_are_those_of_an_independent_computation(made):
    table = made.kind.measure(made.path, made.run.ensemble)
    assert table["id"].to_pylist() == [f"v0_{n}" for n in range(NUM_ROWS)]
    assert set(table["fold"].to_pylist()) == {0}
    assert set(table["member"].to_pylist()) == {"main"}
    scores = made.kind.score(*made.kind.split(table), made.run.ensemble.metric)
    assert set(made.kind.scores) <= set(scores)
    for name, value in BUILDERS[made.kind.name][1](made.path).items():
        assert scores[name] == pytest.approx(value)


def test_what_is_kept_survives_a_table(made):
    target_N, prediction_N = read_kept(made)
    again = made.kind.split(pa.table(made.kind.join(target_N, prediction_N)))
    for before, after in zip((target_N, prediction_N), again, strict=True):
        assert (before == after).all()
        assert before.dtype == after.dtype


def test_errors_are_scores_and_drawn_ones_those_of_drawn_rows(made):
    kind, metric = made.kind, made.run.ensemble.metric
    target_N, prediction_N = read_kept(made)
    read, value = kind.describe_metric(metric), scores_of(made)[metric]
    error = kind.measure_error(metric, target_N, prediction_N)
    assert error == pytest.approx(read.most - value if read.most is not None else value)
    errors_C, drawn_DC = kind.draw_errors(metric, target_N, prediction_N[None], num_draws=20)
    assert errors_C[0] == pytest.approx(error)
    rows_DN = np.random.default_rng(0).integers(len(target_N), size=(20, len(target_N)))
    expected = [kind.measure_error(metric, target_N[rows], prediction_N[rows]) for rows in rows_DN]
    np.testing.assert_allclose(drawn_DC[:, 0], expected)
    with pytest.raises(ValueError, match="at least 2 kinds"):
        kind.draw_errors(metric, target_N, prediction_N[None], np.zeros(len(target_N)))


def test_a_score_is_that_of_its_rows_in_any_order_and_from_any_parts(made):
    kind, metric = made.kind, made.run.ensemble.metric
    target_N, prediction_N = read_kept(made)
    whole = kind.score(target_N, prediction_N, metric)
    order = np.random.default_rng(0).permutation(len(target_N))
    parts = [(target_N[rows], prediction_N[rows]) for rows in np.array_split(order, 4)]
    joined = kind.score(*(np.concatenate(part) for part in zip(*parts, strict=True)), metric)
    assert joined == pytest.approx(whole)
    assert kind.score(np.concatenate([target_N] * 2), np.concatenate([prediction_N] * 2), metric) == pytest.approx(
        whole
    )


def test_the_constant_is_no_better_than_models_that_have_learned(made):
    kind, metric = made.kind, made.run.ensemble.metric
    target_N, _ = read_kept(made)
    constant = kind.predict_constant(target_N)
    constant_N = None if constant is None else np.array([constant] * len(target_N))
    scores, read = kind.score_constant(target_N, constant_N, metric), kind.describe_metric(metric)
    better, worse = (scores_of(made), scores) if read.higher_is_better else (scores, scores_of(made))
    assert better[metric] > worse[metric]
    if isinstance(constant, float):
        assert constant == predict_constant(target_N)


def test_columns_hold_what_each_member_is_worth_and_can_be_sent_elsewhere(made):
    columns = made.kind.read_columns(made.run, "best")
    assert isinstance(columns, Combinable)
    assert columns.names == ("main", "wide", "deep")
    assert columns.ids_N.tolist() == made.run.plan["id"].to_pylist()
    assert columns.fold_N.tolist() == made.run.plan["fold"].to_pylist()
    target_N, prediction_N = read_kept(made)
    assert (columns.target_N == target_N).all()
    assert (columns.oof_MN[0] == prediction_N).all()
    assert columns.take(("deep", "main")).names == ("deep", "main")
    assert pickle.loads(pickle.dumps(columns)).sum_up() == columns.sum_up()


def test_a_combination_of_equal_models_is_the_model_by_every_method(made):
    same = dataclasses.replace(made.run, members=dict.fromkeys(made.run.members, made.run.members["main"]))
    columns = made.kind.read_columns(same, "best")
    hows = [one for one in made.kind.list_combinations(same.ensemble, for_sweep=True) if one.method != "ridge"]
    for how, cross_fitted_N in zip(hows, columns.predict_cross_fitted(hows), strict=True):
        np.testing.assert_allclose(cross_fitted_N, columns.oof_MN[0], err_msg=str(how), rtol=1e-9)


def test_candidates_are_evaluated_together_as_alone(made):
    columns, metric = made.kind.read_columns(made.run, "best"), made.run.ensemble.metric
    hows = made.kind.list_combinations(made.run.ensemble, for_sweep=True)
    candidates = [(names, how) for names in (columns.names, ("main", "deep")) for how in hows]
    together = columns.evaluate(candidates)
    for (names, how), evaluation in zip(candidates, together, strict=True):
        own = columns.take(names)
        np.testing.assert_array_equal(evaluation.cross_fitted_N, own.predict_cross_fitted([how])[0])
        (alone,) = own.evaluate([(names, how)])
        np.testing.assert_array_equal(evaluation.inner_F, alone.inner_F)
        if not how.is_fitted:
            rest = columns.fold_N != 1
            error = made.kind.measure_error(metric, columns.target_N[rest], evaluation.cross_fitted_N[rest])
            assert evaluation.inner_F[1] == pytest.approx(error)


def test_of_folds_in_time_nothing_is_learned_from_later_ones(made):
    run = dataclasses.replace(made.run, fold_kind="time")
    columns, without = (made.kind.read_columns(one, "best") for one in (run, made.run))
    assert (columns.is_ordered, without.is_ordered) == (True, False)
    assert columns.sum_up() != without.sum_up()
    hows = made.kind.list_combinations(run.ensemble, for_sweep=False)
    plain = next(how for how in hows if how.method == "mean")
    evaluated = columns.evaluate([(columns.names, how) for how in (plain, *(how for how in hows if how.is_fitted))])
    first_N = columns.fold_N == 0
    for one in evaluated:
        assert np.isnan(one.inner_F).tolist() == [True] + [False] * (NUM_FOLDS - 1)
        np.testing.assert_allclose(one.cross_fitted_N[first_N], evaluated[0].cross_fitted_N[first_N])


def test_its_predictions_can_be_ranked_and_compared(made):
    columns, kind, metric = made.kind.read_columns(made.run, "best"), made.kind, made.run.ensemble.metric
    (mean_N,) = columns.predict_cross_fitted([kind.read_combination(made.run.ensemble)])
    everyone = np.stack([*columns.oof_MN, mean_N])
    ranking = rank(kind, metric, columns.target_N, everyone, range(3), num_draws=50)
    assert (ranking.low_C <= ranking.error_C).all()
    pair = compare_pair(kind, metric, columns.target_N, mean_N, columns.oof_MN[0], num_draws=50)
    assert pair.difference == pytest.approx(ranking.error_C[3] - ranking.error_C[0])
    better = compare_with_baseline(kind, metric, columns.target_N, everyone, columns.oof_MN[0], num_draws=50)
    assert better.improvement_C[0] == 0


@pytest.mark.parametrize("members", [("main",), ("main", "wide", "deep")])
def test_a_submission_has_a_line_for_each_test_row_and_its_facts(made, members):
    run = dataclasses.replace(made.run, members={name: made.run.members[name] for name in members})
    columns, written = made.kind.find_columns(run), {}
    own = {"folds": [{"best": scores_of(made)}] * NUM_FOLDS}
    labels = [{"fold": fold} for fold in range(NUM_FOLDS)] if run.combines_folds else [{"member": n} for n in members]
    materials = Materials(written.__setitem__, lambda table: lambda row_id: np.zeros((6, 7, 3), np.uint8))
    models = [Model(label, {}) for label in labels]
    submission = made.kind.submit(run, columns, lambda: dict.fromkeys(members, own), models, materials)
    assert submission.header[:2] == ["ID", "target"]
    assert [line[0] for line in submission.rows] == [f"t{n}" for n in range(NUM_TEST)]
    assert submission.table.column_names[:6] == ["id", *(f"model_{n}" for n in range(3)), "prediction", "std"]
    needed = "method n_models checkpoints test_samples weights model_weights prediction_diversity final_pred_mean"
    assert set(needed.split()) <= set(submission.facts)
    assert (submission.facts["n_models"], submission.facts["test_samples"]) == (3, NUM_TEST)
    assert ("fold_method" in submission.facts) == (len(members) > 1)
    assert made.kind.describe_scale(submission.facts) is not None
    assert set(made.kind.row_files) == {name.split("/")[0] for name in written}
    combiner = pickle.loads(pickle.dumps(made.kind.build_combiner(run, lambda: dict.fromkeys(members, own))))
    assert combiner.list_columns("target", shows_models=True)[0] == "target"


def test_without_test_rows_nothing_is_submitted(made, tmp_path):
    run = dataclasses.replace(made.run, members={"main": [Files(tmp_path)] * NUM_FOLDS})
    materials = Materials(lambda name, content: None, lambda table: lambda row_id: np.zeros(1))
    with pytest.raises(NoSubmissionError, match="the data has no test"):
        made.kind.submit(run, None, dict, [], materials)


def test_its_combinations_are_told_apart_by_their_names(made):
    hows = made.kind.list_combinations(made.run.ensemble, for_sweep=True)
    assert len(set(map(str, hows))) == len(hows)
    assert made.kind.read_combination(made.run.ensemble) in hows
    assert all(isinstance(how, Combination) for how in hows)
