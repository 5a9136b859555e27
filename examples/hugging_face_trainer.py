"""The Trainer of transformers (`pip install transformers accelerate`). A fold that was killed goes on from its last
epoch."""

import torch
from transformers import Trainer, TrainingArguments

from ray_jobs import cross_validate
from ray_jobs.api.hugging_face import FoldCallback


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(3, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))

    def forward(self, x, labels=None):
        logits = self.layers(x)[:, 0]
        return {"logits": logits} if labels is None else {"loss": (logits - labels).square().mean(), "logits": logits}


def to_data(rows):
    x = torch.tensor(rows[["width_cm", "height_cm", "year"]].to_numpy("float32") / 1000)
    return [
        {"x": row, "labels": torch.tensor(price / 1000).float()}
        for row, price in zip(x, rows.get("price", 0 * x[:, 0].numpy()), strict=True)
    ]


def train_fold(fold):
    callback = FoldCallback(fold)
    args = TrainingArguments(callback.folder, num_train_epochs=20, eval_strategy="epoch", learning_rate=0.01,
                             save_total_limit=1, report_to="none")  # fmt: skip
    data, validation = to_data(fold.train), to_data(fold.validation)
    trainer = Trainer(Net(), args, train_dataset=data, eval_dataset=validation, callbacks=[callback])
    trainer.train(resume_from_checkpoint=callback.resume_from)
    return tuple(trainer.predict(one).predictions * 1000 for one in (validation, to_data(fold.test)))


print(cross_validate(train_fold, "lots.csv", "price", test="new_lots.csv", id="id", folds=4))
