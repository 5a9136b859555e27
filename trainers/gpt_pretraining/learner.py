"""How a GPT learns: AdamW over batches of windows, a loss that weighs each token alike, and what is recorded of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from trainers.gpt_pretraining.config import OptimizerConfig
from trainers.gpt_pretraining.inputs.windows import read_batches
from trainers.gpt_pretraining.network.model import NOTHING, count_flops_per_token, find_peak_flops
from trainers.gpt_pretraining.network.sharding import (
    build_divided_optimizer,
    fill,
    find_group_size,
    load_divided_state,
    to_local,
    without_exchange,
)
from trainers.interface import ResumePoint
from trainers.learning.arithmetic import autocast, sum_over_ranks
from trainers.learning.learner import Learner
from trainers.learning.optimizer_state import pack_optimizer, split_by_prefix, without_compiler

if TYPE_CHECKING:
    from trainers.gpt_pretraining.train import GptFold

_MOST_NATS = 700.0  # whose exponential is a number


def to_perplexity(nats: float) -> float:
    """The exponential of nats a token."""
    return math.exp(min(nats, _MOST_NATS))


class TokenLearner(Learner):
    """Batches of windows. The loss of a batch is the sum over all its tokens divided by their number, over ranks and
    portions: a mean of means would weigh the tokens of short rows more."""

    MEASURES_GRADIENTS: ClassVar = True
    fold: GptFold

    def __init__(self, fold: GptFold) -> None:
        training = fold.config.training
        super().__init__(
            fold,
            _build_optimizer(fold),
            fold.rows.num_rows,
            num_steps=training.steps,
            evaluate_every=training.evaluate_every,
            ema_decay=training.ema_decay,
        )
        self.schedule = _settle_warmup(fold.config.optimizer, self.num_steps)
        self.sums = torch.zeros(2, dtype=torch.float64, device=fold.context.device)  # nats and tokens of the epoch
        self.batch_tokens = 1.0
        self.done_s = 0.0  # of the epochs before

    def read_batches(self, epoch: int, portions: list[np.ndarray]) -> Iterator[tuple[Tensor, Tensor]]:
        """Tokens and targets, (B, T) each."""
        return read_batches(self.fold.rows, epoch, portions)

    def split_batch(self, batch: tuple[Tensor, Tensor], share_B: np.ndarray) -> list[tuple[Any, np.ndarray]]:
        """Portions of `rows_at_once`; counts the tokens of the whole batch, of all ranks."""
        tokens_BT, targets_BT = batch
        if not share_B.any():
            targets_BT = torch.full_like(targets_BT, NOTHING)  # a filler
        count = (targets_BT != NOTHING).sum().to(torch.float64).to(self.fold.context.device)
        self.batch_tokens = float(sum_over_ranks(count)) if self.fold.context.world_size > 1 else float(count)
        size = self.config.training.rows_at_once or len(tokens_BT)
        portions = zip(tokens_BT.split(size), targets_BT.split(size), strict=True)
        parts: list[tuple[Any, np.ndarray]] = [(part, share_B) for part in portions]
        if self.fold.is_divided:  # all ranks have to take part in every pass
            most = torch.tensor(len(parts), device=self.fold.context.device)
            dist.all_reduce(most, dist.ReduceOp.MAX)
            nothing = torch.full_like(targets_BT[:1], NOTHING)
            parts += [((tokens_BT[:1], nothing), share_B[:1])] * (int(most) - len(parts))
        return parts

    def find_loss(self, batch: tuple[Tensor, Tensor], share_B: np.ndarray) -> Tensor:
        """This rank's nats divided by the tokens of all ranks."""
        device = self.fold.context.device
        tokens_BT, targets_BT = (part.to(device, non_blocking=True) for part in batch)
        with autocast(device, self.fold.precision):
            nats_BT = self.parallel(tokens_BT, targets_BT)
        nats = nats_BT.sum()
        self.sums += torch.stack([nats.detach().double(), (targets_BT != NOTHING).sum().double()])
        loss: Tensor = nats / max(1.0, self.batch_tokens)
        return loss

    def describe_step(self, loss: Tensor) -> dict[str, Tensor | float]:
        """The losses of the whole batch, and the norm of its gradients before they are limited."""
        ranks = self.fold.context.world_size
        whole = sum_over_ranks(loss.clone()) if ranks > 1 else loss
        assert self.grad_norm is not None
        return {
            **super().describe_step(loss),
            "train/loss": loss,
            "train/perplexity": whole.exp() / ranks,
            "train/grad_norm": self.grad_norm / ranks,
            "train/learning_rate": self.rate,
            "train/epoch": self.epoch,
            "train/step": self.step,
            "train/tokens": self.batch_tokens,
        }

    def validate(self) -> dict[str, float]:
        """The validation documents, and the same as `eval/...`."""
        metrics = self.fold.validate()
        best = min(self.best.score, metrics["val/loss_epoch"])
        return metrics | {
            "eval/loss": metrics["val/loss_epoch"],
            "eval/perplexity": metrics["val/perplexity"],
            "eval/bits_per_byte": metrics["val/bits_per_byte"],
            "eval/step": float(self.step),
            "eval/best_perplexity": to_perplexity(best),
        }

    def describe_epoch(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """The epoch by its tokens, and how fast it was."""
        nats, tokens = sum_over_ranks(self.sums.clone()).tolist()
        self.sums.zero_()
        seconds = metrics["train/epoch_time"]
        self.done_s += seconds
        rate, peak = tokens / seconds, find_peak_flops(self.fold.context.device)
        flops = rate * count_flops_per_token(self.fold.whole_model) / self.fold.context.world_size
        return {
            "train/loss_epoch": nats / tokens,
            "train/tokens_per_second": rate,
            "train/elapsed_time": self.done_s,
            **({} if peak is None else {"train/mfu": flops / peak}),
            "epoch/train_loss": nats / tokens,
            "epoch/train_perplexity": to_perplexity(nats / tokens),
            "epoch/val_loss": metrics["val/loss_epoch"],
            "epoch/val_perplexity": metrics["val/perplexity"],
            "epoch/number": float(self.epoch),
            "epoch/best_perplexity": to_perplexity(self.best.score),
        }

    def begin(self) -> None:
        """Records what becomes of the tokens."""
        self.fold.context.log(0, {f"data/{name}": value for name, value in self.fold.rows.kept.items()})

    def end(self) -> None:
        """Records what the training came to."""
        final = {
            "final/best_perplexity": to_perplexity(self.best.score),
            "final/total_steps": self.num_steps,
            "final/total_epochs": self.num_epochs,
        }
        self.fold.context.log(self.global_step, final)

    def join_ranks(self) -> nn.Module:
        """Divided weights exchange their gradients themselves."""
        return self.fold.model if self.fold.is_divided else super().join_ranks()

    def _without_exchange(self) -> AbstractContextManager[object]:
        if self.fold.is_divided:
            return without_exchange(self.fold.model)
        return super()._without_exchange()

    def _limit_gradients(self) -> None:
        if not self.fold.is_divided:
            return super()._limit_gradients()
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        most = self.schedule.max_grad_norm or math.inf
        norm = nn.utils.clip_grad_norm_(self.fold.model.parameters(), most)
        self.grad_norm = norm.full_tensor()  # type: ignore[attr-defined]  # of a DTensor

    def describe_point(self) -> ResumePoint:
        """Everything that changes; of divided weights each rank's part."""
        point = self._with_own(super().describe_point())
        if self.has_divided_state:
            (optimizer,) = self.optimizers
            optimizer.consolidate_state_dict(to=0)  # type: ignore[attr-defined]  # of ZeroRedundancyOptimizer
            state = pack_optimizer(optimizer) if self.fold.context.rank == 0 else {}
            return replace(point, tensors={**point.tensors, **{f"optimizer/{name}": v for name, v in state.items()}})
        if not self.fold.is_divided:
            return point
        return replace(point, tensors={}, shard={name: to_local(value) for name, value in point.tensors.items()})

    @property
    def has_divided_state(self) -> bool:
        """Whether the ranks divide the optimiser's state alone."""
        return self.config.sharding.level == "zero1" and self.fold.context.world_size > 1

    def _name_optimizers(self) -> Iterator[tuple[str, torch.optim.Optimizer]]:
        """Those that a rank packs by itself."""
        return iter(()) if self.has_divided_state else super()._name_optimizers()

    def _with_own(self, point: ResumePoint) -> ResumePoint:
        facts = {**point.facts, "done_s": self.done_s}
        return replace(point, own={**point.own, "sums": self.sums}, facts=facts)

    def resume(self, point: ResumePoint) -> None:
        """Takes up the state of an earlier attempt, of any number of ranks."""
        if self.fold.is_divided or point.shards:
            point = replace(point, tensors=self._take_up_parts(point))
        super().resume(point)
        if self.has_divided_state:
            state = split_by_prefix(point.tensors)["optimizer"]
            load_divided_state(self.optimizers[0], state)
        self.sums.copy_(point.own["sums"])
        self.done_s = point.facts["done_s"]

    def _take_up_parts(self, point: ResumePoint) -> dict[str, Tensor]:
        """The tensors of the point as this rank has them."""
        # Of as many ranks as before its own part; else those of all, of which one rank alone had the whole.
        own, parts = point.shard or {}, point.shards or ([] if point.shard else [point.tensors])
        if parts:
            parts = parts[: find_group_size(self.config.sharding, len(parts))]  # further groups had the same
        targets = {f"model/{name}": value for name, value in self.fold.model.state_dict().items()}
        parameters = [one for group in self.optimizers[0].param_groups for one in group["params"]]
        found: dict[str, Tensor] = {}
        for name, value in (parts[0] if parts else own).items():
            kind, _, rest = name.partition("/")
            if name.endswith("/step"):
                found[name] = value
                continue
            found[name] = torch.zeros_like(
                targets[name] if kind == "model" else parameters[int(rest.partition("/")[0])]
            )
            if parts:
                fill(found[name], [one[name] for one in parts])
            else:
                to_local(found[name]).copy_(value)
        return found


def _build_optimizer(fold: GptFold) -> torch.optim.Optimizer:
    """AdamW; norms and biases do not decay."""
    config, model = fold.config.optimizer, fold.model
    groups: list[dict[str, Any]] = [
        {"params": [one for one in model.parameters() if one.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [one for one in model.parameters() if one.dim() < 2], "weight_decay": 0.0},
    ]
    options: dict[str, Any] = {"lr": config.lr, "betas": (config.beta1, config.beta2)}
    if fold.config.sharding.level == "zero1" and fold.context.world_size > 1:
        return build_divided_optimizer(groups, **options)
    return without_compiler(torch.optim.AdamW)(groups, **options, fused=not fold.is_divided)


def _settle_warmup(config: OptimizerConfig, num_steps: int) -> OptimizerConfig:
    """The schedule with the warm-up as a share of all steps; of a run with few steps it is cut to half of them."""
    if config.warmup_steps is None:
        return config
    return replace(config, warmup_fraction=min(config.warmup_steps, num_steps // 2) / num_steps)
