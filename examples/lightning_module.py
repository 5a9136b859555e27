"""A LightningModule (`pip install lightning`). A fold that was killed goes on from its last epoch."""

import lightning
import torch
from torch.utils.data import DataLoader, TensorDataset

from ray_jobs import cross_validate
from ray_jobs.api.lightning import FoldCallback


class Net(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 32), torch.nn.ReLU())
        self.last = torch.nn.Linear(32, 1)

    def forward(self, x):
        return self.last(self.layers(x))[:, 0]

    def training_step(self, batch, batch_idx):
        return (self(batch[0]) - batch[1]).square().mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


def train_fold(fold):
    def to_x(rows):
        return torch.tensor(rows[["width_cm", "height_cm", "year"]].to_numpy("float32"))

    data = TensorDataset(to_x(fold.train), torch.tensor(fold.train["price"].to_numpy("float32")) / 1000)
    model, callback = Net(), FoldCallback(fold)
    trainer = lightning.Trainer(max_epochs=30, devices=1, callbacks=[callback], logger=False)
    trainer.fit(model, DataLoader(data, 16, shuffle=True, drop_last=True), ckpt_path=callback.ckpt_path)
    model.eval()
    fold.keep_model(lambda rows: model(to_x(rows)).detach().numpy() * 1000)


print(cross_validate(train_fold, "lots.csv", "price", test="new_lots.csv", id="id", folds=4))
