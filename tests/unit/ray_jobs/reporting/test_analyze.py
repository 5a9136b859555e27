"""The job analyze.py as it is typed: what it writes, what it refuses, what it removes."""

import io
import os
import subprocess
import sys
import threading
import time

import pytest
from PIL import Image
from rich.console import Console
from support.made_run import write_fold_record
from support.processes import REPOSITORY

from ray_jobs.analyze import main
from ray_jobs.errors import RunBusyError, RunError
from ray_jobs.reporting.live_analysis import PICTURE, follow_run
from ray_jobs.runs.files import write_json
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.prune import prune_run


def make_run(root, num_folds=2, num_epochs=3):
    folder = RunFolder(root)
    write_json(folder.config, {})
    for fold in range(num_folds):
        write_fold_record(folder, fold, num_epochs, log_batches=True)
    return folder


def read_width(path):
    with Image.open(path) as picture:
        return picture.width


def test_a_run_gets_three_pictures_and_a_report_and_a_second_call_overwrites_nothing(tmp_path, capsys):
    folder = make_run(tmp_path / "one")
    for _ in range(2):
        assert main(["one", f"run.storage={tmp_path}"]) == 0
    for name in ("training_analysis_*.png", "training_stats_*.png", "batch_analysis_*.png", "training_report_*.txt"):
        files = list((folder.root / "analysis").glob(name))
        assert len(files) == 2
        if name.endswith("png"):
            assert read_width(files[0]) == 1200
    assert "mean epoch seconds" in capsys.readouterr().out


def test_without_a_run_the_newest_is_analysed(tmp_path, capsys):
    make_run(tmp_path / "old")
    for path in (tmp_path / "old" / "metrics").rglob("*"):
        os.utime(path, (1e9, 1e9))
    make_run(tmp_path / "new")
    main([f"run.storage={tmp_path}"])
    assert "run new" in capsys.readouterr().out


def test_a_metrics_file_anywhere_is_analysed_beside_itself_or_where_it_is_told(tmp_path):
    (path,) = make_run(tmp_path / "one", 1).root.glob("metrics/fold_0/epoch_*.csv")
    main(["--metrics_file", str(path)])
    assert len(list(path.parent.glob("training_analysis_*.png"))) == 1
    main(["--metrics_file", str(path), "--output_dir", str(tmp_path / "out")])
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_several_runs_are_compared_in_one_picture(tmp_path, capsys):
    make_run(tmp_path / "one")
    make_run(tmp_path / "two", 1)
    main([str(tmp_path / "one"), str(tmp_path / "two")])
    assert [path.name[:20] for path in (tmp_path / "one" / "analysis").iterdir()] == ["training_comparison_"]
    assert {"one", "two"} <= set(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["oen"], "no run 'oen'.* are: .*one"),
        (["one", "--metrics_file", "x.csv"], "expected neither RUN nor --follow"),
        (["--keep-last", "1"], "no RUN to prune"),
        (["one", "--dry-run"], "--dry-run: expected --keep-days"),
        (["begun"], "no fold of .* has finished an epoch"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason(tmp_path, words, message):
    make_run(tmp_path / "one")
    make_run(tmp_path / "begun", 1, 0)
    with pytest.raises(RunError, match=message):
        main([*words, f"run.storage={tmp_path}"])


def make_old_files(folder):
    """Three CSV files of a fold (the run's own is the newest), two logs of another, and three old reports."""
    fold = folder.metrics / "fold_0"
    names = [fold / f"epoch_metrics_2020010{n}_000000.csv" for n in (1, 2)]
    names += [folder.log / "fold_0" / f"training_2020010{n}_000000.log" for n in (1, 2)]
    names += [folder.root / "analysis" / f"training_report_2020010{n}_000000.txt" for n in (1, 2, 3)]
    for path in names:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("12345")
        os.utime(path, (1e9, 1e9))
    return names


def test_pruning_keeps_the_newest_of_each_kind_and_the_record(tmp_path, capsys):
    folder = make_run(tmp_path / "one", 1)
    old = make_old_files(folder)
    kept = [*folder.metrics.glob("*.jsonl"), *folder.metrics.glob("fold_0/*_2[!0]*.csv"), old[3], old[6]]
    everything = set(folder.root.rglob("*"))
    main([str(folder.root), "--keep-last", "1", "--dry-run"])
    assert set(folder.root.rglob("*")) == everything
    main([str(folder.root), "--keep-last", "1"])
    gone = everything - set(folder.root.rglob("*"))
    assert gone == {old[0], old[1], old[2], old[4], old[5]}
    assert all(path.exists() for path in kept)
    assert "removed 5 files, 25 bytes" in capsys.readouterr().out


def test_what_either_limit_keeps_is_kept(tmp_path):
    folder = make_run(tmp_path / "one", 1)
    old = make_old_files(folder)
    find = {"dry_run": True, "now": 1e9 + 10 * 86400}
    assert prune_run(folder, keep_days=11, keep_last=None, **find) == []
    assert len(prune_run(folder, keep_days=9, keep_last=None, **find)) == 5
    assert [file.path for file in prune_run(folder, keep_days=9, keep_last=2, **find)] == [old[0], old[4]]


def test_nothing_of_a_run_at_work_is_pruned(tmp_path, capsys):
    folder = make_run(tmp_path / "one", 1)
    old = make_old_files(folder)
    with folder.lock():
        with pytest.raises(RunBusyError, match="at work"):
            prune_run(folder, keep_days=None, keep_last=1, dry_run=False)
        main([str(folder.root), "--keep-last", "1"])
    assert all(path.exists() for path in old)
    assert "nothing of it is pruned" in capsys.readouterr().out


def test_following_says_each_new_epoch_once_and_ends_with_the_driver(tmp_path):
    folder = RunFolder(tmp_path / "live")
    console = Console(file=io.StringIO(), width=200)
    output = folder.root / "analysis"
    follower = threading.Thread(target=follow_run, args=(folder, output, 0.05, console))
    with folder.lock():
        write_fold_record(folder, 0, 2)
        follower.start()
        deadline = time.monotonic() + 60
        while not (output / PICTURE).exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        write_fold_record(folder, 1, 1)
    follower.join(60)
    assert not follower.is_alive()
    lines = [line for line in console.file.getvalue().splitlines() if " epoch " in line]
    assert [line.split(":")[0] for line in lines] == ["fold 0 epoch 1", "fold 0 epoch 2", "fold 1 epoch 1"]
    assert "loss 0.5, best 0.5" in lines[1]
    assert read_width(output / PICTURE) == 1200


def test_analysis_and_report_load_neither_torch_nor_ray_nor_a_window_system():
    code = (
        "import sys, ray_jobs.analyze, ray_jobs.reporting.analysis_files, ray_jobs.reporting.html_report; "
        "print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert not {"torch", "ray", "matplotlib.pyplot"} & set(loaded.stdout.split())
