"""Learns one fold of a diffusion transformer: epochs, validation, best and final checkpoints, losses of both.

Best is the epoch with the lowest v-loss of unseen rows.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from trainers.interface import FoldContext, RowsName, Split
from trainers.learning.arithmetic import choose_precision, seed_fold
from trainers.pixel_diffusion.config import Config
from trainers.pixel_diffusion.diffusion.references import MOST_NUMBERS
from trainers.pixel_diffusion.diffusion.sampler import from_bytes
from trainers.pixel_diffusion.fold.evaluation import DiffusionFold
from trainers.pixel_diffusion.fold.learner import DiffusionLearner
from trainers.pixel_diffusion.fold.samples import make_samples
from trainers.pixel_diffusion.network.model import Denoiser
from trainers.pixel_diffusion.rows.pictures import Pictures, open_pictures
from trainers.pixel_diffusion.rows.rows_file import Rows, place_rows, read_rows
from trainers.pixel_diffusion.rows.shapes_data import SIZE, is_made, list_pictures


def train_fold(config: Config, split: Split, context: FoldContext) -> None:
    """Trains, validates, saves and predicts one fold; called on every rank.

    Raises:
        DataError: a picture is not the one that was checked.
    """
    torch.set_num_threads(context.num_threads)
    seed_fold(config.training.seed, split.fold)
    fold = _set_up(config, split, context)
    learner = DiffusionLearner(fold)
    learner.learn()
    if config.sampling.num_samples:
        _save_samples(fold, learner.global_step)


def _save_samples(fold: DiffusionFold, global_step: int) -> None:
    """What the best checkpoint makes, and what was measured of it."""
    context = fold.context
    fold.model.load_state_dict(context.load_checkpoint("best"))
    ids = np.array([f"sample_{number:05d}" for number in range(fold.config.sampling.num_samples)])
    own = make_samples(fold, ids)
    context.save_predictions("best", "samples", ids, [own] if len(own.ids) else [])
    context.log(global_step, {f"samples/{n}": value for n, value in own.facts.items() if not isinstance(value, str)})


def _set_up(config: Config, split: Split, context: FoldContext) -> DiffusionFold:
    def read(table: str) -> Rows | None:
        path = place_rows(context.inputs, config.data, table)
        return None if table == "test" and not path.exists() else read_rows(path)

    found = {n: context.retry_while_unavailable("reading the rows", partial(read, n)) for n in ("train", "test")}
    tables = open_pictures({n: rows for n, rows in found.items() if rows is not None}, config.data, split, context)
    table, test = tables["train"], tables.get("test")
    train, validation, blend = (
        table.rows.find(ids.tolist()) for ids in (split.train_ids, split.validation_ids, split.blend_ids)
    )
    classes = table.rows.classes
    model = Denoiser(config.model.shape, config.data.size, max(1, len(classes)))
    parts: dict[RowsName, tuple[Pictures, np.ndarray]] = {"validation": (table, validation), "blend": (table, blend)}
    if test is not None:
        parts["test"] = (test, np.arange(len(test)))
    return DiffusionFold(
        config=config,
        split=split,
        context=context,
        model=model.to(context.device),
        table=table,
        train=train,
        parts=parts,
        classes=classes,
        precision=choose_precision(config.training.precision, context.device),
        known=_list_known(config, table, train, context.device),
    )


def _list_known(config: Config, table: Pictures, train: np.ndarray, device: str) -> dict[str, Tensor]:
    """What those know that a model is compared with: of few pictures those that train and, of made-up pictures, all
    that there are."""
    size, known = config.data.size, {}
    if len(train) * 3 * size**2 <= MOST_NUMBERS:
        known["memoriser"] = table.take(train)
    if is_made(config.data.folder) and size == SIZE:
        known["floor"] = list_pictures()[0].transpose(0, 3, 1, 2)
    return {
        name: from_bytes(torch.from_numpy(np.ascontiguousarray(one)).to(device)).flatten(1)
        for name, one in known.items()
    }
