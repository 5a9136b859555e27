"""A K-fold run of samples without training: every file of its folder, written by the project's own writers, from the
made-up pictures and noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ray_jobs.cli.command_line import parse_kfold
from ray_jobs.config.run import RunConfig
from ray_jobs.planning.checks import check_run
from ray_jobs.planning.continuation import write_or_compare
from ray_jobs.planning.plan import Plan
from ray_jobs.results.stage import run_ensemble_stage
from ray_jobs.results.summary import build_summary, save_summary
from ray_jobs.runs.checkpoints import CHECKPOINTS, write_checkpoint
from ray_jobs.runs.files import read_json, write_json, write_parquet
from ray_jobs.runs.folder import RunFolder
from trainers.pixel_diffusion.diffusion.fixed_noise import place_times
from trainers.predictions import DenoisingLosses, MadeSamples

NUM_SAMPLES, PLACES = 6, 40


def make_sample_run(root: Path, *words: str) -> tuple[RunFolder, RunConfig, dict[str, Any]]:
    """Three folds on some of the made-up pictures; each fold's model errs by noise of its own beside a shared one.

    Returns:
        Folder, config and what `summary.json` holds.
    """
    places = [f"run.name={root.name}", f"run.storage={root.parent}", "tracking.wandb=disabled", "data.max_rows=90"]
    command = parse_kfold(["--config-name=pixel_diffusion_small", *places, *words])
    plan = write_or_compare(check_run(command.config, None), [], print)
    for number, name in enumerate(plan.members):
        for fold in range(plan.config.folds.count):
            _write_fold(plan, name, number, fold)
    folder = plan.folder
    config = folder.read_config()
    save_summary(folder, config, build_summary(folder, config, run_ensemble_stage(str(folder.root)), {"total": 1.0}))
    return folder, config, read_json(folder.summary)


def _write_fold(plan: Plan, name: str, number: int, fold: int) -> None:
    member, inventory = plan.members[name], plan.inventory
    folder, split, process = member.folder, member.folds.split(fold), plan.config.trainer.process
    wanted = {"validation": split.validation_ids, "blend": split.blend_ids, "test": inventory.test_ids}
    of = {"fold": fold, "member": folder.member}
    state = {"fold": fold, "state": "completed", "attempt": 1, "started": 1e9, "finished": 1e9 + 9}
    write_json(folder.fold(fold).status, state)
    for checkpoint in CHECKPOINTS:
        for rows, ids in wanted.items():
            if ids is None or not len(ids):
                continue
            times = place_times(ids.tolist(), process)
            shape = (*times.shape, PLACES)
            shared = np.stack([np.random.default_rng(list(row_id.encode())).normal(size=shape[1:]) for row_id in ids])
            own = np.random.default_rng([number, fold]).normal(size=shape)
            error = (0.2 * shared + 0.2 * own).astype(np.float16)
            loss = (error.astype(np.float64) ** 2).mean(axis=2)
            known = {"floor": loss / 3, "memoriser": 2 * loss}
            kept = DenoisingLosses(ids, times, loss, np.full(len(ids), 0.5), error, process.describe(), known)
            table = plan.config.kind.tabulate(kept, checkpoint=checkpoint, **of)
            write_parquet(folder.fold(fold).predictions(rows, checkpoint), table)
        write_checkpoint(folder.fold(fold).checkpoint(checkpoint), b"none", {"epoch": 3, "model_summary": {}})
    samples = plan.config.kind.tabulate(_make_samples(fold, split.train_ids), checkpoint="best", **of)
    write_parquet(folder.fold(fold).predictions("samples", "best"), samples)
    folder.fold(fold).write_manifest()


def _make_samples(fold: int, ids: np.ndarray) -> MadeSamples:
    rng, names = np.random.default_rng(fold), np.array([f"sample_{number}" for number in range(NUM_SAMPLES)])
    pictures = rng.integers(0, 256, (NUM_SAMPLES, 3, 16, 16), np.uint8)
    near = (ids[:NUM_SAMPLES], rng.random(NUM_SAMPLES), pictures)
    facts = {"num_samples": NUM_SAMPLES, "nearer_to_training": 0.5, "nearer_to_training_of_real": 0.5, "valid": 0.25}
    facts |= {"kid_efficientnet_lite0": 12.0 + fold, "kid_efficientnet_lite0_se": 1.0}
    return MadeSamples(names, np.array(["disc"] * NUM_SAMPLES), pictures, {"training": near, "held_out": near}, facts)
