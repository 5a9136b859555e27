"""A Lightning callback by which a fold shows its epochs, and goes on where it was when it is killed."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ray_jobs.api.extras import told_which_extra

with told_which_extra("lightning"):
    from lightning.pytorch.callbacks import Checkpoint

if TYPE_CHECKING:
    from trainers.own_trainer.fold import Fold


class FoldCallback(Checkpoint):  # type: ignore[misc] # Lightning is no dependency of the project
    """Reports each epoch, and keeps Lightning's own checkpoint of it as the fold's resume point.

    Use: `trainer = L.Trainer(callbacks=[callback], ...)`, `trainer.fit(model, loader, ckpt_path=callback.ckpt_path)`.
    It stands in the place of Lightning's ModelCheckpoint.

    Args:
        fold: that trains.
        monitor: a metric that the module logs, the score of an epoch; where it is not logged, the training loss is.
        mode: max: the highest is best.
    """

    def __init__(self, fold: Fold, monitor: str = "val_loss", mode: str = "min") -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"mode={mode!r}: expected min or max")
        self.fold, self.monitor, self.mode = fold, monitor, mode
        self._folder = tempfile.mkdtemp(prefix="lightning_")
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._losses: list[torch.Tensor] = []

    @property
    def ckpt_path(self) -> str | None:
        """The checkpoint of an attempt that was killed; None: begin. To be asked once, when the model is built."""
        if (content := self.fold.load()) is None:
            return None
        path = Path(self._folder) / "resume.ckpt"
        path.write_bytes(content)
        return str(path)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Logs the loss that `training_step` has returned."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, torch.Tensor):
            self._losses.append(loss.detach())
            self.fold.log(loss=loss)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Reports the epoch and saves."""
        known = {name: float(value) for name, value in trainer.callback_metrics.items() if value.numel() == 1}
        losses, self._losses = self._losses, []
        train_loss = torch.stack(losses).mean().item() if losses else None
        score = known.get(self.monitor)
        score = train_loss if score is None else score if self.mode == "min" else -score
        if score is not None:
            epoch = trainer.current_epoch
            self.fold.report_epoch(
                epoch,
                max(trainer.max_epochs or 0, epoch + 1),
                score=score,
                train_loss=train_loss,
                val_loss=known.get("val_loss"),
            )
        path = Path(self._folder) / "last.ckpt"
        trainer.save_checkpoint(path)
        # Of several workers the first one writes.
        self.fold.save(path.read_bytes() if path.exists() else b"")
        if self.fold.is_time_up():
            trainer.should_stop = True
