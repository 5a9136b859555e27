"""What `pip install` may take is what `make` installs: the pins lie in the ranges."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from support.processes import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
PINS = dict(re.findall(r"^([A-Za-z0-9._-]+)==([^ ;]+)", (REPOSITORY / "requirements.txt").read_text(), re.MULTILINE))
EXTRAS = PROJECT["project"]["optional-dependencies"]
# Nothing of the project needs them.
NOT_PINNED = {"tensorboard", "lightning", "hf", "boosting"}
WANTED = [
    *PROJECT["project"]["dependencies"],
    *PROJECT["dependency-groups"]["dev"],
    *(one for name, extra in EXTRAS.items() if name not in NOT_PINNED for one in extra),
]


@pytest.mark.parametrize("text", WANTED)
def test_a_pin_lies_in_its_range(text):
    wanted = Requirement(text)
    assert PINS[wanted.name.lower().replace("_", "-")] in wanted.specifier


def test_only_packages_of_which_too_much_is_used_have_no_room_above():
    bounded = {one.name for one in map(Requirement, WANTED) if "<" in str(one.specifier)}
    assert bounded == {"ray", "wandb", "open_clip_torch"}


def test_make_requirements_takes_every_extra_that_is_imported():
    makefile = (REPOSITORY / "Makefile").read_text()
    assert set(re.findall(r"--extra (\w+)", makefile)) == EXTRAS.keys() - NOT_PINNED
