"""The metrics that only this family records, for the list of all metrics."""

from __future__ import annotations

from trainers.families import BEST, END, EPOCH, START, STEP, Metrics

_DISTANCES = {
    "kid_efficientnet_lite0": "1000 · KID to unseen pictures; the network of the features is in the metric's name",
    "kid_efficientnet_lite0_se": "its standard error",
    "kid_efficientnet_lite0_of_real": "1000 · KID of one half of the unseen pictures to the other",
    "kid_efficientnet_lite0_of_real_se": "its standard error",
}
_FRECHET = {
    "fid_efficientnet_lite0": "FID to unseen pictures, where there are 10,000 of both",
}

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
        "fold", EPOCH, {"fold_{i}/samples/grid": "pixel diffusion, `sampling.every_epochs`: pictures that it makes"}
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
        END,
        {
            "fold_{i}/samples/num_samples": "pixel diffusion: pictures that the best model has made",
            "fold_{i}/samples/pictures_of_a_side": "pixel diffusion: training and unseen pictures beside them, each",
            "fold_{i}/samples/nearer_to_training": "pixel diffusion: share nearer to a training than to an unseen one",
            "fold_{i}/samples/nearer_to_training_of_real": "pixel diffusion: the same share of unseen pictures",
        },
    ),
    Metrics(
        "fold",
        END,
        {"fold_{i}/samples/valid": "pixel diffusion, made-up data: share that are nearly a picture of their class"},
    ),
    Metrics(
        "fold", END, {f"fold_{{i}}/samples/{name}": f"pixel diffusion: {what}" for name, what in _DISTANCES.items()}
    ),
    Metrics("fold", END, {f"fold_{{i}}/samples/{name}": f"pixel diffusion: {what}" for name, what in _FRECHET.items()}),
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
