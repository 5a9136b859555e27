"""The metrics that only this family records, for the list of all metrics."""

from __future__ import annotations

from trainers.families import BEST, EPOCH, Metrics

METRICS = (
    Metrics(
        "fold",
        EPOCH,
        {
            "fold_{i}/val/dice": "U-Net: Dice of all validation pixels together; the score is 1 - Dice",
            "fold_{i}/val/iou": "U-Net: intersection over union of all validation pixels together",
            "fold_{i}/val/dice_of_pictures": "U-Net: Dice of each validation picture, mean over the pictures",
        },
    ),
    Metrics(
        "fold",
        BEST,
        {
            "fold_{i}/best_epoch": "epoch with the best score",
            "fold_{i}/best_val_loss": "validation loss of that epoch",
            "fold_{i}/best_dice": "U-Net: Dice of that epoch",
        },
    ),
)
