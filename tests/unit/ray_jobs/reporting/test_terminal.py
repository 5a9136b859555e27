"""What the screen shows, and what must not disturb it."""

import io
import time
from dataclasses import replace

from rich.table import Table

from ensemble.kinds import Metric
from ray_jobs.cli.console import RunConsole
from ray_jobs.reporting.live_table import Watcher, fold_table
from ray_jobs.reporting.outcome import print_combinations, print_scores
from ray_jobs.runs.files import write_json
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.events import PreparationReported, ProgressReported, advance
from ray_jobs.runs.json_files.status import FoldState, FoldStatus, write_status
from ray_jobs.runs.json_files.summary import Combinations, Compared, RowScores, Scores


def make_console(*, terminal: bool) -> RunConsole:
    return RunConsole(io.StringIO(), force_terminal=terminal, width=120)


def test_an_error_that_looks_like_markup_is_shown_as_it_is(tmp_path):
    """gloo's errors begin with a path in square brackets."""
    folder, error = RunFolder(tmp_path), "rank 0: [/pytorch/gloo/pair.cc:598] Connection closed by peer [rank1]"
    write_json(folder.fold(0).status, {"fold": 0, "state": "failed", "attempt": 1, "error": error})
    console = make_console(terminal=False)
    with Watcher([folder], 1, console):
        pass
    assert error in console.file.getvalue()


def test_plain_lines_say_what_is_new_once(tmp_path):
    folder = RunFolder(tmp_path)
    status = {"fold": 0, "state": "training", "attempt": 1, "started": 0.0, "num_epochs": 5, "epoch": 2, "score": 0.5}
    write_json(folder.fold(0).status, status)
    console = make_console(terminal=False)
    with Watcher([folder], 1, console) as watcher:
        watcher.update()
        watcher.update()
    assert console.file.getvalue().count("fold 0 training: epoch 2/5") == 1


def test_rows_that_are_encoded_before_the_training_are_counted(tmp_path):
    folder, console = RunFolder(tmp_path), make_console(terminal=False)
    status = FoldStatus(0, FoldState.TRAINING, 1, started=time.time())
    with Watcher([folder], 1, console) as watcher:
        for done in (128, 140, 640):
            status = advance(status, PreparationReported(0, 1, "encoding", done, 1000), time.time())
            write_status(folder, status)
            watcher.update()
    shown = console.file.getvalue()
    assert "fold 0 encoding: 128 of 1,000 (all folds" in shown
    assert "140" not in shown  # a line for each tenth
    assert "fold 0 encoding: 640 of 1,000 (all folds" in shown
    live = make_console(terminal=True)
    live.print(fold_table({"main": [status]}, "run x"))
    assert "640/1000" in live.file.getvalue()
    training = advance(status, ProgressReported(0, 1, 0, 2, 5, 10), time.time())
    assert training.preparation is None


def test_the_live_table_shows_the_workers_where_a_fold_has_several():
    folds = [FoldStatus(0, FoldState.TRAINING, 1, num_workers=1), FoldStatus(1)]
    for number, is_shown in ((1, False), (3, True)):
        console = make_console(terminal=True)
        console.width = 80
        console.print(fold_table({"main": [replace(folds[0], num_workers=number), folds[1]]}, "run x"))
        shown = console.file.getvalue()
        assert ("workers" in shown) is is_shown
        assert "…" not in shown


def test_the_live_table_shows_every_fold_and_its_estimate(tmp_path):
    training = FoldStatus(
        0,
        FoldState.TRAINING,
        1,
        epoch=1,
        num_epochs=4,
        step=10,
        num_steps=40,
        started=time.time() - 90,
        pace=(time.time() - 9, 1),
        train_loss=0.1234,
        val_loss=0.1234,
        best_score=0.1234,
        best_epoch=22,
    )
    console = make_console(terminal=True)
    console.width = 80
    console.print(fold_table({"main": [training, FoldStatus(1)]}, "run x"))
    shown = console.file.getvalue()
    assert "…" not in shown
    for part in ("run x", "training", "waiting", "1/4", "10/40", "ETA", "0:30"):
        assert part in shown


def test_the_autoscaler_is_waited_for_with_a_word(tmp_path):
    console = make_console(terminal=True)
    with Watcher([RunFolder(tmp_path)], 1, console, "a node with 8 CPU and 1 GPU"):
        pass
    assert "waiting for a node with 8 CPU and 1 GPU" in console.file.getvalue()


def test_scores_stand_beside_the_constant_predictor():
    console = make_console(terminal=False)
    row = RowScores(num_rows=9, best={"msle": 0.5}, final={"msle": 0.6}, constant={"msle": 2.0})
    print_scores(
        console,
        Scores((replace(row, fold=0),), replace(row, checkpoint="final")),
        Metric("msle", "MSLE"),
        "one number",
        "best was chosen",
    )
    shown = console.file.getvalue()
    assert "0.5000" in shown
    assert "best was chosen" in shown
    assert "30% of the constant predictor's" in shown


def test_what_a_terminal_shows_is_kept_as_lines_for_another_log_once(tmp_path):
    """Not the live table, which is drawn again and again; in its place the lines that there are without a terminal."""
    folder, console = RunFolder(tmp_path), make_console(terminal=True)
    write_status(folder, FoldStatus(0, FoldState.TRAINING, 1, started=time.time(), epoch=2, num_epochs=5, score=0.5))
    console.print("run a: 600 rows", style="yellow")
    with Watcher([folder], 1, console) as watcher:
        watcher.update()
    table = Table("fold")
    table.add_row("0")
    console.print(table)
    lines = console.take_lines()
    assert lines[0] == "run a: 600 rows"
    assert lines[1].startswith("fold 0 training: epoch 2/5")
    assert [line for line in lines if "fold 0 training" in line] == [lines[1]]
    assert any("│ 0" in line for line in lines)
    assert console.take_lines() == []


def test_large_errors_are_whole_on_a_narrow_screen():
    """Names may take several lines; numbers that end in an ellipsis say nothing."""
    console = RunConsole(io.StringIO(), width=80)
    numbers = {"error": 168.3787, "low": 157.7063, "high": 179.1357}
    row = Compared(kind="combination", name="trimmed_mean 0.2, raw space", submitted=True, difference=-0.3451,
                   difference_low=-0.7565, difference_high=0.079, **numbers)  # fmt: skip
    print_combinations(
        console, Combinations(metric="rmse", best_member="main", num_rows=300, scored_on="out_of_fold", rows=(row,))
    )
    shown = console.file.getvalue()
    assert "…" not in shown
    assert "168.3787 157.7063 179.1357" in shown
