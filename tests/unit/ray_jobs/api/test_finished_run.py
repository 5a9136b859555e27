"""A finished run as a script and a notebook read it."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from PIL import Image
from support.made_class_run import make_class_run

from ray_jobs.api.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    folder, _, _ = make_class_run(
        tmp_path_factory.mktemp("storage") / "made", "data.max_rows=90", "ensemble.interval=0.8"
    )
    return Run(folder.root)


def test_a_run_has_a_row_of_scores_for_each_fold_and_a_prediction_for_each_row(run):
    assert run.fold_scores["fold"].tolist() == [0, 1, 2]
    assert run.fold_scores["num_rows"].sum() == len(run.oof) == 90
    assert list(run.oof) == ["id", "fold", "target", "prediction", "probability"]
    assert repr(run).startswith(f"Run({str(run.folder)!r}: out of fold log_loss ")


def test_a_submission_of_classes_has_the_set_that_holds_the_true_one_so_often(run):
    likeliest, *_, sets = (run.submission[name] for name in run.submission.columns[1:])
    assert sets.name == f"{likeliest.name}_set"
    held = [name in json.loads(text) for name, text in zip(likeliest, sets, strict=True)]
    assert np.mean(held) > 0.7
    facts = run.summary["submission"]["interval"]
    assert (facts["level"], facts["kind"], facts["guaranteed"]) == (0.8, "empirical", None), "stratified folds"
    assert facts["mean_size"] == np.mean([len(json.loads(text)) for text in sets])


def test_a_notebook_shows_the_scores_and_the_first_figure_of_the_report(run):
    assert "<img" not in run._repr_html_()
    figure = run.folder / "figures" / "confusion.png"
    figure.parent.mkdir(exist_ok=True)
    Image.new("RGB", (2, 2)).save(figure)
    shown = run._repr_html_()
    assert f"base64,{base64.b64encode(figure.read_bytes()).decode()}" in shown
    assert shown.count("<tr") == 1 + 3 + 1, "a heading, three folds, and all rows"
    assert f">{run.scores['log_loss']:.4g}</td>" in shown
    assert "<script" not in shown
