"""The submission stage on a finished run, by each method."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
from support.made_run import make_run

from ensemble.config import METHODS
from ray_jobs.config.run import to_dict
from ray_jobs.results.stage import run_ensemble_stage
from ray_jobs.runs.files import write_json


def test_every_method_writes_its_submission_between_the_models(tmp_path):
    folder, config, _ = make_run(tmp_path / "run", num_folds=5, num_epochs=1)
    for method in METHODS:
        ensemble = replace(config.ensemble, method=method, space="raw")
        write_json(folder.config, to_dict(replace(config, ensemble=ensemble)))
        assert run_ensemble_stage(str(folder.root))["submission"]["method"] == method
        info = json.loads((folder.root / f"submission_{method}.json").read_text())
        assert info["trim"] == (0.2 if method == "trimmed_mean" else None)
        table = pq.read_table(folder.test_predictions)
        models = np.array([table[f"model_{number}"].to_numpy() for number in range(5)])
        assert (table["prediction"].to_numpy() >= models.min(axis=0) - 1e-9).all()
        assert (table["prediction"].to_numpy() <= models.max(axis=0) + 1e-9).all()
