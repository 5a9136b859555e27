"""The mean of probabilities token by token, its weights by expectation maximisation, and the documents that stand out."""

import json

import numpy as np
import pyarrow as pa
import pytest
from scipy.optimize import minimize

from ensemble.kinds import load_kind
from ensemble.predictions import PredictionError
from ensemble.token_losses.combine import fit_mixture, mix_losses
from ensemble.token_losses.files import build_loss_table, sum_documents
from ensemble.token_losses.hardest import describe_lines
from ensemble.token_losses.scores import score_losses
from trainers.predictions import TokenLosses

RNG = np.random.default_rng(0)
NATS = RNG.gamma(1.0, [[1.0], [1.3], [2.0]], (3, 4000)).astype(np.float32)


def make_losses(ids, tokens, nats, floor=np.nan):
    num = len(ids)
    return TokenLosses(
        np.array(ids), np.array(tokens), nats, np.full(num, 10), np.full(num, floor), np.full(num, 9.0), 8, 4
    )


def test_the_mean_of_probabilities_is_no_worse_than_the_mean_loss_of_the_models():
    mixed = mix_losses(NATS)
    np.testing.assert_allclose(mixed, -np.log(np.exp(-NATS.astype(np.float64)).mean(axis=0)), rtol=1e-12)
    assert mixed.mean() < NATS.mean(axis=1).mean()
    far = np.array([[2000.0], [1990.0]], np.float32)  # whose probabilities are 0 as numbers
    assert mix_losses(far)[0] == pytest.approx(1990 + np.log(2), abs=1e-3)


def test_fitted_weights_are_those_with_the_least_loss():
    weights = fit_mixture(NATS)

    def find_loss(powers):
        shares = np.exp(powers - powers.max())
        return mix_losses(NATS, shares / shares.sum()).mean()

    found = minimize(find_loss, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-10})
    assert weights.sum() == pytest.approx(1)
    assert mix_losses(NATS, weights).mean() <= found.fun + 1e-7
    assert mix_losses(NATS, weights).mean() < mix_losses(NATS).mean()


def test_scores_are_sums_divided_by_sums_and_say_nothing_where_nothing_is_known():
    table = build_loss_table(
        make_losses(["a", "b"], [1, 3], np.array([4.0, 1.0, 1.0, 1.0], np.float32)), fold=0, checkpoint="best"
    )
    assert table["nats"].to_pylist() == [4.0, 3.0]
    target = np.array([[1, 10, -1, 9], [3, 10, 2, 9]], float)
    scores = score_losses(target, np.array([4.0, 3.0]))
    assert scores["nats_per_token"] == pytest.approx(7 / 4)
    assert scores["perplexity"] == pytest.approx(np.exp(7 / 4))
    assert scores["bits_per_byte"] == pytest.approx(7 / 20 / np.log(2))
    assert scores["excess_nats"] == pytest.approx(1 / 3)
    assert score_losses(target[:1], np.array([4.0]))["excess_nats"] is None


def test_losses_that_are_none_are_refused_with_their_document():
    for bad in (np.nan, -0.1):
        losses = make_losses(["a", "broken"], [1, 2], np.array([1.0, 1.0, bad], np.float32))
        with pytest.raises(PredictionError, match=r"fold 0 \(best\): the loss of a token of 'broken' is"):
            build_loss_table(losses, fold=0, checkpoint="best")
    with pytest.raises(PredictionError, match="2 losses of 3 tokens: expected one each"):
        build_loss_table(make_losses(["a"], [3], np.ones(2, np.float32)), fold=0, checkpoint="best")


def test_the_hardest_documents_are_listed_first_with_how_they_were_scored():
    tokens = RNG.integers(2, 9, 200)
    nats = RNG.gamma(1.0, 0.3, tokens.sum()).astype(np.float32)
    broken = np.repeat(np.arange(200), tokens) % 50 == 7
    losses = make_losses([f"d{n}" for n in range(200)], tokens, nats + 3 * broken, floor=0.1)
    lines = build_loss_table(losses, fold=0, checkpoint="best")
    found = describe_lines(lines)
    assert found["scored_with"] == {"window": 8, "stride": 4}
    listed = [one["id"] for one in found["hardest_documents"]]
    assert len(listed) == 50
    assert {"d7", "d57", "d107", "d157"} <= set(listed[:12])
    low, high = found["interval_95"]["nats_per_token"]
    assert low < sum_documents(losses.nats, tokens).sum() / tokens.sum() < high
    assert set(found["interval_95"]) == {"perplexity", "nats_per_token", "bits_per_byte", "excess_nats"}
    mixed = pa.concat_tables(
        [
            lines,
            build_loss_table(make_losses(["x"], [1], np.ones(1, np.float32)), fold=0, checkpoint="b").set_column(
                11, "window", pa.array([9], pa.int32())
            ),
        ]
    )
    with pytest.raises(PredictionError, match=r"windows \[8, 9\] and strides \[4\]"):
        describe_lines(mixed)


def test_an_evaluation_compares_each_model_with_the_mean_of_all():
    ids, tokens = [f"d{n}" for n in range(40)], [100] * 40
    tables = {
        name: build_loss_table(make_losses(ids, tokens, nats_S), fold=0, checkpoint="best")
        for name, nats_S in (("fold_0", NATS[0]), ("fold_1", NATS[1]), ("mean", mix_losses(NATS[:2])))
    }
    written = {}
    header, lines, metrics = load_kind("token_losses").write_evaluation(tables, "new", written.__setitem__)
    assert header[-1] == "nats a token above mean's"
    assert [line[0] for line in lines] == list(tables)
    assert lines[2][4] == ""
    facts = json.loads(written["evaluation_new.json"])
    worse = facts["models"]["fold_1"]["minus_reference"]
    assert worse["nats_per_token"] == pytest.approx(NATS[1].mean() - mix_losses(NATS[:2]).mean(), rel=1e-5)
    assert 0 < worse["interval_95"][0] < worse["nats_per_token"] < worse["interval_95"][1]
    assert metrics["mean/perplexity"] == facts["models"]["mean"]["scores"]["perplexity"]
    documents = written["documents_new.csv"].decode().splitlines()
    assert documents[0] == "ID,tokens,bytes,fold_0,fold_1,mean"
    assert float(documents[1].split(",")[3]) == pytest.approx(NATS[0, :100].sum(), rel=1e-6)
    alone = {"fold_0": tables["fold_0"].slice(0, 1)}
    _, ((_, number, *_),), _ = load_kind("token_losses").write_evaluation(alone, "one", written.__setitem__)
    assert number == "1"
