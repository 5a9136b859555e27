"""`evaluate.py` and `ablation.py`: a run of a family without an evaluation of its own is refused, and so is no run."""

import pytest
from support.made_run import make_run

from ray_jobs import ablation, evaluate
from ray_jobs.errors import RunError


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
