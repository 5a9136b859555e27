"""A fold trained by Hugging Face's Trainer: it shows its epochs, and goes on to the same weights when it is killed."""

from __future__ import annotations

import pytest
import torch
from support.local_context import KilledError, LocalFoldContext
from support.own_fold import make_fold

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install transformers accelerate"
)
pytest.importorskip("accelerate", reason="accelerate is not installed: pip install transformers accelerate")

from ray_jobs.api.hugging_face import FoldCallback


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(torch.nn.BatchNorm1d(1), torch.nn.Dropout(0.1), torch.nn.Linear(1, 1))

    def forward(self, x, labels):
        predicted = self.net(x)[:, 0]
        return {"loss": (predicted - labels).square().mean(), "predicted": predicted}


def train(context, output_dir=None):
    fold, model = make_fold(context), Net()
    callback = FoldCallback(fold)
    data = [[{"x": [x], "labels": x} for x in rows["x"].tolist()] for rows in (fold.train, fold.validation)]
    arguments = transformers.TrainingArguments(
        output_dir=output_dir or callback.folder, num_train_epochs=4, per_device_train_batch_size=10, learning_rate=0.1,
        eval_strategy="epoch", save_total_limit=1, report_to="none", use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    trainer = transformers.Trainer(model, arguments, train_dataset=data[0], eval_dataset=data[1], callbacks=[callback])
    trainer.train(resume_from_checkpoint=callback.resume_from)
    return model, fold


def test_a_killed_fold_goes_on_to_the_same_weights(tmp_path):
    whole = LocalFoldContext(tmp_path / "whole")
    expected, _ = train(whole)
    context = LocalFoldContext(tmp_path / "killed")
    context.stop_at = 8  # of 4 steps in an epoch
    with pytest.raises(KilledError):
        train(context)
    context.stop_at, context.resume_from = None, context.stopped_with
    model, fold = train(context)
    assert [step for step, _ in context.steps] == [4, 8, 12, 16]
    assert context.epochs == whole.epochs
    assert len(context.epochs) == 4
    assert context.epochs[0]["score"] == context.epochs[0]["val/loss_epoch"] != context.epochs[0]["train/loss_epoch"]
    assert fold.last_epoch == 3
    for found, wanted in zip(model.state_dict().values(), expected.state_dict().values(), strict=True):
        assert torch.equal(found, wanted)


def test_a_folder_that_folds_would_share_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"all folds would write their checkpoints there; give"):
        train(LocalFoldContext(tmp_path), str(tmp_path / "shared"))
