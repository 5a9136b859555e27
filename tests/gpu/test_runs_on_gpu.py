"""K-fold runs where there is a card: the default run of each family, a killed driver, half precision, folds that share a
card, and folds of two ranks."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.processes import REPOSITORY, clean_environment
from support.run_bits import describe_bits

from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.summary import read_summary
from ray_jobs.runs.record import count_lines

pytestmark = pytest.mark.slow
RECIPES = (
    "clip_multimodal_small",
    "clip_classification_small",
    "unet_segmentation_small",
    "gpt_pretraining_small",
    "llm_finetuning_small",
    "pixel_diffusion_small",
    "own_trainer",
)
WITHOUT = ("run.dashboard=false", "tracking.wandb=disabled")
SHORT = ("data.max_rows=60", "training.epochs=3", "checkpoint.min_interval_s=0")


def start(home: Path, name: str, *words: str) -> subprocess.Popen[bytes]:
    with (home / f"{name}.log").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "ray_jobs/kfold.py", f"run.name={name}", *WITHOUT, *words],
            cwd=REPOSITORY, env=clean_environment(HOME=str(home)), stdout=output, stderr=output,
        )  # fmt: skip


def finish(home: Path, name: str, *words: str) -> RunFolder:
    assert start(home, name, *words).wait(1800) == 0, (home / f"{name}.log").read_text()
    folder = RunFolder(home / "ray_results" / name)
    assert read_summary(folder).outcome == "complete"
    return folder


def read_log(home: Path, name: str) -> str:
    return (home / f"{name}.log").read_text()


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_default_run_of_each_family_is_complete_where_there_is_a_card(tmp_path, recipe):
    finish(tmp_path, recipe, f"--config-name={recipe}")


def test_a_run_whose_driver_is_killed_goes_on_with_the_same_bits(tmp_path):
    whole = finish(tmp_path, "whole", *SHORT)
    driver, folder = start(tmp_path, "killed", *SHORT), RunFolder(tmp_path / "ray_results" / "killed")
    deadline = time.monotonic() + 600
    while count_lines(folder.fold_record(0)) < 4:
        assert driver.poll() is None, read_log(tmp_path, "killed")
        assert time.monotonic() < deadline
        time.sleep(0.1)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    time.sleep(5)  # its workers end without it
    finish(tmp_path, "killed", *SHORT)
    assert describe_bits(folder) == describe_bits(whole)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("recipe", ["clip_multimodal_small", "unet_segmentation_small"])
def test_half_precision_gives_the_same_scores_again(tmp_path, recipe, precision):
    words = (f"--config-name={recipe}", "training.epochs=3")
    first, again = (finish(tmp_path, name, *words, f"training.precision={precision}") for name in ("first", "again"))
    assert read_summary(first).stage.scores == read_summary(again).stage.scores


def test_three_folds_share_a_card_with_the_bits_that_they_have_one_after_another(tmp_path):
    together = finish(tmp_path, "together", *SHORT, "resources.gpus_per_fold=0.33")
    alone = finish(tmp_path, "alone", *SHORT, "resources.gpus_per_fold=0.33", "resources.max_folds_at_once=1")
    assert describe_bits(together) == describe_bits(alone)


@pytest.mark.gpus(2)
@pytest.mark.parametrize("recipe", ["clip_multimodal_small", "unet_segmentation_small", "gpt_pretraining_small"])
def test_two_ranks_on_two_cards_give_the_same_scores_twice(tmp_path, recipe):
    words = (f"--config-name={recipe}", "resources.workers_per_fold=2", "resources.gpus_per_fold=2")
    first, again = (finish(tmp_path, name, *words) for name in ("first", "again"))
    assert read_summary(first).stage.scores == read_summary(again).stage.scores
