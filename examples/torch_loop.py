"""A plain PyTorch loop. A fold that was killed goes on from its last epoch, with the same bits."""

import torch

from ray_jobs import cross_validate

names = ["width_cm", "height_cm", "year"]


def train_fold(fold, my):
    mean, std = fold.train[names].mean(), fold.train[names].std()

    def to_x(rows):
        return torch.tensor(((rows[names] - mean) / std).to_numpy("float32"))

    x, y = to_x(fold.train), torch.tensor(fold.train["price"].to_numpy("float32")) / 1000
    model = torch.nn.Sequential(torch.nn.Linear(3, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
    adam, first_epoch = torch.optim.Adam(model.parameters(), lr=my.lr), 0
    if state := fold.load():  # of an attempt that was killed
        model.load_state_dict(state["model"])
        adam.load_state_dict(state["adam"])
        first_epoch = state["epoch"] + 1
    for epoch in range(first_epoch, my.epochs):
        for batch in torch.randperm(len(x)).split(16):
            loss = (model(x[batch])[:, 0] - y[batch]).square().mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
        fold.report_epoch(epoch, my.epochs, train_loss=loss.item(), score=loss.item())
        fold.save({"model": model.state_dict(), "adam": adam.state_dict(), "epoch": epoch})
    fold.keep_model(lambda rows: model(to_x(rows))[:, 0].detach() * 1000)


run = cross_validate(
    train_fold, "lots.csv", "price", test="new_lots.csv", id="id", folds=4, my={"epochs": 60, "lr": 0.01}
)
print(run)
