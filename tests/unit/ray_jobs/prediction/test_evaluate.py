"""`evaluate.py` and `ablation.py`: a run of a family without an evaluation of its own is refused, and so is no run."""

from pathlib import Path

import pytest
from support.made_run import make_run

from ray_jobs import ablation, evaluate
from ray_jobs.errors import RunError
from ray_jobs.prediction.evaluation import EvaluateRequest, _find_rows
from ray_jobs.results.run_files import list_blend_ids


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "made")[0].root


@pytest.mark.parametrize("command", [evaluate, ablation])
def test_a_run_of_a_family_without_an_evaluation_is_refused(run, command):
    with pytest.raises(RunError, match=r"is a run of clip_regression, which has no evaluation of its own: expected"):
        command.main([str(run)])


def test_without_a_run_the_usage_is_told():
    with pytest.raises(RunError, match=r"RUN is missing; usage: .*evaluate.py RUN"):
        evaluate.main(["--data", "x.jsonl"])


def test_the_blend_set_is_evaluated_where_there_is_one_and_nothing_else_is_named(tmp_path):
    def find(place, **how):
        folder, config, _ = make_run(tmp_path / "run", **how)
        request = EvaluateRequest(place, None, None, "cpu", 1, is_blend=True)
        assert list_blend_ids(folder) == [f"b{number}" for number in range(how.get("num_blend", 0))]
        return _find_rows(folder, config, request)

    with pytest.raises(RunError, match=r"has no blend set: expected a run with folds\.blend_fraction=0\.1"):
        find(None)
    with pytest.raises(RunError, match=r"--data=x\.jsonl and --blend: expected one of both"):
        find(Path("x.jsonl"), num_blend=4)
