"""A callback of Hugging Face's Trainer by which a fold shows its epochs, and goes on where it was when it is killed."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray_jobs.api.extras import told_which_extra
from ray_jobs.api.folders import read_files, write_files

with told_which_extra("hf"):
    from transformers import TrainerCallback

if TYPE_CHECKING:
    from trainers.own_trainer.fold import Fold


class FoldCallback(TrainerCallback):
    """Reports each epoch, and keeps the Trainer's own checkpoint of it as the fold's resume point.

    Use: `TrainingArguments(output_dir=callback.folder, save_total_limit=1, ...)`,
    `trainer = Trainer(..., callbacks=[callback])`, `trainer.train(resume_from_checkpoint=callback.resume_from)`.

    Attributes:
        folder: of the fold's checkpoints while it trains; it is removed with the callback.
    """

    def __init__(self, fold: Fold) -> None:
        self.fold = fold
        self.folder = tempfile.mkdtemp(prefix="hugging_face_")
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self._losses: dict[str, float] = {}
        self._is_epoch_over = False

    @property
    def resume_from(self) -> str | None:
        """The checkpoint of an attempt that was killed; None: begin. To be asked once, when the model is built."""
        if (state := self.fold.load()) is None:
            return None
        folder = Path(self.folder) / state["name"]
        write_files(folder, state["files"])
        return str(folder)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Raises ValueError where folds that train side by side would write into one folder."""
        if Path(args.output_dir).resolve() != Path(self.folder).resolve():
            raise ValueError(
                f"output_dir={args.output_dir}: all folds would write their checkpoints there; give "
                "TrainingArguments(output_dir=callback.folder)"
            )

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Logs the training loss."""
        self._losses |= {name: float(logs[name]) for name in ("loss", "eval_loss") if name in (logs or {})}
        if "loss" in (logs or {}):
            self.fold.log(loss=float(logs["loss"]), step=state.global_step)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Has the Trainer log and save; it evaluates in between, where it is to."""
        self._is_epoch_over = control.should_log = control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Reports the epoch, if one is over, and saves."""
        losses, folder = self._losses, Path(self.folder) / f"checkpoint-{state.global_step}"
        score = losses.get("eval_loss", losses.get("loss"))
        if self._is_epoch_over and score is not None:
            epoch = max(round(state.epoch) - 1, 0)
            self.fold.report_epoch(
                epoch,
                max(round(args.num_train_epochs), epoch + 1),
                score=score,
                train_loss=losses.get("loss"),
                val_loss=losses.get("eval_loss"),
            )
            self._losses = {}
        is_over, self._is_epoch_over = self._is_epoch_over, False
        self.fold.save({"name": folder.name, "files": read_files(folder)})
        if is_over and self.fold.is_time_up():
            control.should_training_stop = True
