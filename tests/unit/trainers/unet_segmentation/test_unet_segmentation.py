"""The U-Net: its size, losses, changes of pictures, squares of large ones, and whole folds trained without Ray."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from support.local_context import LocalFoldContext
from support.small_unet import SMALL, train_small

from trainers.unet_segmentation import train
from trainers.unet_segmentation.config import Config, DataConfig, LossConfig, ModelConfig, TrainingConfig
from trainers.unet_segmentation.inputs.data import Augmentation, Example, Examples, Normalisation, rotate
from trainers.unet_segmentation.inventory import take_inventory, write_inputs
from trainers.unet_segmentation.network.evaluation import (
    average,
    count_pixels,
    list_starts,
    measure_dice,
    measure_iou,
    predict_logits,
)
from trainers.unet_segmentation.network.loss import IGNORED, Sums, add_up, batch_loss, finish
from trainers.unet_segmentation.network.model import UNet, to_probability
from trainers.unet_segmentation.rows.rows_file import place_rows, read_rows
from trainers.unet_segmentation.train import build_model, weigh_classes


def test_the_full_model_has_exactly_31_036_481_parameters():
    model = UNet(1, 1, ModelConfig().features)
    assert model.count_parameters() == {"total_params": 31_036_481, "trainable_params": 31_036_481, "frozen_params": 0}


@pytest.mark.parametrize("size", [(64, 64), (50, 37), (33, 100)])
def test_pictures_of_any_size_get_logits_of_their_size(size):
    assert UNet(1, 3, (2, 4, 4)).eval()(torch.zeros(2, 1, *size)).shape == (2, 3, *size)


def test_the_binary_loss_is_half_dice_and_half_cross_entropy():
    torch.manual_seed(0)
    logits, mask = torch.randn(2, 1, 4, 5), torch.randint(0, 2, (2, 4, 5), dtype=torch.uint8)
    p, t = torch.sigmoid(logits[:, 0]), mask.float()
    dice = 1 - (2 * (p * t).sum() + 1e-6) / (p.sum() + t.sum() + 1e-6)
    entropy = -(3.0 * t * p.log() + (1 - t) * (1 - p).log()).mean()
    value = batch_loss(LossConfig(positive_weight=3.0), logits, mask, torch.tensor([3.0]), lambda own: own)
    torch.testing.assert_close(value, 0.5 * dice + 0.5 * entropy)


def test_with_two_classes_one_logit_and_two_are_the_same_loss():
    torch.manual_seed(0)
    logits, mask = torch.randn(2, 1, 4, 5), torch.randint(0, 2, (2, 4, 5), dtype=torch.uint8)
    mask[0, 0, :2] = IGNORED
    two = torch.cat([torch.zeros_like(logits), logits], 1)
    values = [batch_loss(LossConfig(), one, mask, torch.tensor([2.0]), lambda own: own) for one in (logits, two)]
    torch.testing.assert_close(values[0], values[1])


@pytest.mark.parametrize("outputs", [1, 4])
def test_the_parts_of_several_ranks_give_value_and_gradient_of_the_whole_batch(outputs):
    torch.manual_seed(0)
    mask = torch.randint(0, max(2, outputs), (4, 6, 6), dtype=torch.uint8)
    weight = torch.full((max(1, outputs - 1),), 2.0)
    logits = torch.randn(4, outputs, 6, 6, dtype=torch.float64, requires_grad=True)
    whole = batch_loss(LossConfig(), logits, mask, weight.double(), lambda own: own)
    (expected,) = torch.autograd.grad(whole, logits)
    total = add_up(logits, mask, weight.double()).stack().detach()
    filler = torch.full_like(mask[:1], IGNORED)  # a rank without a picture of this batch
    parts = [(logits[:3], mask[:3]), (logits[3:], mask[3:]), (logits[:1], filler)]
    values = [batch_loss(LossConfig(), one, m, weight.double(), lambda _: total) for one, m in parts]
    for value in values:
        torch.testing.assert_close(value, whole)
    torch.testing.assert_close(torch.autograd.grad(sum(values), logits)[0], expected)


def test_the_steps_losses_of_several_ranks_add_up_to_that_of_the_batch_and_a_fillers_picture_counts_nowhere(
    monkeypatch,
):
    torch.manual_seed(0)
    model, owns = UNet(1, 1, (2, 4)).eval(), []
    pictures, masks = torch.randn(3, 1, 16, 16), torch.randint(0, 2, (3, 16, 16), dtype=torch.uint8)

    def find_loss(*shares):
        """Of ranks with these parts of the batch, {row: share}."""
        context = SimpleNamespace(device="cpu", world_size=len(shares))
        fold = SimpleNamespace(context=context, precision=torch.float32, weight_K=torch.ones(1))
        learner = SimpleNamespace(fold=fold, config=Config(), parallel=model)

        def find_all():
            return [
                train._Learner.find_loss(
                    learner, (pictures[list(share)], masks[list(share)]), np.array(list(share.values()))
                )
                for share in shares
            ]

        owns.clear()
        monkeypatch.setattr(train, "sum_over_ranks", lambda own: owns.append(own) or own)
        find_all()
        monkeypatch.setattr(train, "sum_over_ranks", lambda own: sum(owns))
        return float(sum(find_all()).detach())

    whole = find_loss({0: 0.5, 1: 0.5})
    assert find_loss({0: 0.5}, {1: 0.5}) == pytest.approx(whole, rel=1e-5)
    assert find_loss({0: 0.5, 1: 0.5}, {2: 0.0}) == pytest.approx(whole, rel=1e-5)
    assert find_loss({0: 0.5, 1: 0.5}, {2: 0.5}) != pytest.approx(whole, rel=1e-3)


@pytest.mark.parametrize(
    ("world_size", "device", "is_shared"), [(2, "cuda:1", True), (1, "cuda:0", False), (2, "cpu", False)]
)
def test_several_gpus_normalise_their_batch_together(world_size, device, is_shared):
    kinds = {type(one) for one in build_model(SMALL, world_size, device).modules()}
    assert (torch.nn.SyncBatchNorm in kinds) == is_shared
    assert (torch.nn.BatchNorm2d in kinds) != is_shared


def test_ignored_pixels_change_neither_loss_nor_scores():
    torch.manual_seed(0)
    logits, mask = torch.randn(1, 3, 6, 6), torch.randint(0, 3, (1, 6, 6), dtype=torch.uint8)
    wide, masked = torch.randn(1, 3, 6, 9), torch.full((1, 6, 9), IGNORED, dtype=torch.uint8)
    wide[..., :6], masked[..., :6] = logits, mask
    weight = torch.ones(2)
    sums = [add_up(one, m, weight) for one, m in ((logits, mask), (wide, masked))]
    torch.testing.assert_close(finish(LossConfig(), sums[0]), finish(LossConfig(), sums[1]))
    assert (count_pixels(logits[0], mask[0]) == count_pixels(wide[0], masked[0])).all()
    assert Sums.unstack(sums[0].stack()).num_pixels == 36


def test_dice_and_iou_count_each_class_but_the_background():
    mask = torch.tensor([[0, 1, 1, 2]])
    logits = torch.nn.functional.one_hot(torch.tensor([[0, 1, 2, 2]]), 4).movedim(-1, 0).float()
    counts = count_pixels(logits, mask)
    assert counts.tolist() == [[1, 1, 0], [1, 2, 0], [2, 1, 0]]
    assert average(measure_dice(counts)) == pytest.approx((2 / 3 + 2 / 3) / 2)  # class 3 is nowhere
    assert average(measure_iou(counts)) == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert average(measure_dice(torch.zeros(3, 2, dtype=torch.int64))) == 1


def make_augmentation(side=32, epoch=0, **training):
    training = TrainingConfig(**training)
    return Augmentation(DataConfig(size=side), training, Normalisation((0.0,), (1.0,)), 0, epoch, 50)


def test_picture_and_mask_are_changed_alike_and_anew_in_each_epoch():
    rng = np.random.default_rng(0)
    mask = (rng.random((32, 32)) < 0.3).astype(np.uint8)
    mask = mask.repeat(2, 0).repeat(2, 1)[:32, :32]
    seen = []
    for epoch in range(3):
        augment = make_augmentation(epoch=epoch)
        for row in range(8):
            picture, changed = augment(Example(row, mask[None] * 255, mask))
            counts = changed != IGNORED
            assert ((picture[0] > 0.5) == (changed == 1))[counts].float().mean() > 0.9  # but for interpolated edges
            seen.append(picture.numpy().tobytes())
    assert len(set(seen)) == len(seen)
    again, _ = make_augmentation(epoch=2)(Example(7, mask[None] * 255, mask))
    torch.testing.assert_close(again, picture, rtol=0, atol=0)


def test_without_changes_a_square_is_the_picture_itself_and_a_smaller_one_is_padded_with_what_counts_nowhere():
    augment = make_augmentation(horizontal_flip=False, vertical_flip=False, max_rotation=0.0)
    picture = np.arange(20 * 30, dtype=np.uint8).reshape(1, 20, 30)
    square, mask = augment(Example(0, picture, np.ones((20, 30), np.uint8)))
    assert square.shape == (1, 32, 32)
    torch.testing.assert_close(square[:, 6:26, 1:31], torch.from_numpy(picture / np.float32(255)))
    assert (mask == 1).sum() == 600
    assert (mask == IGNORED).sum() == 32 * 32 - 600


def test_a_turned_picture_is_turned_by_the_angle_that_was_drawn():
    picture = torch.zeros(1, 65, 65)
    picture[0, 32, 40:64] = 1
    turned, mask = rotate(picture, torch.zeros(65, 65, dtype=torch.uint8), 90.0)
    column = turned[0, :, 32]
    assert max(column[40:64].mean(), column[1:25].mean()) > 0.95
    assert rotate(picture, torch.ones(65, 65, dtype=torch.uint8), 45.0)[1][0, 0] == IGNORED
    assert mask.max() == 0


def test_larger_pictures_are_covered_by_squares_that_overlap_by_a_quarter():
    for length in (33, 50, 64, 100, 1000):
        starts = list_starts(length, 32)
        assert (starts[0], starts[-1]) == (0, length - 32)
        assert max(np.diff(starts), default=0) <= 24
    assert list_starts(32, 32) == [0]


def test_a_large_picture_is_predicted_as_its_squares_are():
    torch.manual_seed(0)
    model = torch.nn.Conv2d(1, 1, 1)  # of which squares cannot matter
    config = Config(data=DataConfig(size=32), training=TrainingConfig(eval_batch_size=3))
    picture = torch.randn(1, 70, 45)
    with torch.inference_mode():
        torch.testing.assert_close(predict_logits(model, picture, config, torch.float32), model(picture[None])[0])


def test_class_weights_are_as_much_larger_as_a_class_is_rarer():
    counts = np.array([[90, 10, 0], [90, 5, 5]])
    config = Config(data=DataConfig(classes=3), loss=LossConfig(positive_weight="auto"))
    torch.testing.assert_close(weigh_classes(config, counts), torch.tensor([12.0, 36.0]))
    assert weigh_classes(Config(loss=LossConfig(positive_weight=5.0)), counts[:, :2]).tolist() == [5.0]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("unet")
    return tmp_path, train_small(tmp_path, "whole")


def test_a_fold_records_what_the_catalogue_lists_and_predicts_maps_of_both_checkpoints(uninterrupted):
    _, context = uninterrupted
    assert [step for step, _ in context.steps] == list(range(1, 7))
    names = {
        "train/loss_epoch",
        "val/loss_epoch",
        "val/dice",
        "val/iou",
        "train/epoch_time",
        "train/samples_per_second",
        "score",
    }
    assert names <= set(context.epochs[0])
    for epoch in context.epochs:
        assert epoch["score"] == 1 - epoch["val/dice"]
        assert epoch["val/iou"] == pytest.approx(epoch["val/dice"] / (2 - epoch["val/dice"]))
    assert set(context.predictions) == {(c, p) for c in ("best", "final") for p in ("validation", "blend", "test")}
    one = context.predictions["best", "validation"][0]
    assert one.probability_CHW.shape == (1, 64, 64)
    assert set(np.unique(one.target_HW)) == {0, 1}
    description = context.descriptions["final"]
    assert description["architecture"] == {"channels": 1, "outputs": 1, "features": [4, 8]}
    assert {"mean", "std", "size"} <= set(description["preprocessing"])


def test_the_last_epochs_dice_is_that_of_the_maps_that_are_written(tmp_path):
    config = replace(SMALL, data=replace(SMALL.data, size=64))
    context = train_small(tmp_path, config=config)
    right = said = true = 0
    for one in context.predictions["final", "validation"]:
        is_said = one.probability_CHW[0] >= 0.5
        right, said, true = (
            right + (is_said & (one.target_HW == 1)).sum(),
            said + is_said.sum(),
            true + one.target_HW.sum(),
        )
    assert 2 * right / (said + true) == pytest.approx(context.epochs[-1]["val/dice"], abs=1e-12)


def test_pictures_that_are_validated_or_held_out_cannot_change_what_is_learned(tmp_path):
    """Neither by their brightness, which pictures are normalised by, nor by their classes' shares, which weigh these."""
    made = []
    for name in ("first", "second"):
        rng, root = np.random.default_rng(0), tmp_path / name
        for folder in ("images", "masks"):
            (root / folder).mkdir(parents=True)
        for number in range(22):
            size = 4 if name == "first" or number < 12 else 30
            mask = np.zeros((40, 40), np.uint8)
            mask[:size, :size] = 255
            picture = (rng.integers(0, 50, (40, 40)) + (mask > 0) * 60 + 5 * size).astype(np.uint8)
            Image.fromarray(picture).save(root / "images" / f"{number:02d}.png")
            Image.fromarray(mask).save(root / "masks" / f"{number:02d}.png")
        data = DataConfig(root=str(root), size=48)
        config = replace(SMALL, data=data, loss=LossConfig(positive_weight="auto"))
        made.append(train_small(tmp_path / name, config=config))
    first, second = made
    assert [epoch["val/loss_epoch"] for epoch in first.epochs] != [epoch["val/loss_epoch"] for epoch in second.epochs]
    assert first.descriptions["final"]["preprocessing"] == second.descriptions["final"]["preprocessing"]
    assert (first.root / "final").read_bytes() == (second.root / "final").read_bytes()


