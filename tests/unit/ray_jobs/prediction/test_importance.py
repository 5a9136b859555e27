"""What models look at: the error that grows when an input is shuffled."""

import numpy as np
import pyarrow as pa
import pytest
from support.made_map_run import make_map_run
from support.made_run import make_run

from ray_jobs.cli.console import open_console
from ray_jobs.errors import RunError
from ray_jobs.explain import main
from ray_jobs.prediction.importance import FoldRows, _measure, _predict_shuffled, find_rows
from ray_jobs.reporting.outcome import print_importance
from ray_jobs.reporting.report_figures import write_pictures
from ray_jobs.results.importance_file import Importance, read_importance, write_importance


def make_folds(num_rows=150):
    """Two folds whose models add up two of three columns."""
    folds = []
    for fold in range(2):
        rng = np.random.default_rng(fold)
        x = rng.uniform(1, 2, (num_rows, 3))
        block = pa.table({name: x[:, at] for at, name in enumerate("abc")})
        target = 3 * x[:, 0] + x[:, 1]
        folds.append(
            FoldRows(
                fold,
                np.arange(num_rows).astype(str),
                block,
                target,
                lambda rows: 3 * rows["a"].to_numpy() + rows["b"].to_numpy() + 0.01,
            )
        )
    return folds


def test_the_error_grows_by_what_a_model_looks_at_and_not_by_what_it_passes_over(tmp_path):
    _, config, _ = make_run(tmp_path / "run")
    folds = make_folds()
    target = np.concatenate([one.target_n for one in folds])
    base = np.concatenate([one.predict(one.block) for one in folds])
    found = {}
    for name in "abc":
        shuffled = [_predict_shuffled(folds, [name], repeat) for repeat in range(5)]
        found[name] = _measure(config, name, target, np.stack([base, *shuffled]))
    assert found["a"].importance > 3 * found["b"].importance > 0
    assert found["a"].low < found["a"].importance < found["a"].high
    assert (found["c"].importance, found["c"].low, found["c"].high) == (0, 0, 0)


def test_columns_of_one_input_are_shuffled_together_and_within_a_fold():
    folds = make_folds(20)
    seen = []
    spying = [
        FoldRows(one.fold, one.ids_n, one.block, one.target_n, lambda rows: seen.append(rows) or np.zeros(20))
        for one in folds
    ]
    _predict_shuffled(spying, ["a", "b"], repeat=1)
    for one, rows in zip(folds, seen, strict=True):
        before = list(zip(*(one.block[name].to_pylist() for name in "ab"), strict=True))
        after = list(zip(*(rows[name].to_pylist() for name in "ab"), strict=True))
        assert after != before
        assert sorted(after) == sorted(before)
        assert rows["c"].to_pylist() == one.block["c"].to_pylist()


def test_the_file_is_shown_on_the_terminal_and_in_the_report(tmp_path, capsys):
    folder, config, summary = make_run(tmp_path / "run")
    assert read_importance(folder) == []
    write_importance(
        folder, config, [Importance("picture", 0.2, 0.1, 0.3, 0.5), Importance("date", 0, -0.1, 0.1, 0.5)], 90
    )
    print_importance(open_console(), folder)
    shown = capsys.readouterr().out
    assert "msle grows by, on 90 out-of-fold rows of 0.5000" in shown
    assert "+0.1000 +0.3000" in shown
    assert {one.picture.name: one for one in write_pictures(folder, config, summary)}["importance"].png


def test_a_family_that_does_not_say_what_its_models_look_at_is_refused(tmp_path):
    folder, config, _ = make_map_run(tmp_path / "run")
    with pytest.raises(RunError, match=r"names no inputs that can be shuffled .* expected a run of a family that does"):
        find_rows(folder, config)
    with pytest.raises(RunError, match="--rows=5: expected at least 10"):
        main([str(folder.root), "--rows=5"])
