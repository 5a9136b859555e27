"""`generate.py`: its flags are the family's, and a run of a family that makes nothing is refused."""

import types
from dataclasses import dataclass

import pytest
from support.made_run import make_run

from ray_jobs import generate
from ray_jobs.errors import RunError
from trainers.values import check_number

FAMILY = "clip_regression"


@dataclass(frozen=True)
class Options:
    """Of a family."""

    count: int = 3
    """How many are made."""

    def __post_init__(self):
        check_number("--count", self.count, least=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "made")[0].root


@pytest.fixture
def with_family(monkeypatch):
    module = types.ModuleType(f"trainers.{FAMILY}.generate")
    module.Options = Options
    monkeypatch.setattr("trainers.interface.load_generate_module", lambda family: module)
    monkeypatch.setattr("ray_jobs.prediction.generation.load_generate_module", lambda family: module)


def test_a_run_of_a_family_that_makes_nothing_is_refused(run):
    with pytest.raises(RunError, match="its models make nothing new: expected a run of a family"):
        generate.main([str(run)])


def test_flags_are_those_of_the_family_and_are_checked(run, with_family, capsys):
    with pytest.raises(SystemExit):
        generate.main([str(run), "--help"])
    assert "How many are made." in capsys.readouterr().out
    for words, message in {
        ("--count=0",): "--count=0: expected at least 1",
        ("--cuont=2",): "no flag --cuont; nearest: --count",
        ("--fold=7",): "--fold=7: expected one of 0, 1, 2",
        ("--threads=0",): "--threads=0: expected at least 1",
        ("folds.count=2",): "no field 'folds.count'",
        ("--device=tpu:9",): "--device=tpu:9: expected cpu, cuda:0 or auto",
        ("--output", str(run)): "exists and is not empty: expected a new or an empty folder",
    }.items():
        with pytest.raises(RunError) as caught:
            generate.main([str(run), *words])
        assert message in str(caught.value)
