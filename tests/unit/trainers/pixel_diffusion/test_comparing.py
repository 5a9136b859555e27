"""What decides how noisy rows are is never chosen by a score, and never differs among what is compared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ensemble.kinds import load_kind
from ray_jobs.config.members import resolve_members
from ray_jobs.config.recipes import RECIPES
from ray_jobs.errors import RunError, RunFolderError
from ray_jobs.results.leaderboard import Entry, group_entries
from ray_jobs.tuning.space import parse_space

CONFIG = RECIPES["pixel_diffusion_small"]()


def test_members_and_trials_have_the_run_s_process():
    assert set(resolve_members(replace(CONFIG, members=("wide model.width=128",)))) == {"main", "wide"}
    with pytest.raises(
        RunError, match=r"'easy': process.noise_scale=0.5: expected 1, as in the run: it decides what task"
    ):
        resolve_members(replace(CONFIG, members=("easy process.noise_scale=0.5",)))
    with pytest.raises(RunError, match=r"tune.space: process.noise_scale decides what task scores are of"):
        parse_space(["process.noise_scale uniform 0.1 1.0"], CONFIG)


def test_runs_with_other_noise_are_refused_side_by_side_with_the_reason():
    kind = load_kind("samples")

    def enter(run: str, noise_scale: float) -> Entry:
        truth = np.array([noise_scale, -0.8, 0.8, 0.05, 0.4, 0.2, 0.3, 0.5, 0.9])
        rows = {f"r{number}": (truth, np.ones(4), 0) for number in range(4)}
        return Entry(run, "main", rows, {}, kind, "v_loss", kind.describe_metric)

    (group,) = group_entries([enter("a", 1.0), enter("b", 1.0)])
    assert len(group.entries) == 2
    with pytest.raises(RunFolderError, match=r"a main and b main are not compared: losses under different processes"):
        group_entries([enter("a", 1.0), enter("b", 0.5)])
