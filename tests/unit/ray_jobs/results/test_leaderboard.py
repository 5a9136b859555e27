"""The leaderboard compares what predicts the same rows, on those rows."""

import csv

import pandas as pd
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import mean_squared_log_error
from support.made_run import make_run

from ensemble.config import EnsembleConfig
from ray_jobs.errors import RunError
from ray_jobs.leaderboard import main


def read_board(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_members_ensembles_and_runs_are_ranked_on_the_rows_that_all_have(tmp_path, capsys):
    first, _, _ = make_run(tmp_path / "first", members=("wide model.hidden_dim=128",), num_epochs=1)
    second, _, _ = make_run(tmp_path / "second", num_epochs=1)
    oof = pq.read_table(second.oof)
    pq.write_table(oof.slice(0, 150), second.oof)  # its other rows were not validated
    board = tmp_path / "board.csv"
    assert main([f"run.storage={tmp_path}", f"--csv={board}"]) == 0
    rows = read_board(board)
    assert {(row["run"], row["what"]) for row in rows} == {
        ("first", "main"), ("first", "wide"), ("first", "ensemble (mean)"), ("second", "main"),
    }  # fmt: skip
    assert {row["rows"] for row in rows} == {"150"}
    table = pd.read_parquet(first.oof).query("member == 'wide'").set_index("id").loc[oof["id"].to_pylist()[:150]]
    (wide,) = [row for row in rows if row["what"] == "wide"]
    assert float(wide["error"]) == pytest.approx(mean_squared_log_error(table["target"], table["prediction"]))
    in_fold = table.query("fold == 1")
    assert float(wide["fold_1"]) == pytest.approx(mean_squared_log_error(in_fold["target"], in_fold["prediction"]))
    assert [int(row["rank"]) for row in rows] == [1, 2, 3, 4]
    assert sorted(float(row["error"]) for row in rows) == [float(row["error"]) for row in rows]
    for row in rows[1:]:
        assert float(row["difference"]) == pytest.approx(float(row["error"]) - float(rows[0]["error"]))
        assert float(row["difference_low"]) <= float(row["difference"]) <= float(row["difference_high"])
    assert "MSLE on 150 rows that every one of these predicts unseen" in capsys.readouterr().out


def test_runs_on_other_rows_have_a_table_of_their_own(tmp_path, capsys):
    make_run(tmp_path / "large", num_epochs=1)
    small, _, _ = make_run(tmp_path / "small", num_epochs=1, num_folds=2, num_rows=20)
    table = pd.read_parquet(small.oof)
    table.assign(target=2 * table["target"]).to_parquet(small.oof)  # ids of the same names in other data
    main([f"run.storage={tmp_path}"])
    shown = capsys.readouterr().out
    assert "on 180 rows" in shown
    assert "on 40 rows" in shown


def test_what_cannot_be_compared_is_said(tmp_path, capsys):
    with pytest.raises(RunError, match="no run below"):
        main([f"run.storage={tmp_path}"])
    make_run(tmp_path / "begun", waiting=(0, 1, 2))
    with pytest.raises(RunError, match="nothing to compare"):
        main([f"run.storage={tmp_path}"])
    assert "has no out-of-fold predictions yet" in capsys.readouterr().out
    with pytest.raises(RunError, match=r"--metric: .*metric 'mlse': expected one of msle"):
        main([f"run.storage={tmp_path}", "--metric=mlse"])


def test_runs_are_compared_by_the_metric_that_counts_in_them(tmp_path, capsys):
    make_run(tmp_path / "first", num_epochs=1, ensemble=EnsembleConfig(metric="mae"))
    make_run(tmp_path / "second", num_epochs=1, ensemble=EnsembleConfig(metric="r2"))
    board = tmp_path / "board.csv"
    main([f"run.storage={tmp_path}", f"--csv={board}"])
    shown = capsys.readouterr().out
    assert "MAE (price) on 180 rows" in shown
    assert "minus r2 on 180 rows" in shown
    assert [row["metric"] for row in read_board(board)] == ["mae", "mae", "r2", "r2"]
    main([f"run.storage={tmp_path}", "--metric=msle"])
    assert "MAE" not in capsys.readouterr().out
