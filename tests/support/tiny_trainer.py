"""The smallest trainer that asks for everything: two stages of steps, each with its own optimisers and schedule, a
moving average of the weights, an evaluation every 5 steps, tensors that only one rank has, files in a checkpoint, no
numeric target."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from trainers.interface import Split
from trainers.learning.arithmetic import seed_fold
from trainers.learning.learner import Learner, learn_stages
from trainers.predictions import Predictions

NUM_ROWS, NUM_TRAIN, BATCH, STEPS = 30, 22, 4, (13, 12)  # of the stages; 6 steps a pass, the last with 2 rows
IDS = np.array([f"row{number:02}" for number in range(NUM_ROWS)])
SPLIT = Split(0, IDS[:NUM_TRAIN], IDS[NUM_TRAIN:])
SCHEDULE = {"schedule": "cosine", "warmup_fraction": 0.1, "max_grad_norm": 1.0}


class TinyModel(nn.Module):
    """Two layers with dropout, whose random numbers belong to what goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Dropout(0.2), nn.Linear(5, 1))

    def forward(self, x_B3):
        return self.layers(x_B3)[:, 0]

    def count_parameters(self):
        return {"total_params": sum(one.numel() for one in self.parameters())}


@dataclass
class TinyFold:
    """Rows, the model, and how it is validated, saved and asked for predictions."""

    CHOSEN_BY: ClassVar = "val/error"

    context: Any
    model: TinyModel
    split: Split = SPLIT
    precision: torch.dtype = torch.float32
    config: Any = field(
        default_factory=lambda: SimpleNamespace(
            training=SimpleNamespace(epochs=1, batch_size=BATCH, seed=1), optimizer=SimpleNamespace(lr=0.05, **SCHEDULE)
        )
    )

    def __post_init__(self):
        generator = torch.Generator().manual_seed(5)
        self.x = torch.randn(NUM_ROWS, 3, generator=generator)
        self.y = self.x[:, 0] - torch.sin(self.x[:, 1])

    @torch.inference_mode()
    def validate(self):
        self.model.eval()
        error = float(((self.model(self.x) - self.y)[NUM_TRAIN:] ** 2).mean())
        return {"val/loss_epoch": error, "val/error": error}

    def score(self, metrics):
        return metrics["val/error"]

    def save(self, name, epoch, metrics):
        files = self.context.root / "tokenizer"
        state, rank, ranks = self.model.state_dict(), self.context.rank, self.context.world_size
        own = {key: state[key] for key in list(state)[rank::ranks]}  # each rank writes its share
        self.context.save_checkpoint(name, {}, {"epoch": epoch}, shard=own, files=files)

    def trained_state(self):
        return self.model.state_dict()

    def load_trained_state(self, state):
        self.model.load_state_dict(state)

    def predict_checkpoints(self):
        for name in ("best", "final", "sft"):
            self.load_trained_state(self.context.load_checkpoint(name))
            assert (self.context.find_files(name) / "words.txt").read_text() == "a b"
            self.context.save_predictions(name, "validation", SPLIT.validation_ids, self.predict())

    def predict(self):
        """Blocks of two rows, in the wrong order where there are several ranks."""
        self.model.eval()
        mine = np.arange(NUM_TRAIN, NUM_ROWS)[self.context.rank :: self.context.world_size]
        blocks = [mine] if self.context.world_size == 1 else np.split(mine, len(mine) // 2)[::-1]
        for rows in blocks:
            with torch.inference_mode():
                y = self.model(self.x[rows]).double().numpy()
            yield Predictions(IDS[rows], y, y, self.y[rows].double().numpy())


class TinyLearner(Learner):
    """With a running mean of its own rows' inputs, which no other rank has."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, evaluate_every=5, ema_decay=0.9, **options)
        self.memory = torch.zeros(3)

    def read_batches(self, epoch, portions):
        for rows in portions:
            yield torch.from_numpy(rows)

    def find_loss(self, rows, share_B):
        x = self.fold.x[rows]
        self.memory = 0.9 * self.memory + 0.1 * x.mean(0)
        predicted = self.parallel(x + 0.01 * self.memory + 0.01 * torch.randn_like(x))
        return ((predicted - self.fold.y[rows]) ** 2 * torch.from_numpy(share_B)).sum()

    def describe_point(self):
        point = super().describe_point()
        return replace(point, shard={"memory": self.memory})

    def resume(self, point):
        super().resume(point)
        self.memory = point.shard["memory"].clone()


class Tuning(TinyLearner):
    """A second stage, with another loss, which also stays near the first one's result, and a score of its own."""

    def begin(self):
        self.reference = copy.deepcopy(self.fold.model)
        self.reference.load_state_dict(self.fold.context.load_checkpoint("sft"))

    def resume(self, point):
        self.begin()
        super().resume(point)

    def find_loss(self, rows, share_B):
        x = self.fold.x[rows]
        with torch.no_grad():
            reference = self.reference.eval()(x)
        loss = super().find_loss(rows, share_B)
        return 0.5 * loss + (abs(self.parallel(x) - reference) * torch.from_numpy(share_B)).sum()

    def validate(self):
        metrics = self.fold.validate()
        return {"reward": -metrics["val/error"], "val/error": metrics["val/error"]}

    def score(self, metrics):
        return -metrics["reward"]


class Supervised(TinyLearner):
    """The first stage, whose result is kept."""

    def end(self):
        with self.averaged_weights():
            self.fold.save("sft", 0, {})


def train(context: Any) -> None:
    """The trainer. `context.root` is a folder with `tokenizer/words.txt`, which all ranks see."""
    seed_fold(1, 0)
    fold = TinyFold(context, TinyModel())
    if context.world_size > 1:
        seed_fold(1, 0, context.rank)
    first, second = fold.model.layers[0].parameters(), fold.model.layers[3].parameters()
    several = (torch.optim.AdamW(first), torch.optim.SGD([{"params": second, "lr_factor": 0.5}], momentum=0.9))
    slower = SimpleNamespace(lr=0.01, **SCHEDULE)
    alone = torch.optim.Adam(fold.model.parameters())
    learn_stages(
        Supervised(fold, several, NUM_TRAIN, stage="sft", num_steps=STEPS[0]),
        Tuning(fold, alone, NUM_TRAIN, stage="grpo", num_steps=STEPS[1], schedule=slower),
    )
