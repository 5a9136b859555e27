"""What the sections of every family's config have in common: how long is trained, by which steps, and how a config is
read from a checkpoint. Plain dataclasses: no torch, no pandas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from typing import Any, ClassVar, Literal, Protocol, TypeVar, get_type_hints

from trainers.families import Advice
from trainers.values import check_number


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


Config = TypeVar("Config", bound=_Dataclass)

ADVICE = Advice(memory="lower training.batch_size", loss="lower optimizer.lr or set optimizer.max_grad_norm")


@dataclass(frozen=True)
class TrainingSection:
    """How long and in which portions."""

    epochs: int = 30
    """Passes over the fold's training rows."""
    batch_size: int = 16
    """Rows of one optimiser step, over all workers of the fold together: more workers change the speed, not the
    experiment."""
    eval_batch_size: int = 64
    """Rows of one forward pass when predicting, on each worker."""
    seed: int = 0
    """Seed of initial weights, data order, augmentation and dropout; each fold derives its own."""
    patience: int | None = None
    """A fold ends when so many epochs (of a training by steps: evaluations) in a row were no better than its best;
    `final` is then chosen by the validation rows, too. None: it does all of them."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto: bf16 where the GPU has it, fp16 on older GPUs, fp32 on a CPU."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "eval_batch_size"):
            check_number(f"training.{name}", getattr(self, name), least=1)
        check_number("training.patience", self.patience, least=1, instead="none")
        check_number("training.seed", self.seed, least=0)


@dataclass(frozen=True)
class OptimizerSection:
    """An optimiser's steps and their schedule."""

    lr: float = 1e-3
    """Peak learning rate."""
    weight_decay: float = 0.0
    """How strongly weights are drawn to zero."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate after the warm-up."""
    warmup_fraction: float = 0.0
    """Share of all steps over which the learning rate rises linearly from 0."""
    max_grad_norm: float = 0.0
    """Above 0: gradients are scaled down to this norm."""

    def __post_init__(self) -> None:
        check_number("optimizer.lr", self.lr, above=0)
        check_number("optimizer.weight_decay", self.weight_decay, least=0)
        check_number("optimizer.max_grad_norm", self.max_grad_norm, least=0)
        check_number("optimizer.warmup_fraction", self.warmup_fraction, least=0, below=1, unit="a share")


def read_sections(cls: type[Config], values: Mapping[str, Mapping[str, Any]]) -> Config:
    """A family's config from a checkpoint's description, where its sections are JSON. A section that was not there when
    the checkpoint was written has its defaults.

    Raises:
        TypeError: it has a field that is not known.
        ValueError: a value is not allowed.
    """
    section_of = get_type_hints(cls)
    known = [part.name for part in fields(cls) if part.name in values]
    return cls(**{name: section_of[name](**with_tuples(values[name])) for name in known})


def with_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping as it was before JSON made lists of its tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
