"""report.html: what it says of whole, partial and failed runs, and that a browser shows all of it without a network."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import pytest
from support.made_run import make_run, train_loss

from ray_jobs.reporting.html_report import write_report, write_report_or_warn
from ray_jobs.reporting.report_figures import choose_pictures
from ray_jobs.results.summary import build_summary
from ray_jobs.runs.files import write_csv, write_json
from ray_jobs.runs.json_files.summary import SubmissionRecord
from ray_jobs.runs.record import Record

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --virtual-time-budget=10000""".split()
EVIL = "<script>document.title='broken'</script>"


def read_text(page: str) -> str:
    """What a reader sees, in one line."""
    return " ".join(unescape(re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL)).split())


def list_missing(page: str) -> list[str]:
    """Titles of the figures that the report has left out."""
    return [title for titles in re.findall(r"Left out: (.*?) \(", page) for title in titles.split(", ")]


def test_a_complete_run_has_its_scores_in_words_and_all_figures(tmp_path):
    folder, config, summary = make_run(tmp_path / "whole")
    path = write_report(folder, config, summary)
    assert path == tmp_path / "whole" / "report.html"
    assert path.stat().st_size < 3e6
    page = path.read_text()
    text, overall = read_text(page), summary.stage.scores.out_of_fold
    error, constant = overall.best["msle"], overall.constant["msle"]
    assert f"Out-of-fold MSLE {error:.4f} on 180 rows (best checkpoints): {1 - error / constant:.0%} below" in text
    for fold in summary.stage.scores.folds:
        assert f"{fold.name} 60 {fold.best['msle']:.4f} {fold.final['msle']:.4f}" in text
    assert list_missing(page) == []
    files = {file.stem for file in (folder.root / "figures").glob("*.png")}
    pictures = choose_pictures(folder, config, summary)
    assert files == {picture.name for picture in pictures}
    assert {"loss_of_all_folds", "modality_weights", "final_predictions"} <= files
    assert page.count('src="data:image/png;base64,') == len(pictures) == len(re.findall(r'alt="[^"]{20,}"', page))
    assert "What went wrong" not in page


def test_nothing_is_fetched_and_every_link_leads_to_a_file(tmp_path):
    folder, config, summary = make_run(tmp_path / "whole")
    page = write_report(folder, config, summary).read_text()
    links = [
        unquote(unescape(link)) for link in re.findall(r'(?:href|src)="([^"]*)"', page) if not link.startswith("data:")
    ]
    assert {"config.json", "submission_mean.csv", "folds/2/status.json", "figures/timings.png"} <= set(links)
    assert [link for link in links if not (folder.root / link).exists()] == []
    assert "default-src 'none'" in page
    assert not re.search(r"https?://|@import|url\(", page)


def test_text_from_the_data_is_harmless(tmp_path):
    folder, config, summary = make_run(
        tmp_path / "evil", failed=(1,), target=f'"><img src=x onerror=alert(1)>{EVIL}', weights=(EVIL, "$a$")
    )
    write_csv(folder.bad_rows, ["table", "id", "problem", "done"], [["train.csv", EVIL, "&lt; broken", "dropped"]])
    page = write_report(folder, config, summary).read_text()
    assert "<script" not in page
    assert "<img src=x" not in page
    assert EVIL in read_text(page)
    assert "&lt; broken" in read_text(page)


def test_a_run_whose_workers_changed_is_said_not_to_be_repeatable(tmp_path):
    folder, config, summary = make_run(tmp_path / "run")
    assert summary.bit_repeatable
    events = Record(folder.events)
    for attempt, workers in ((1, 2), (2, 1)):
        events.append({"event": "FoldLaunched", "fold": 0, "attempt": attempt, "num_workers": workers})
        events.append({"event": "FoldStarted", "fold": 0, "attempt": attempt, "step": 5 * (attempt - 1)})
    events.close()
    summary = build_summary(folder, config, summary.stage, {})
    assert not summary.bit_repeatable
    page = write_report(folder, config, summary).read_text()
    assert "not bit-repeatable: the number of workers was not always the same (fold 0: 2, then 1)" in page


def test_a_partial_run_says_what_is_missing(tmp_path):
    folder, config, summary = make_run(tmp_path / "part", num_folds=4, failed=(1,), waiting=(3,))
    text = read_text(page := write_report(folder, config, summary).read_text())
    assert "Only 2 of 4 folds are finished" in text
    assert "No submission: folds [1, 3] are not trained" in text
    assert "Fold 1 failed rank 0: <script>alert(1)</script> broke" in text
    assert "Fold 3 is not finished (waiting)" in text
    assert list_missing(page) == ["Weights of the submitted models", "Final predictions", "Agreement of the models",
                                  "Contribution of each model", "Uncertainty"]  # fmt: skip


