"""The folds' gauges and the Grafana board that shows them."""

from __future__ import annotations

import json
import logging
import re

import pytest
from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES
from support.processes import REPOSITORY

from ray_jobs.runs.json_files.status import FoldState, FoldStatus
from ray_jobs.tracking.gauges import GAUGES, STATE_NUMBERS, FoldGauges


@pytest.fixture(scope="module")
def board():
    return json.loads((REPOSITORY / "ray_jobs/deploy/grafana_kfold.json").read_text())


def read_gauges(status):
    return {gauge.name: gauge.read(status) for gauge in GAUGES}


def test_a_gauge_without_a_value_is_not_set_and_a_fold_has_a_speed_only_while_it_trains():
    assert {name for name, value in read_gauges(FoldStatus(0)).items() if value is not None} == {
        "kfold_fold_state",
        "kfold_epoch",
    }
    trained = {"epoch": 3, "train_loss": 1.0, "val_loss": 2.0, "score": 0.5, "samples_per_second": 70.0}
    training = read_gauges(FoldStatus(0, state=FoldState.TRAINING, **trained))
    assert list(training.values()) == [1, 3, 1.0, 2.0, 0.5, 70.0]
    completed = read_gauges(FoldStatus(0, state=FoldState.COMPLETED, **trained))
    assert completed == training | {"kfold_fold_state": 2, "kfold_samples_per_second": None}


def test_gauges_that_fail_are_warned_of_once_and_raise_nothing(caplog):
    gauges = FoldGauges("run", {"main": {0: FoldStatus(0, score="not a number")}})
    with caplog.at_level(logging.WARNING):
        gauges.export()
        gauges.export()
    assert [record.message for record in caplog.records] == ["the gauges of run run fail and are not set any more"]


def test_the_board_asks_only_for_metrics_that_are_exported_and_shows_every_gauge(board):
    texts = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    texts += [variable["definition"] for variable in board["templating"]["list"] if variable["type"] == "query"]
    asked = {name for text in texts for name in re.findall(r"\bray_\w+", text)}
    own = {f"ray_{gauge.name}" for gauge in GAUGES}
    assert own <= asked
    assert asked - own <= {f"ray_{name}" for name in METRICS_GAUGES}


def test_the_board_has_unique_panels_a_chosen_data_source_and_names_for_the_states(board):
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    sources = [part["datasource"]["uid"] for panel in board["panels"] for part in (panel, *panel["targets"])]
    assert set(sources) == {"${datasource}"}
    assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource", "run", "fold"]
    (timeline,) = [panel for panel in board["panels"] if panel["type"] == "state-timeline"]
    shown = timeline["fieldConfig"]["defaults"]["mappings"][0]["options"]
    assert {value: option["text"] for value, option in shown.items()} == {
        str(number): state for state, number in STATE_NUMBERS.items()
    }
