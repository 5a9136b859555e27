"""A package that is missing is told with the command that installs it."""

import importlib
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "package", "extra"), [("lightning", "lightning", "lightning"), ("hugging_face", "transformers", "hf")]
)
def test_a_framework_that_is_missing_is_told_with_its_extra(monkeypatch, module, package, extra):
    name = f"ray_jobs.api.{module}"
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(
        ModuleNotFoundError, match=rf"no package '{package}.*pip install 'ray-kfold\[{extra}\]'"
    ) as told:
        importlib.import_module(name)
    assert told.value.name.startswith(package)
