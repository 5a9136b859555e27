"""The pictures that a fold makes at its end, of the same noise and labels in each fold, and what is measured of them.

Shape suffixes: N samples, M pictures, C colours, H height, W width.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from trainers.learning.batches import cut
from trainers.pixel_diffusion.config import NOT_MEASURED
from trainers.pixel_diffusion.diffusion.features import LEAST_FOR_DISTANCE, load_network, measure_distances
from trainers.pixel_diffusion.diffusion.fixed_noise import draw_sample_noise
from trainers.pixel_diffusion.diffusion.neighbours import MOST_PICTURES, find_nearest, measure_share, shrink
from trainers.pixel_diffusion.diffusion.sampler import Guidance, draw_samples
from trainers.pixel_diffusion.fold.evaluation import DiffusionFold
from trainers.pixel_diffusion.rows.shapes_data import SIZE, is_made, list_pictures
from trainers.predictions import MadeSamples

logger = logging.getLogger(__name__)
_VALID = 0.12  # root mean square difference from a picture that there is


def make_pictures(fold: DiffusionFold, numbers: np.ndarray) -> np.ndarray:
    """Samples by their numbers, (N, C, H, W) uint8, of the model as it is now."""
    sampling, model, device = fold.config.sampling, fold.model, fold.context.device
    shape, guidance = (3, model.size, model.size), sampling.guidance if fold.classes else 1.0
    model.eval()
    parts = [np.empty((0, *shape), np.uint8)]
    for portion in cut(numbers, fold.config.training.eval_batch_size):
        noise = np.stack([draw_sample_noise(sampling.seed, number, shape) for number in portion.tolist()])
        made = draw_samples(
            fold.config.process,
            fold.predict_clean,
            torch.from_numpy(noise).to(device),
            torch.from_numpy(portion % model.num_classes).to(device),
            model.num_classes,
            steps=sampling.steps,
            guidance=Guidance(guidance, sampling.guidance_low, sampling.guidance_high),
        )
        parts.append(made.cpu().numpy())
        fold.context.touch()
    return np.concatenate(parts)


@torch.inference_mode()
def make_samples(fold: DiffusionFold, ids: np.ndarray) -> MadeSamples:
    """This rank's samples of all, with what is measured of all of them.

    Args:
        fold: with the model that makes them.
        ids: (N,) str, of all samples.
    """
    rank, world_size = fold.context.rank, fold.context.world_size
    numbers = np.arange(len(ids))[rank::world_size]
    own = make_pictures(fold, numbers)
    every = _gather(own, len(ids), world_size)
    table, held_out = fold.parts["validation"]
    number = min(len(fold.train), len(held_out), MOST_PICTURES)
    train, held_out = (_choose(places, number, fold.config.training.seed) for places in (fold.train, held_out))
    nearest = {}
    for what, places in (("training", train), ("held_out", held_out)):
        found = find_nearest(shrink(own), shrink(table.take(places)))
        near = places[found.place_N]
        nearest[what] = (table.rows.ids[near], found.distance_N, table.take(near))
    names = fold.classes or ("",)
    labels = np.array([names[number % len(names)] for number in numbers.tolist()], str)
    return MadeSamples(ids[numbers], labels, own, nearest, measure_samples(fold, every, train, held_out))


def measure_samples(
    fold: DiffusionFold, pictures_NCHW: np.ndarray, train: np.ndarray, held_out: np.ndarray
) -> dict[str, Any]:
    """What is recorded of all samples: nearness to training pictures, distances of features, of made-up pictures the
    share that are valid.

    Args:
        fold: that has made them.
        pictures_NCHW: uint8.
        train, held_out: equally many places of pictures.
    """
    small, small_train, small_held_out = (
        shrink(one) for one in (pictures_NCHW, fold.table.take(train), fold.table.take(held_out))
    )
    sides = (find_nearest(small, small_train).distance_N, find_nearest(small, small_held_out).distance_N)
    of_real = (
        find_nearest(small_held_out, small_train).distance_N,
        find_nearest(small_held_out, small_held_out, is_same=True).distance_N,
    )
    facts: dict[str, Any] = {
        "num_samples": len(pictures_NCHW),
        "pictures_of_a_side": len(train),
        "nearer_to_training": measure_share(*sides),
        "nearer_to_training_of_real": measure_share(*of_real),
    }
    if is_made(fold.config.data.folder) and fold.model.size == SIZE:
        facts["valid"] = _measure_valid(pictures_NCHW, fold.model.num_classes)
    return facts | _measure_distances(fold, pictures_NCHW, held_out)


def _measure_distances(fold: DiffusionFold, pictures_NCHW: np.ndarray, held_out: np.ndarray) -> dict[str, Any]:
    """Of the features, to the held-out pictures; nothing of too few."""
    if min(len(held_out) // 2, len(pictures_NCHW)) < LEAST_FOR_DISTANCE or fold.config.sampling.features == "none":
        return {}
    device, batch_size = fold.context.device, fold.config.training.eval_batch_size
    network = load_network(fold.config.sampling.features, device)
    if network is None:
        logger.warning(NOT_MEASURED)
        return {"distance": NOT_MEASURED}
    return measure_distances(network, pictures_NCHW, fold.table.take(held_out), device, batch_size)


def _measure_valid(pictures_NCHW: np.ndarray, num_classes: int) -> float:
    """Share of samples that are nearly a picture of their class that there is."""
    known_MHW3, class_M = list_pictures()
    nearest = find_nearest(shrink(pictures_NCHW), shrink(known_MHW3.transpose(0, 3, 1, 2)))
    is_right = (class_M[nearest.place_N] == np.arange(len(pictures_NCHW)) % num_classes) | (num_classes == 1)
    return float((is_right & (nearest.distance_N < _VALID)).mean())


def _choose(places: np.ndarray, number: int, seed: int) -> np.ndarray:
    """So many of the places, drawn."""
    return np.sort(np.random.default_rng([seed, len(places)]).permutation(places)[:number])


def _gather(own: np.ndarray, total: int, world_size: int) -> np.ndarray:
    """The samples of all ranks, in their order."""
    if world_size == 1:
        return own
    parts: list[Any] = [None] * world_size
    dist.all_gather_object(parts, own)
    every = np.empty((total, *own.shape[1:]), np.uint8)
    for rank, part in enumerate(parts):
        every[rank::world_size] = part
    return every
