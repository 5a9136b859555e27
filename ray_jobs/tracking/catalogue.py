"""Every metric of a K-fold run by its exact name, when it is recorded and what it means.

The list that the README's table is made from and that a test walks against a real run.

    python -m ray_jobs.tracking.catalogue      the table in Markdown (`make metrics` puts it into the README)
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Metrics:
    """Metrics that are recorded together.

    Attributes:
        run: whose record and W&B run they are in: fold, ensemble or submission.
        moment: when a row with all of them is written.
        names: exact; `{i}` stands for a fold's number from 0.
        meaning: in a few words.
        family: the model family that records them; None: every family.
    """

    run: str
    moment: str
    names: tuple[str, ...]
    meaning: str
    family: str | None = None


START, STEP, EPOCH, BEST, END = (
    "at the start",
    "each optimiser step",
    "each epoch",
    "after the last epoch",
    "at the end",
)
STARTED, FOLD_STARTED, FOLD_COMPLETED, ALL_COMPLETED = "run starts", "fold starts", "fold ends", "all folds ended"
SUBMITTED, WEIGHTED = "submission written", "the same, methods with weights"
SCORED, WITH_INTERVAL, SWEPT = "with a blend set or members", "with `ensemble.interval`", "`sweep.py`"
REPORTED = "report written"


def _fold(names: str) -> tuple[str, ...]:
    return tuple(f"fold_{{i}}/{name}" for name in names.split())


def _ensemble(names: str) -> tuple[str, ...]:
    return tuple(f"ensemble/{name}" for name in names.split())


_CLIP, _UNET = "clip_regression", "unet_segmentation"
CATALOGUE = (
    Metrics("fold", START, _fold("model/total_params model/trainable_params model/frozen_params"), "parameters"),
    Metrics("fold", START, _fold("data/train_size data/val_size"), "rows"),
    Metrics("fold", START, _fold("setup/world_size setup/device"), "workers of the fold; cpu or cuda:0"),
    Metrics("fold", STEP, _fold("train/loss_step"), "loss of the batch over all workers"),
    Metrics("fold", STEP, _fold("learning_rate"), "of that step"),
    Metrics("fold", EPOCH, _fold("train/loss_epoch val/loss_epoch"), "mean over the rows; the trained loss"),
    Metrics("fold", EPOCH, _fold("learning_rate"), "of the epoch's last step"),
    Metrics("fold", EPOCH, _fold("val/msle val/mae val/mse val/rmse"), "in the target's unit, validation rows", _CLIP),
    Metrics(
        "fold", EPOCH, _fold("predictions/mean predictions/std targets/mean targets/std"), "validation rows", _CLIP
    ),
    Metrics("fold", EPOCH, _fold("weights/image weights/text weights/age"), "α, β, γ; they add up to 1", _CLIP),
    Metrics("fold", EPOCH, _fold("train/epoch_time train/samples_per_second"), "seconds; training rows, all workers"),
    Metrics("fold", EPOCH, _fold("train/data_wait_share"), "share of that time spent waiting for batches"),
    Metrics(
        "fold", EPOCH, _fold("epoch score"), "from 0; what best is chosen by, lower is better (MSLE; U-Net: 1 - Dice)"
    ),
    Metrics(
        "fold",
        EPOCH,
        _fold("val/dice val/iou val/dice_of_pictures"),
        "U-Net: of all validation pixels of all workers together; mean over the pictures",
        _UNET,
    ),
    Metrics("fold", BEST, _fold("best_epoch best_val_loss best_msle"), "of the epoch with the lowest MSLE", _CLIP),
    Metrics(
        "fold", BEST, _fold("best_epoch best_val_loss best_dice"), "U-Net: of the epoch with the highest Dice", _UNET
    ),
    Metrics("fold", END, _fold("training_completed final_best_val_loss total_epochs"), "predictions are written"),
    Metrics(
        "ensemble",
        STARTED,
        _ensemble("total_samples n_folds n_gpus world_size"),
        "rows, folds, GPUs and workers at once",
    ),
    Metrics("ensemble", FOLD_STARTED, _ensemble("fold_{i}_start fold_{i}_train_size fold_{i}_val_size"), "1; rows"),
    Metrics("ensemble", FOLD_COMPLETED, _ensemble("fold_{i}_completed"), "1"),
    Metrics("ensemble", ALL_COMPLETED, _ensemble("all_folds_completed ready_for_ensemble"), "1"),
    Metrics("ensemble", ALL_COMPLETED, _ensemble("fold_info"), "table: fold, train_size, val_size"),
    Metrics(
        "submission", SUBMITTED, _ensemble("n_models checkpoint_type method space test_samples"), "what was combined"
    ),
    Metrics(
        "submission",
        SUBMITTED,
        _ensemble("model_{i}/image_weight model_{i}/text_weight model_{i}/age_weight"),
        "α, β, γ of each model",
        _CLIP,
    ),
    Metrics(
        "submission",
        SUBMITTED,
        _ensemble("prediction_diversity pred_std_mean pred_std_max pred_std_min"),
        "standard deviation over the models: mean over rows, mean, largest, smallest",
    ),
    Metrics(
        "submission",
        SUBMITTED,
        _ensemble("final_pred_min final_pred_max final_pred_mean final_pred_std"),
        "of the combined predictions",
    ),
    Metrics("submission", SUBMITTED, _ensemble("submission_created submission_path"), "1; the file"),
    Metrics("submission", SUBMITTED, _ensemble("model_weights"), "table: fold or member, image, text, age"),
    Metrics(
        "submission",
        SUBMITTED,
        _ensemble("out_of_fold_dice out_of_fold_iou"),
        "of maps: all places that some fold validated; the diversity above is of probabilities, the predictions are shares of foreground",
        _UNET,
    ),
    Metrics(
        "submission",
        SUBMITTED,
        _ensemble("test_dice test_iou compared"),
        "of maps whose truth is known: the ensemble; table: each fold model and method",
        _UNET,
    ),
    Metrics("submission", WEIGHTED, _ensemble("model_{i}_weight"), "its share in the combination"),
    Metrics(
        "submission",
        SCORED,
        _ensemble("blend_msle best_member_msle"),
        "honest error of the combination, with members `ensemble/out_of_fold_msle`; of the best model in it; each for `ensemble.metric`",
        _CLIP,
    ),
    Metrics(
        "submission",
        SCORED,
        _ensemble("ambiguity effective_models"),
        "what the mean gains by the models' differing (Krogh and Vedelsby); how many independent ones they amount to",
        _CLIP,
    ),
    Metrics(
        "submission",
        SCORED,
        _ensemble("combinations"),
        "table: each model and method, its honest error and intervals",
        _CLIP,
    ),
    Metrics(
        "submission",
        WITH_INTERVAL,
        _ensemble("interval_level interval_kind interval_mean_width"),
        "cv+ or empirical",
        _CLIP,
    ),
    Metrics(
        "submission",
        SWEPT,
        _ensemble("sweep_combinations sweep_nested_error sweep_winner sweep_improvement sweep_improvement_low"),
        "number tried; error of the choice made inside each fold; the best, its improvement on the default and the bound for all",
        _CLIP,
    ),
    Metrics(
        "submission",
        SWEPT,
        _ensemble("sweep_replaces_default sweep_leaderboard"),
        "0 or 1; table of the best 100",
        _CLIP,
    ),
    Metrics(
        "submission",
        REPORTED,
        _ensemble("figures/loss_of_all_folds figures/modality_weights figures/final_predictions"),
        "pictures",
        _CLIP,
    ),
    Metrics(
        "submission",
        REPORTED,
        _ensemble("figures/loss_of_all_folds figures/example_overlays figures/dice_of_rows figures/disagreement"),
        "pictures of a run that predicts maps",
        _UNET,
    ),
)

# Of a tuning, which has a W&B run for each trial.
TUNING_CATALOGUE = (
    Metrics("trial", "`tune.py`: fold ends (asha)", ("tune/score", "tune/folds_done"), "of the folds trained so far"),
    Metrics(
        "trial",
        "`tune.py`: trial ends",
        ("tune/score", "tune/folds_done", "tune/seconds", "tune/state"),
        "`ensemble.metric` of all its out-of-fold predictions; folds; seconds of training; complete, stopped or failed",
    ),
    Metrics("trial", "`tune.py`: trial ends", ("tune/fold_{i}_score",), "of each fold"),
)


def write_table(catalogue: Sequence[Metrics] = (*CATALOGUE, *TUNING_CATALOGUE)) -> str:
    """The README's table: a line for each W&B run and moment."""
    titles = {
        "fold": "`{experiment}_fold{i}`",
        "ensemble": "`{experiment}_ensemble`",
        "trial": "`{experiment}_trial_{n}`",
    }
    lines = ["| W&B run | when | metrics |", "|---|---|---|"]
    for (run, moment), together in itertools.groupby(catalogue, key=lambda metrics: (metrics.run, metrics.moment)):
        cells = [f"{_shorten(metrics.names)} ({metrics.meaning})" for metrics in together]
        lines.append(f"| {titles.get(run, '`{experiment}_submission`')} | {moment} | {'; '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _shorten(names: Sequence[str]) -> str:
    """`fold_{i}/val/msle`, `…/mae`: what a name shares with the one before it is not repeated."""
    shown = [f"`{names[0]}`"]
    for before, name in itertools.pairwise(names):
        shared = before.rpartition("/")[0] + "/"
        shown.append(f"`…/{name.removeprefix(shared)}`" if name.startswith(shared) else f"`{name}`")
    return ", ".join(shown)


def insert_table(text: str) -> str:
    """A text with the table between its `<!-- metrics -->` and `<!-- /metrics -->`."""
    return re.sub(
        r"(?<=<!-- metrics -->\n).*?(?=<!-- /metrics -->)", lambda _: write_table(), text, count=1, flags=re.DOTALL
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(insert_table(Path(sys.argv[1]).read_text()))
    else:
        sys.stdout.write(write_table())
