"""The metrics that only this family records, for the list of all metrics."""

from __future__ import annotations

from collections.abc import Mapping

from trainers.families import BEST, END, EPOCH, START, STEP, Metrics


def _fold(meanings: Mapping[str, str]) -> dict[str, str]:
    return {f"fold_{{i}}/{name}": meaning for name, meaning in meanings.items()}


METRICS = (
    Metrics(
        "fold",
        START,
        _fold(
            {
                "data/tokens": "GPT: tokens that are learned in an epoch",
                "data/tokens_left_over": "GPT: tokens at both ends of the stream that fill no window, in an epoch",
                "data/tokens_padded": "GPT: padded places of an epoch, at most",
            }
        ),
    ),
    Metrics(
        "fold",
        STEP,
        _fold(
            {
                "train/loss": "GPT: nats a token of the batch, over all its tokens",
                "train/perplexity": "GPT: its exponential",
                "train/grad_norm": "GPT: norm of all gradients before they are limited",
                "train/learning_rate": "GPT: learning rate of the step",
                "train/epoch": "GPT: number of the epoch, from 0",
                "train/step": "GPT: number of the optimiser step, from 1",
                "train/tokens": "GPT: tokens of the batch, all workers together",
            }
        ),
    ),
    Metrics(
        "fold",
        EPOCH,
        _fold(
            {
                "val/perplexity": "GPT: perplexity a token of the validation documents",
                "val/bits_per_byte": "GPT: bits for each byte of the validation documents",
                "val/excess_nats": "GPT: nats a token above the documents' entropy, where that is known",
                "eval/loss": "GPT: nats a token of the validation documents",
                "eval/perplexity": "GPT: its exponential",
                "eval/bits_per_byte": "GPT: bits for each of their bytes",
                "eval/step": "GPT: step of the evaluation",
                "eval/best_perplexity": "GPT: the lowest perplexity so far",
                "train/tokens_per_second": "GPT: tokens a second of training, all workers together",
                "train/elapsed_time": "GPT: seconds of training so far",
                "train/mfu": "GPT: share of a GPU's peak that the model's arithmetic uses; of GPUs that are known",
                "epoch/train_loss": "GPT: nats a token of the epoch's batches",
                "epoch/train_perplexity": "GPT: its exponential",
                "epoch/val_loss": "GPT: nats a token of the validation documents",
                "epoch/val_perplexity": "GPT: its exponential",
                "epoch/number": "GPT: number of the epoch, from 0",
                "epoch/best_perplexity": "GPT: the lowest perplexity so far",
            }
        ),
    ),
    Metrics(
        "fold",
        BEST,
        _fold(
            {
                "best_epoch": "epoch with the best score",
                "best_val_loss": "validation loss of that epoch",
                "best_perplexity": "GPT: perplexity of that epoch",
            }
        ),
    ),
    Metrics(
        "fold",
        END,
        _fold(
            {
                "final/best_perplexity": "GPT: the lowest perplexity of all evaluations",
                "final/total_steps": "GPT: optimiser steps",
                "final/total_epochs": "GPT: epochs; 0 where steps were asked for",
            }
        ),
    ),
)
