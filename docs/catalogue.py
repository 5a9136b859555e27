"""Every metric of a K-fold run by its exact name: when it is recorded and what it means.

`docs/generate.py` writes docs/metrics.md from it, and a test compares it with a real run. What only a model family
records stands in its own `metrics.py`, what only a kind of predictions does in the `records` of its `kind.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ensemble.kinds import find_kinds
from trainers.families import BEST, END, EPOCH, REPORTED, START, STEP, SUBMITTED, Metrics, find_families, load_metrics

ENDED_EARLY = "training ends before all epochs"
STARTED, FOLD_STARTED, FOLD_COMPLETED, ALL_COMPLETED = "run starts", "fold starts", "fold ends", "all folds ended"
WEIGHTED = "submission written, methods with weights"
SCORED, WITH_INTERVAL, SWEPT = "with a blend set or members", "with `ensemble.interval`", "`sweep.py`"
WITH_SEEDS = "with `ensemble.seeds`"
FOLD_TUNED, TUNED = "`tune.py` with ASHA: a fold ends", "`tune.py`: the trial ends"
_RUNS = ("fold", "ensemble", "submission", "trial")
_MOMENTS = (
    *(START, STEP, EPOCH, ENDED_EARLY, BEST, END),
    *(STARTED, FOLD_STARTED, FOLD_COMPLETED, ALL_COMPLETED),
    *(SUBMITTED, WEIGHTED, SCORED, WITH_SEEDS, WITH_INTERVAL, SWEPT, REPORTED),
)


def _fold(meanings: Mapping[str, str]) -> dict[str, str]:
    return {f"fold_{{i}}/{name}": meaning for name, meaning in meanings.items()}


def _ensemble(meanings: Mapping[str, str]) -> dict[str, str]:
    return {f"ensemble/{name}": meaning for name, meaning in meanings.items()}


_OF_FOLDS = (
    Metrics(
        "fold",
        START,
        _fold(
            {
                "model/total_params": "parameters of the model",
                "model/trainable_params": "parameters that are trained",
                "model/frozen_params": "parameters that are frozen",
            }
        ),
    ),
    Metrics("fold", START, _fold({"data/train_size": "training rows", "data/val_size": "validation rows"})),
    Metrics("fold", START, _fold({"setup/world_size": "workers of the fold", "setup/device": "`cpu` or `cuda:0`"})),
    Metrics("fold", STEP, _fold({"train/loss_step": "training loss of the batch, over all workers"})),
    Metrics("fold", STEP, _fold({"learning_rate": "learning rate of the step"})),
    Metrics(
        "fold",
        EPOCH,
        _fold(
            {
                "train/loss_epoch": "training loss, mean over the training rows",
                "val/loss_epoch": "the same loss, mean over the validation rows",
            }
        ),
    ),
    Metrics("fold", EPOCH, _fold({"learning_rate": "learning rate of the epoch's last step"})),
    Metrics(
        "fold",
        EPOCH,
        _fold(
            {
                "train/epoch_time": "seconds of training",
                "train/samples_per_second": "training rows per second, all workers together",
            }
        ),
    ),
    Metrics("fold", EPOCH, _fold({"train/data_wait_share": "share of the training time spent waiting for batches"})),
    Metrics(
        "fold",
        EPOCH,
        _fold(
            {
                "epoch": "number of the epoch, from 0",
                "score": "what the best epoch is chosen by; lower is better",
            }
        ),
    ),
    Metrics(
        "fold",
        ENDED_EARLY,
        _fold(
            {
                "ended_by_patience": "the step at which nothing had got better for so long (`training.patience`)",
                "ended_by_budget": "the step at which its time was up (`run.time_budget`), or the steps of a refit "
                "done",
            }
        ),
    ),
    Metrics(
        "fold",
        END,
        _fold(
            {
                "training_completed": "1: the fold's predictions are written",
                "final_best_val_loss": "validation loss of the best epoch",
                "total_epochs": "epochs that were trained",
            }
        ),
    ),
)

_OF_COORDINATION = (
    Metrics(
        "ensemble",
        STARTED,
        _ensemble(
            {
                "total_samples": "rows that the folds divide",
                "n_folds": "folds",
                "n_gpus": "GPUs that the folds use at once",
                "world_size": "workers that train at once",
            }
        ),
    ),
    Metrics(
        "ensemble",
        FOLD_STARTED,
        _ensemble(
            {
                "fold_{i}_start": "1",
                "fold_{i}_train_size": "training rows of the fold",
                "fold_{i}_val_size": "validation rows of the fold",
            }
        ),
    ),
    Metrics("ensemble", FOLD_COMPLETED, _ensemble({"fold_{i}_completed": "1"})),
    Metrics("ensemble", ALL_COMPLETED, _ensemble({"all_folds_completed": "1", "ready_for_ensemble": "1"})),
    Metrics("ensemble", ALL_COMPLETED, _ensemble({"fold_info": "table: fold, train_size, val_size"})),
)

_OF_SUBMISSION = (
    Metrics(
        "submission",
        SUBMITTED,
        _ensemble(
            {
                "n_models": "models that were combined",
                "checkpoint_type": "`best` or `final`",
                "method": "`ensemble.method`",
                "space": "`ensemble.space`",
                "test_samples": "rows that were predicted",
            }
        ),
    ),
    Metrics(
        "submission",
        SUBMITTED,
        _ensemble(
            {
                "prediction_diversity": (
                    "standard deviation over the models, mean over the rows; of maps: of probabilities"
                ),
                "pred_std_mean": "the same number under a second name",
                "pred_std_max": "largest standard deviation of a row",
                "pred_std_min": "smallest standard deviation of a row",
            }
        ),
    ),
    Metrics(
        "submission",
        SUBMITTED,
        _ensemble(
            {
                "final_pred_min": "smallest combined prediction; of maps: share of foreground, of classes: the "
                "probability of the likeliest",
                "final_pred_max": "largest combined prediction",
                "final_pred_mean": "mean combined prediction",
                "final_pred_std": "standard deviation of the combined predictions",
            }
        ),
    ),
    Metrics(
        "submission", SUBMITTED, _ensemble({"submission_created": "1", "submission_path": "the submission's file"})
    ),
    Metrics(
        "submission",
        SUBMITTED,
        _ensemble({"model_weights": "table: fold or member, and the weights inside each model if it has any"}),
    ),
    Metrics("submission", WEIGHTED, _ensemble({"model_{i}_weight": "the model's share in the combination"})),
    Metrics(
        "submission",
        SCORED,
        _ensemble({"combinations": "table: each model and each method, its error and its intervals"}),
    ),
    Metrics(
        "submission",
        SWEPT,
        _ensemble(
            {
                "sweep_combinations": "combinations that were tried",
                "sweep_nested_error": "error of the choice that is made anew inside each fold",
                "sweep_winner": "the best combination",
                "sweep_improvement": "by how much it is better than the default",
                "sweep_improvement_low": "lower bound of that, for all combinations together",
            }
        ),
    ),
    Metrics(
        "submission",
        SWEPT,
        _ensemble(
            {
                "sweep_replaces_default": "1: the best combination replaces the default; 0: it does not",
                "sweep_leaderboard": "table of the best 100 combinations",
            }
        ),
    ),
)


def _of_kinds() -> list[Metrics]:
    """What only one kind of predictions records of a submission."""
    return [
        Metrics("submission", moment, _ensemble(meanings), kind=name)
        for name, kind in find_kinds().items()
        for moment, meanings in kind.records
    ]


def _collect(common: Sequence[Metrics]) -> tuple[Metrics, ...]:
    """These, and every kind's and family's own, in the order of a run; of a moment the common ones first."""
    own = [replace(metrics, family=family) for family in find_families() for metrics in load_metrics(family)]
    return tuple(
        sorted((*common, *_of_kinds(), *own), key=lambda one: (_RUNS.index(one.run), _MOMENTS.index(one.moment)))
    )


CATALOGUE = _collect((*_OF_FOLDS, *_OF_COORDINATION, *_OF_SUBMISSION))

# Of a tuning, which has a W&B run for each trial.
TUNING_CATALOGUE = (
    Metrics(
        "trial",
        FOLD_TUNED,
        {"tune/score": "`ensemble.metric` of the folds trained so far", "tune/folds_done": "folds trained so far"},
    ),
    Metrics(
        "trial",
        TUNED,
        {
            "tune/score": "`ensemble.metric` of all out-of-fold predictions of the trial",
            "tune/folds_done": "folds that were trained",
            "tune/seconds": "seconds of training",
            "tune/state": "`complete`, `stopped` or `failed`",
        },
    ),
    Metrics("trial", TUNED, {"tune/fold_{i}_score": "`ensemble.metric` of one fold"}),
)


def list_metrics(family: str, kind: str) -> list[Metrics]:
    """The metrics of a run of a family that predicts a kind (its `Config.PREDICTS`)."""
    return [one for one in CATALOGUE if one.family in (None, family) and one.kind in (None, kind)]
