"""The leaderboard compares what predicts the same rows, on those rows."""

import csv

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import mean_squared_log_error
from support.made_run import make_run

from ensemble.config import EnsembleConfig
from ensemble.kinds import load_kind
from ensemble.members.comparison import compare_pair
from ray_jobs.errors import RunError
from ray_jobs.leaderboard import main
from ray_jobs.runs.folder import RunFolder


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
    with pytest.raises(RunError, match="no run in this folder"):
        main([f"run.storage={tmp_path}"])
    make_run(tmp_path / "begun", waiting=(0, 1, 2))
    with pytest.raises(RunError, match=r"no out-of-fold predictions in these runs: .* finish its folds first$"):
        main([f"run.storage={tmp_path}"])
    assert "has no out-of-fold predictions yet" in capsys.readouterr().out
    with pytest.raises(RunError, match=r"--metric=mlse: .*expected one of msle"):
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


def test_rows_of_a_group_are_drawn_together(tmp_path, capsys):
    first, _, _ = make_run(tmp_path / "first", num_epochs=1)
    make_run(tmp_path / "second", num_epochs=1, members=("wide model.hidden_dim=128",))
    plan = pq.read_table(first.fold_plan)
    groups = np.arange(len(plan)) // 20
    pq.write_table(plan.append_column("group", pa.array(groups)), first.fold_plan)
    board = tmp_path / "board.csv"
    main([f"run.storage={tmp_path}", f"--csv={board}"])
    assert "MSLE on 180 rows in 9 groups that every one of these predicts unseen" in capsys.readouterr().out
    best, other, *_ = read_board(board)
    group_of = dict(zip(plan["id"].to_pylist(), groups.tolist(), strict=True))
    tables = [read_predictions(tmp_path / row["run"], row["what"]) for row in (other, best)]
    units = np.array([group_of[row_id] for row_id in tables[0].index])
    values = (tables[0]["target"], *(table["prediction"] for table in tables))
    expected = compare_pair(load_kind("number"), "msle", *map(np.asarray, values), units)
    assert float(other["difference_low"]) == pytest.approx(expected.low)
    assert float(other["difference_high"]) == pytest.approx(expected.high)


def read_predictions(run, what):
    folder = RunFolder(run)
    if what.startswith("ensemble"):
        return pd.read_parquet(folder.honest_predictions).sort_values("id").set_index("id")
    return pd.read_parquet(folder.oof).query("member == @what").sort_values("id").set_index("id")


def test_what_has_no_interval_is_left_out_with_the_reason(tmp_path, capsys):
    run, _, _ = make_run(tmp_path / "grouped", num_epochs=1)
    plan = pq.read_table(run.fold_plan)
    pq.write_table(plan.append_column("group", pa.array([0] * len(plan))), run.fold_plan)
    main([f"run.storage={tmp_path}", f"--csv={tmp_path / 'board.csv'}"])
    assert "left out: grouped main: 180 units of 1 kinds for 180 rows" in " ".join(capsys.readouterr().out.split())


def test_a_fold_of_one_row_has_no_score_by_a_scorer_that_needs_two(tmp_path, capsys):
    make_run(tmp_path / "single", num_epochs=1, num_folds=5, num_rows=1)
    board = tmp_path / "board.csv"
    main([f"run.storage={tmp_path}", "--metric=r2", f"--csv={board}"])
    (row,) = read_board(board)
    assert [row[f"fold_{fold}"] for fold in range(5)] == [""] * 5


def test_trainings_with_other_seeds_are_one_entry_whose_interval_holds_them(tmp_path, capsys):
    make_run(tmp_path / "once", num_epochs=1)
    board = tmp_path / "board.csv"
    main([f"run.storage={tmp_path}", f"--csv={board}"])
    assert "The intervals are over rows only" in " ".join(capsys.readouterr().out.split())
    folder, _, summary = make_run(tmp_path / "seeds", num_epochs=1, ensemble=EnsembleConfig(seeds=3))
    main([f"run.storage={tmp_path}", f"--csv={board}"])
    rows = {(row["run"], row["what"]): row for row in read_board(board)}
    assert set(rows) == {("once", "main"), ("seeds", "main"), ("seeds", "ensemble (mean)")}
    known = {row.name: row for row in summary.stage.combinations.rows}
    assert float(rows["seeds", "main"]["error"]) == pytest.approx(known["main"].error)
    shown = " ".join(capsys.readouterr().out.split())
    assert "The intervals of 1 of the models, which have one seed, are over rows only" in shown
    main([str(folder.root), f"--csv={board}"])
    for row in read_board(board):  # by a bootstrap of its own
        assert float(row["high"]) - float(row["low"]) == pytest.approx(known["main"].high - known["main"].low, rel=0.1)
    assert "The intervals hold that other seeds train other models" in capsys.readouterr().out