def test_a_run_without_a_finished_fold_still_has_a_report(tmp_path):
    folder, config, summary = make_run(tmp_path / "none", failed=(0,), waiting=(1, 2))
    text = read_text(page := write_report(folder, config, summary).read_text())
    assert "No fold is finished, so there is no score yet." in text
    assert "Predicted against actual" in list_missing(page)
    assert (folder.root / "figures" / "loss_of_all_folds.png").is_file()


def test_a_model_worse_than_the_constant_is_not_praised(tmp_path):
    folder, config, summary = make_run(tmp_path / "bad")
    summary.stage.scores.out_of_fold.best["msle"] = 9.0
    assert "no better than the constant predictor" in write_report(folder, config, summary).read_text()


def test_a_damaged_file_costs_its_figures_and_nothing_else(tmp_path, caplog):
    folder, config, summary = make_run(tmp_path / "damaged")
    folder.oof.write_bytes(b"no table")
    write_json(folder.root / "provenance.json", {})
    page = write_report(folder, config, summary).read_text()
    assert list_missing(page) == ["Predicted against actual", "Residuals"]
    assert "figure residuals could not be drawn" in caplog.text


def test_a_report_that_cannot_be_written_is_a_warning(tmp_path, caplog):
    folder, config, summary = make_run(tmp_path / "finished", num_epochs=1, waiting=(1, 2))
    folder.report.mkdir()
    write_report_or_warn(folder, config, summary)
    assert "report.html could not be written" in caplog.text


def test_figures_of_an_earlier_submission_do_not_stay(tmp_path):
    folder, config, summary = make_run(tmp_path / "again")
    write_report(folder, config, summary)
    stage = replace(summary.stage, submission=SubmissionRecord(reason="folds [0] are not trained"))
    write_report(folder, config, replace(summary, stage=stage))
    assert not (folder.root / "figures" / "final_predictions.png").exists()
    assert (folder.root / "figures" / "residuals.png").exists()


def test_rows_found_bad_while_training_are_listed_once(tmp_path):
    folder, config, summary = make_run(tmp_path / "bad_rows")
    row = {"table": "train_val.csv", "id": "row 7", "problem": "picture is cut off", "done": "grey"}
    for fold in (0, 1):
        Record(folder.fold(fold).bad_rows(0)).append(row)
    text = read_text(write_report(folder, config, summary).read_text())
    assert "Rows that were dropped or mended: 1 " in text
    assert text.count("picture is cut off") == 1


def test_the_config_and_the_command_are_in_the_report(tmp_path):
    folder, config, summary = make_run(tmp_path / "whole", num_epochs=1)
    page = write_report(folder, config, summary).read_text()
    shown = unescape(re.search(r"The whole config</summary><pre>(.*?)</pre>", page, re.DOTALL)[1])
    assert json.loads(shown) == json.loads(folder.config.read_text())
    assert "kfold.py" in read_text(page)
    assert train_loss(0, 0) == 1.0


@pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome on this machine")
def test_a_browser_shows_the_scores_and_every_picture(tmp_path):
    folder, config, summary = make_run(tmp_path / "whole", failed=(2,))
    page = write_report(folder, config, summary).read_text()
    # The copy may run one script, which counts the pictures; the report itself may run none.
    count = (
        "<script>onload = () => document.body.dataset.widths = [...document.images].map(i => i.naturalWidth)</script>"
    )
    copy = tmp_path / "copy.html"
    copy.write_text(page.replace("default-src 'none'", "default-src 'none'; script-src 'unsafe-inline'") + count)
    dom = dump_dom(copy, tmp_path / "profile")
    widths = re.search(r'data-widths="([^"]*)"', dom)[1].split(",")
    assert widths == ["1200"] * page.count("<img ")
    assert f"{summary.stage.scores.out_of_fold.best['msle']:.4f}" in dom
    assert "whole: failed" in re.search(r"<title>(.*?)</title>", dom)[1]


def dump_dom(page: Path, profile: Path) -> str:
    """The page as the browser has built it."""
    done = subprocess.run(
        [BROWSER, *QUIET, f"--user-data-dir={profile}", "--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout


def test_a_score_that_is_not_defined_costs_its_cell_and_one_that_never_is_its_column(tmp_path):
    folder, config, summary = make_run(tmp_path / "run")
    scores = summary.stage.scores
    assert "MAE (price), best" in read_text(write_report(folder, config, summary).read_text())

    def without(row, *names):
        return replace(row, best={**row.best, **dict.fromkeys(names)})

    first, *others = scores.folds
    partly = replace(scores, folds=(without(first, "mae"), *others))
    page = read_text(
        write_report(folder, config, replace(summary, stage=replace(summary.stage, scores=partly))).read_text()
    )
    assert "MAE (price), best" in page
    never = replace(
        scores, folds=tuple(without(row, "mae") for row in scores.folds), out_of_fold=without(scores.out_of_fold, "mae")
    )
    page = read_text(
        write_report(folder, config, replace(summary, stage=replace(summary.stage, scores=never))).read_text()
    )
    assert "MAE (price), best" not in page
    assert "RMSE (price), best" in page
