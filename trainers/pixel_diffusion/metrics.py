"""The metrics that only this family records, for the list of all metrics."""

from __future__ import annotations

from trainers.families import BEST, EPOCH, START, STEP, Metrics

METRICS = (
    Metrics(
        "fold",
        START,
        {
            "fold_{i}/setup/effective_batch": "pixel diffusion: pictures of an optimiser step, over all workers",
            "fold_{i}/setup/learning_rate": "pixel diffusion: the peak learning rate",
        },
    ),
    Metrics(
        "fold",
        STEP,
        {
            "fold_{i}/train/loss": "pixel diffusion: as `train/loss_step`",
            "fold_{i}/train/learning_rate": "pixel diffusion: as `learning_rate`",
            "fold_{i}/train/grad_norm": "pixel diffusion: norm of all gradients together, before they are scaled down",
        },
    ),
    Metrics(
        "fold",
        EPOCH,
        {
            "fold_{i}/val/v_loss": "pixel diffusion: v-loss of validation rows, each at a fixed time with fixed noise",
            "fold_{i}/train/epoch_loss": "pixel diffusion: as `train/loss_epoch`",
            "fold_{i}/train/best_loss": "pixel diffusion: the lowest of these so far",
        },
    ),
    Metrics(
        "fold",
        EPOCH,
        {
            "fold_{i}/val/v_loss_ema_0": "pixel diffusion, several `training.ema_decays`: v-loss by the first average",
            "fold_{i}/val/v_loss_ema_1": "pixel diffusion: likewise by the second, and so on",
        },
    ),
    Metrics(
        "fold",
        BEST,
        {
            "fold_{i}/best_epoch": "epoch with the best score",
            "fold_{i}/best_val_loss": "validation loss of that epoch",
            "fold_{i}/best_v_loss": "pixel diffusion: v-loss of that epoch",
        },
    ),
)
