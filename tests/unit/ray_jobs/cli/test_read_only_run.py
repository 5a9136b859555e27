"""A run that may only be read, as a colleague's or an archive's: each command works, or says what to do."""

from __future__ import annotations

import sys

import pandas as pd
import pytest
from support.made_run import make_run
from support.private_storage import private_storage

COMMANDS = r"""
import sys
from pathlib import Path
from ray_jobs import analyze, leaderboard, status, submit
from ray_jobs.cli.entry import main_with_errors
from ray_jobs.prediction.job import PredictRequest, check_request, choose_log
from ray_jobs.runs.folder import RunFolder

root, own = Path(sys.argv[1]) / "one", Path(sys.argv[2])
folder = RunFolder(root)

def predict(words):
    work = check_request(folder, folder.read_config(), PredictRequest(own / "new", *map(Path, words)))
    print("log:", choose_log(folder, work))

for name, main, *words in (
    ("status", status.main, root), ("leaderboard", leaderboard.main, root),
    ("csv", leaderboard.main, root, f"--csv={root / 'x.csv'}"),
    ("analysis", analyze.main, root), ("analysis elsewhere", analyze.main, root, f"--output_dir={own / 'analysis'}"),
    ("pruning", analyze.main, root, "--keep-last=1"), ("submit", submit.main, root, "ensemble.method=median"),
    ("prediction", predict), ("prediction elsewhere", predict, own / "prices.csv"),
):
    sys.argv[1:] = map(str, words)
    print(f"== {name}", flush=True)
    try:
        main_with_errors(main)
    except SystemExit as ended:
        print(f"ended {ended.code or 0}", flush=True)
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """{what was done: what was said}, errors included."""
    own = tmp_path_factory.mktemp("own")
    (own / "new" / "test").mkdir(parents=True)
    new = pd.DataFrame({"id": ["a"], "title": "t", "description": "d", "date": "2025-01-01"})
    new.to_csv(own / "new" / "test.csv", index=False)
    with private_storage(tmp_path_factory.mktemp("archive") / "runs", "64m") as storage:
        make_run(storage.inside / "one", num_epochs=2)
        with storage.read_only():
            process = storage.start(own / "said.txt", sys.executable, "-c", COMMANDS, str(storage.path), str(own))
            code = storage.wait(process, 120)
        text = (own / "said.txt").read_text()
        assert code == 0, text
        parts = (part.partition("\n") for part in text.split("== ")[1:])
        return own, {name: " ".join(lines.split()) for name, _, lines in parts}


def test_what_only_reads_works(said):
    _, said = said
    for name in ("status", "leaderboard"):
        assert said[name].endswith("ended 0")
        assert "error" not in said[name].replace("ENSEMBLE", "").partition("MSLE")[0], said[name]


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("csv", "is no folder that can be written to; --csv="),
        ("analysis", "is no folder that can be written to; --output_dir=FOLDER names another"),
        ("pruning", "may only be read (Read-only file system), and this changes files there; copy the run into"),
        ("submit", "may only be read (Read-only file system), and this changes files there; copy the run into"),
        ("prediction", "is no folder that can be written to; --output FILE names another place"),
    ],
)
def test_what_writes_into_it_says_what_to_do(said, name, advice):
    _, said = said
    assert said[name].startswith("error: "), said[name]
    assert advice in said[name], said[name]
    assert said[name].endswith("ended 2")
    assert "Errno" not in said[name]


def test_analysis_and_predictions_go_elsewhere(said):
    own, said = said
    assert said["analysis elsewhere"].endswith("ended 0"), said["analysis elsewhere"]
    assert list((own / "analysis").glob("training_report_*.txt"))
    assert said["prediction elsewhere"] == f"log: {own / 'prices.log'} ended 0"