@pytest.mark.parametrize("step", [1, 3, 5])
def test_a_fold_goes_on_bit_for_bit_wherever_it_was_stopped(uninterrupted, step):
    tmp_path, whole = uninterrupted
    stopped = train_small(tmp_path, f"stopped{step}", stop_at=step)
    going_on = LocalFoldContext(tmp_path / f"stopped{step}")
    resumed = train_small(tmp_path, f"stopped{step}", resume_from=stopped.stopped_with)
    assert resumed.steps == [one for one in whole.steps if one[0] > step]
    assert (going_on.root / "final").read_bytes() == (whole.root / "final").read_bytes()
    for one, other in zip(whole.predictions["best", "test"], resumed.predictions["best", "test"], strict=True):
        assert (one.probability_CHW == other.probability_CHW).all()


def test_threads_that_read_change_no_bit(tmp_path):
    config, inventory = take_inventory(SMALL, tmp_path)
    write_inputs(config, inventory, tmp_path / "threads")
    rows = read_rows(place_rows(tmp_path / "threads", config.data, "train"))
    made = []
    for num_threads, cache_gib in ((1, 2.0), (4, 2.0), (3, 0.0)):
        own = replace(config, training=replace(config.training, picture_cache_gib=cache_gib))
        examples = Examples(rows, own, num_threads, lambda what, do: do())
        augment = Augmentation(config.data, config.training, Normalisation.fit(rows), 0, 1, len(rows))
        batches = list(examples.batches([np.arange(7), np.arange(7, 12)], augment))
        made.append(
            torch.cat(
                [pictures.flatten() for pictures, _ in batches] + [masks.flatten().float() for _, masks in batches]
            )
        )
    assert (made[0] == made[1]).all()
    assert (made[0] == made[2]).all()


