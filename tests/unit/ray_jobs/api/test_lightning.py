"""A fold trained by Lightning: it shows its epochs, and goes on to the same weights when it is killed."""

from __future__ import annotations

import pytest
import torch
from support.local_context import KilledError, LocalFoldContext
from support.own_fold import make_fold

lightning = pytest.importorskip("lightning", reason="lightning is not installed: pip install lightning")

from ray_jobs.api.lightning import FoldCallback

# Of Lightning's own use of torch.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning", "ignore::UserWarning:lightning")


class Net(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(torch.nn.BatchNorm1d(1), torch.nn.Dropout(0.1), torch.nn.Linear(1, 1))

    def training_step(self, batch, _):
        return (self.net(batch[0]) - batch[0]).square().mean()

    def validation_step(self, batch, _):
        self.log("val_loss", (self.net(batch[0]) - batch[0]).square().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)


def train(context):
    fold, model = make_fold(context), Net()
    callback = FoldCallback(fold)
    data = [
        torch.utils.data.TensorDataset(torch.tensor(rows[["x"]].to_numpy())) for rows in (fold.train, fold.validation)
    ]
    trainer = lightning.Trainer(
        max_epochs=4, accelerator="cpu", callbacks=[callback], logger=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=context.root,
    )  # fmt: skip
    loaders = torch.utils.data.DataLoader(data[0], 10, shuffle=True), torch.utils.data.DataLoader(data[1], 10)
    trainer.fit(model, *loaders, ckpt_path=callback.ckpt_path)
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
    assert [step for step, _ in context.steps] == list(range(1, 17))
    assert context.epochs == whole.epochs
    assert len(context.epochs) == 4
    assert context.epochs[0]["score"] == context.epochs[0]["val/loss_epoch"] != context.epochs[0]["train/loss_epoch"]
    assert fold.last_epoch == 3
    for found, wanted in zip(model.state_dict().values(), expected.state_dict().values(), strict=True):
        assert torch.equal(found, wanted)


def test_a_mode_that_there_is_not_is_refused(tmp_path):
    with pytest.raises(ValueError, match="mode='maximum': expected min or max"):
        FoldCallback(make_fold(LocalFoldContext(tmp_path)), mode="maximum")
