"""Losses of generative models: what a mean of models comes to, standard errors, and what is not compared."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

from ensemble.config import EnsembleConfig
from ensemble.run import Materials
from ensemble.samples.columns import SampleColumns, _read_models
from ensemble.samples.figures import draw_loss_by_time
from ensemble.samples.files import build_loss_table
from ensemble.samples.gallery import draw_samples, measure_agreement
from ensemble.samples.kind import KIND
from ensemble.samples.metrics import describe_bins, draw_errors, measure_error
from ensemble.samples.outcome import describe_losses
from ensemble.samples.sample_files import build_sample_table

PROCESS = {"noise_scale": 1.0, "time_mean": -0.8, "time_spread": 0.8, "clamp": 0.05}
IDS = np.array([f"r{number}" for number in range(300)])


def write_model(path, error_NSP, order=slice(None), **process):
    times = np.random.default_rng(0).random(error_NSP.shape[:2])
    error = error_NSP.astype(np.float16)
    loss, square = (error.astype(float) ** 2).mean(axis=2), np.full(len(times), 0.4)
    table = build_loss_table(
        IDS, times, loss, square, error, PROCESS | process, {"floor": loss / 4}, fold=0, checkpoint="best"
    )
    pq.write_table(table.take(np.arange(len(IDS))[order]), path)
    return path


@pytest.fixture
def errors():
    rng = np.random.default_rng(1)
    shared = rng.normal(size=(len(IDS), 4, 20))
    return [shared + rng.normal(size=shared.shape) for _ in range(3)]


def test_the_loss_of_the_mean_of_models_is_that_of_their_mean_error(errors, tmp_path):
    files = [
        write_model(tmp_path / f"{n}.parquet", one, slice(None, None, -1 if n == 2 else 1))
        for n, one in enumerate(errors)
    ]
    columns = _read_models(("a", "b", "c"), [[path] for path in files])
    mean = np.mean([one.astype(np.float16).astype(float) for one in errors], axis=0)
    np.testing.assert_allclose(columns.average(), (mean**2).mean(axis=2), rtol=1e-5)
    pair = columns.take(["c", "a"])
    mean = np.mean([errors[n].astype(np.float16).astype(float) for n in (0, 2)], axis=0)
    np.testing.assert_allclose(pair.average(), (mean**2).mean(axis=2), rtol=1e-5)
    assert isinstance(pair.keep(columns.fold_N == 0), SampleColumns)


def test_models_of_other_processes_have_no_mean_and_are_not_compared(errors, tmp_path):
    first = write_model(tmp_path / "a.parquet", errors[0])
    other = write_model(tmp_path / "b.parquet", errors[1], noise_scale=0.5)
    with pytest.raises(ValueError, match="turned into noise differently"):
        _read_models(("a", "b"), [[first], [other]])
    (one, _), (another, _) = (KIND.split(KIND.measure(path, EnsembleConfig())) for path in (first, other))
    assert KIND.explain_difference(one[0], one[1]) is None
    said = KIND.explain_difference(one[0], another[0])
    assert said.startswith("losses under different processes (noise_scale 1 and 0.5) are of different tasks")
    with pytest.raises(ValueError, match="losses under different processes"):
        measure_error("v_loss", np.concatenate([one, another]), np.ones((600, 4)))


def test_standard_errors_are_those_of_rows(errors, tmp_path):
    """Draws of a row that are alike are no further rows."""
    times, loss = np.tile([0.1, 0.1, 0.1, 0.7], (300, 1)), np.random.default_rng(0).random((300, 1)).repeat(4, axis=1)
    whole, first, *others = describe_bins(times, loss)
    assert (whole["v_loss"], first["v_loss"]) == pytest.approx((loss[:, 0].mean(),) * 2)
    assert whole["standard_error"] == pytest.approx(loss[:, 0].std() / 300**0.5)
    assert first["standard_error"] == pytest.approx(loss[:, 0].std() / 300**0.5)
    assert [one["num_draws"] for one in others] == [0, 0, 0, 300, 0]
    assert others[0]["v_loss"] is None
    target, kept = KIND.split(KIND.measure(write_model(tmp_path / "a.parquet", errors[0]), EnsembleConfig()))
    _, drawn = draw_errors("v_loss", target, kept[None], num_draws=500)
    assert drawn.std() == pytest.approx(describe_bins(target[:, 5:], kept)[0]["standard_error"], rel=0.15)


def test_losses_stand_beside_floor_and_the_mean_grey(errors, tmp_path):
    lines = KIND.measure(write_model(tmp_path / "a.parquet", errors[0]), EnsembleConfig())
    losses = describe_losses(lines)
    assert set(losses) == {"model", "zero", "floor"}
    assert losses["floor"][0]["v_loss"] == pytest.approx(losses["model"][0]["v_loss"] / 4)
    assert len(draw_loss_by_time(losses).axes[0].get_legend().get_texts()) == 3
    target, _ = KIND.split(lines)
    zero = KIND.score_constant(target, None, "v_loss")["v_loss"]
    assert zero == pytest.approx((0.4 / np.maximum(1 - target[:, 5:], 0.05) ** 2).mean())


def test_a_soup_of_weights_is_refused_with_the_reason():
    from ray_jobs.config.overrides import override
    from ray_jobs.config.recipes import RECIPES
    from ray_jobs.errors import RunError
    from ray_jobs.results.checks import refuse_what_is_not_offered

    config = override(RECIPES["pixel_diffusion_small"](), ["ensemble.method=soup"])
    with pytest.raises(
        RunError, match=r"ensemble.method=soup: expected one of mean for samples, .*mean of weights means nothing"
    ):
        refuse_what_is_not_offered(config)


def test_folds_agree_where_one_noise_makes_the_same():
    pictures = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), np.uint8)
    assert measure_agreement([pictures]) is None
    found = measure_agreement([pictures, pictures])
    assert found["same_noise"] == 0
    assert found["other_noise"] > 0.5


def test_grids_pairs_and_what_was_measured_are_written(tmp_path):
    rng, folds, written = np.random.default_rng(0), [], {}
    for fold in range(2):
        pictures = rng.integers(0, 256, (3, 3, 16, 16), np.uint8)
        near = (np.array(["x", "y", "z"]), rng.random(3), pictures)
        made = SimpleNamespace(
            ids=np.array(["0", "1", "2"]),
            labels=np.array(["", "", ""]),
            pictures=pictures,
            nearest={"training": near, "held_out": near},
            facts={"nearer_to_training": 0.5},
        )
        path = tmp_path / f"{fold}.parquet"
        pq.write_table(KIND.tabulate(made, fold=fold, checkpoint="best", member="main"), path)
        folds.append(SimpleNamespace(predictions=lambda rows, checkpoint, path=path: path))
    draw_samples(folds, Materials(written.__setitem__, lambda table: lambda row_id: np.zeros(1)))
    assert set(written) == {
        *(
            f"samples/{name}"
            for name in ("fold_0.png", "fold_1.png", "closest_pairs.png", "agreement.png", "samples.json")
        )
    }
    facts = json.loads(written["samples/samples.json"])
    assert facts["fold_1"] == {"nearer_to_training": 0.5}
    assert set(facts["agreement"]) == {"same_noise", "other_noise"}
    assert build_sample_table(made, fold=0, checkpoint="best").num_rows == 3
