"""The submission stage on a finished run, by each method."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.made_run import make_run

from ensemble.config import METHODS
from ray_jobs.cli.console import open_console
from ray_jobs.config.run import to_dict
from ray_jobs.leaderboard import main
from ray_jobs.reporting.html_report import write_report
from ray_jobs.reporting.outcome import print_outcome
from ray_jobs.results.stage import run_ensemble_stage
from ray_jobs.results.summary import build_summary
from ray_jobs.runs.files import read_json, write_json


def test_every_method_writes_its_submission_between_the_models(tmp_path):
    folder, config, _ = make_run(tmp_path / "run", num_folds=5, num_epochs=1)
    for method in METHODS:
        ensemble = replace(config.ensemble, method=method, space="raw")
        write_json(folder.config, to_dict(replace(config, ensemble=ensemble)))
        assert run_ensemble_stage(str(folder.root)).submission.facts["method"] == method
        info = json.loads((folder.root / f"submission_{method}.json").read_text())
        assert info["trim"] == (0.2 if method == "trimmed_mean" else None)
        table = pq.read_table(folder.test_predictions)
        models = np.array([table[f"model_{number}"].to_numpy() for number in range(5)])
        assert (table["prediction"].to_numpy() >= models.min(axis=0) - 1e-9).all()
        assert (table["prediction"].to_numpy() <= models.max(axis=0) + 1e-9).all()


@pytest.mark.parametrize("metric", ["msle", "r2"])
@pytest.mark.parametrize("value", [0.0, 7.0])
@pytest.mark.parametrize("members", [(), ("wide model.hidden_dim=128",)])
def test_everything_after_the_training_works_with_a_constant_target(tmp_path, capsys, members, value, metric):
    folder, config, _ = make_run(tmp_path / "run", members=members, num_epochs=1)
    for path in folder.root.glob("**/predictions/validation_*.parquet"):
        table = pq.read_table(path)
        constant = pa.array(np.full(len(table), value))
        pq.write_table(table.set_column(table.column_names.index("target"), "target", constant), path)
    for own in map(folder.of_member, config.member_names):
        write_json(own.provenance, read_json(folder.provenance) | {"constant_predictions": [value] * 3})
        for fold in range(3):
            own.fold(fold).write_manifest()
    config = replace(config, ensemble=replace(config.ensemble, metric=metric))
    write_json(folder.config, to_dict(config))
    summary = build_summary(folder, config, run_ensemble_stage(str(folder.root)), {"total": 1.0})
    print_outcome(open_console(), folder, summary)
    write_report(folder, config, summary)
    main([f"run.storage={tmp_path}"])
    shown = capsys.readouterr().out
    if not members:
        title, of_constant = ("MSLE", "0.0000") if metric == "msle" else ("r2", "1.0000")
        assert f"out-of-fold {title} is " in shown
        assert f"the training rows' log mean would have {of_constant}" in shown