def test_four_classes_and_mixed_precision_train_too(tmp_path):
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for number in range(20):
        classes = rng.integers(0, 4, (5, 7)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
        Image.fromarray(classes * 60 + 20).save(tmp_path / "data" / "images" / f"{number:02d}.png")
        Image.fromarray(classes).save(tmp_path / "data" / "masks" / f"{number:02d}.png")
    config = replace(
        SMALL,
        data=DataConfig(root=str(tmp_path / "data"), size=48, classes=4),
        training=replace(SMALL.training, precision="bf16"),
        loss=LossConfig(positive_weight="auto"),
    )
    context = train_small(tmp_path, config=config)
    assert {f"val/dice_class_{k}" for k in (1, 2, 3)} <= set(context.epochs[0])
    one = context.predictions["final", "validation"][0]
    assert one.probability_CHW.shape == (4, 40, 56)
    np.testing.assert_allclose(one.probability_CHW.sum(0), 1, atol=1e-5)
    assert context.epochs[1]["train/loss_epoch"] < context.epochs[0]["train/loss_epoch"]


def test_probabilities_of_several_classes_add_up_to_one():
    values = to_probability(torch.randn(2, 3, 4, 4))
    torch.testing.assert_close(values.sum(1), torch.ones(2, 4, 4))
    assert to_probability(torch.zeros(1, 1, 2, 2)).mean() == 0.5
