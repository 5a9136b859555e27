"""The CLIP regressor: targets, ages, losses, batches, model, and whole folds trained without Ray."""

import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.metrics import mean_absolute_error, mean_squared_error, mean_squared_log_error
from support.broken_pictures import break_on_decoding
from support.local_context import LocalFoldContext
from support.small_training import TINY, train_small

from trainers.clip_regression.config import DataConfig, LossConfig, ModelConfig
from trainers.clip_regression.inputs.data import Augmentation, _move, age_in_years
from trainers.clip_regression.inputs.numbers import NumberEncoder
from trainers.clip_regression.inputs.picture_reader import PictureReader
from trainers.clip_regression.inputs.targets import TargetStatistics, score_on_target_scale
from trainers.clip_regression.inventory import check_model, prepare_node, take_inventory
from trainers.clip_regression.network.encoders import build_clip, describe_architecture
from trainers.clip_regression.network.loss import batch_loss
from trainers.clip_regression.network.model import ClipRegressor, text_encoder
from trainers.clip_regression.rows.synthetic_data import make_data
from trainers.clip_regression.train import _group_parameters
from trainers.interface import DataError
from trainers.learning.average import AverageOfWeights
from trainers.learning.batches import learning_rate_factor, share_of_rank, training_order


def test_target_statistics_come_from_the_rows_given_and_restore_what_they_standardise():
    target = np.array([0.0, 9.0, 99.0, 1e6])
    statistics = TargetStatistics.fit(target)
    z = statistics.standardise(target)
    assert abs(z.mean()) < 1e-12
    assert abs(z.std() - 1) < 1e-12
    np.testing.assert_allclose(statistics.restore(z), target, rtol=1e-9, atol=1e-9)
    assert statistics.restore(np.array([-100.0]))[0] == 0
    assert np.isfinite(statistics.restore(np.array([1e9]))).all()
    assert TargetStatistics.fit(np.array([5.0, 5.0])).sigma == 1.0


def test_ages_are_counted_in_years_from_the_reference():
    np.testing.assert_allclose(age_in_years(np.array([0.0, 365.2425 * 86400]), 365.2425 * 86400), [1, 0])


def test_number_encoding_is_piecewise_linear_between_training_quantiles():
    encoder = NumberEncoder.fit(np.array([0.0, 1.0, 2.0, 3.0, 4.0]), 2)
    assert encoder.edges == (0.0, 2.0, 4.0)
    encoded = encoder.encode(np.array([-1.0, 1.0, 3.0, 9.0, np.nan]))
    np.testing.assert_allclose(encoded, [[0, 0], [0.5, 0], [1, 0.5], [1, 1], [1, 0]])  # missing: the median, 2


def test_a_missing_number_is_marked_only_where_training_rows_miss_some():
    encoder = NumberEncoder.fit(np.array([0.0, 2.0, np.nan]), 1)
    np.testing.assert_allclose(encoder.encode(np.array([2.0, np.nan])), [[1, 0], [0.5, 1]])
    assert encoder.width == 2


def test_a_constant_number_has_one_bin():
    assert NumberEncoder.fit(np.full(5, 7.0), 8).edges == (6.5, 7.5)


@pytest.mark.parametrize("kind", ["mse", "msle", "rmsle", "weighted_mse"])
def test_losses_are_what_their_formulas_say_and_split_over_ranks(kind):
    torch.manual_seed(0)
    mu, sigma, loss = 6.0, 2.0, LossConfig(kind=kind, weight_lambda=3.0, weight_center=6.0)
    z = torch.randn(8, dtype=torch.float64)
    z_hat = torch.randn(8, dtype=torch.float64, requires_grad=True)
    y, y_hat = torch.expm1(z * sigma + mu), torch.expm1(z_hat.detach() * sigma + mu).clamp_min(0)
    weights = 1 + 3.0 * torch.sigmoid(2 * (torch.log1p(y) - 6.0))
    msle = (torch.log1p(y_hat) - torch.log1p(y)).square().mean()
    expected = {
        "mse": (z_hat.detach() - z).square().mean(),
        "msle": msle,
        "rmsle": msle.sqrt(),
        "weighted_mse": (weights * (z_hat.detach() - z).square()).mean(),
    }[kind]

    def part(rows, whole):
        share = torch.full((len(rows),), 1 / 8, dtype=torch.float64)
        return batch_loss(
            loss,
            z_hat[rows],
            z[rows],
            mu=mu,
            sigma=sigma,
            progress=1.0,
            share_B=share,
            sum_over_ranks=lambda v: whole(v),
        )

    value = part(range(8), lambda v: v)
    value.backward()
    gradient = z_hat.grad.clone()
    torch.testing.assert_close(value.detach(), expected)
    assert torch.autograd.gradcheck(lambda p: _loss_of(p, z, loss, mu, sigma), (z_hat,), atol=1e-5) or kind == "rmsle"

    z_hat.grad = None
    parts = [part(list(range(0, 8, 2)), lambda _: msle), part(list(range(1, 8, 2)), lambda _: msle)]
    sum(parts).backward()
    torch.testing.assert_close(sum(parts).detach(), expected)
    torch.testing.assert_close(z_hat.grad, gradient)


def _loss_of(z_hat, z, loss, mu, sigma):
    share = torch.full((8,), 1 / 8, dtype=torch.float64)
    return batch_loss(loss, z_hat, z, mu=mu, sigma=sigma, progress=1.0, share_B=share, sum_over_ranks=lambda v: v)


def test_the_extra_weight_of_large_targets_rises_from_nothing():
    loss = LossConfig(kind="weighted_mse", weight_lambda=2.0, weight_ramp_fraction=0.5, weight_center=0.0)
    z, z_hat, share = torch.full((1,), 50.0), torch.full((1,), 51.0), torch.ones(1)

    def at(progress):
        return batch_loss(
            loss, z_hat, z, mu=0.0, sigma=1.0, progress=progress, share_B=share, sum_over_ranks=lambda v: v
        ).item()

    assert [at(0.0), at(0.25), at(0.5), at(1.0)] == pytest.approx([1, 2, 3, 3])


def test_learning_rate_warms_up_and_follows_half_a_cosine():
    factors = [learning_rate_factor(step, 100, "cosine", 0.1) for step in range(100)]
    assert factors[0] < factors[5] < factors[9] < 1
    assert factors[10] == 1
    assert factors[55] == pytest.approx(0.5)
    assert factors[99] < 0.001
    assert learning_rate_factor(50, 100, "constant", 0.0) == 1


def test_every_epoch_orders_all_rows_anew_and_repeatably():
    first, second = training_order(0, 1, 0, 50), training_order(0, 1, 1, 50)
    assert sorted(first) == list(range(50))
    assert (first != second).any()
    assert (first == training_order(0, 1, 0, 50)).all()
    assert (first != training_order(0, 2, 0, 50)).any()


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_the_ranks_of_a_fold_compute_each_row_of_a_batch_once(size):
    batch = np.arange(100, 100 + size)
    rows, weight = [], 0.0
    for rank in range(3):
        mine, share = share_of_rank(batch, rank, 3)
        assert len(mine) >= 1
        rows += mine[share > 0].tolist()
        weight += share.sum()
    assert sorted(rows) == batch.tolist()
    assert weight == pytest.approx(1)


def test_scores_equal_scikit_learn():
    rng = np.random.default_rng(0)
    target, prediction = rng.lognormal(5, 2, 50), rng.lognormal(5, 2, 50)
    scores = score_on_target_scale(target, prediction)
    assert scores["val/msle"] == pytest.approx(mean_squared_log_error(target, prediction))
    assert scores["val/mae"] == pytest.approx(mean_absolute_error(target, prediction))
    assert scores["val/mse"] == pytest.approx(mean_squared_error(target, prediction))
    assert scores["val/rmse"] == pytest.approx(mean_squared_error(target, prediction) ** 0.5)


def test_pictures_are_prepared_like_the_encoder_was_trained(tmp_path):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 50, 3), np.uint8).astype(np.uint8))
    picture.save(tmp_path / "a.png")
    cfg = {"size": 32, "mode": "RGB", "mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7), "interpolation": "bicubic",
           "resize_mode": "shortest", "fill_color": 0}  # fmt: skip
    reader = PictureReader(cfg)
    ours = reader.normalise(torch.from_numpy(reader.read(tmp_path / "a.png")[0][None].copy()))[0]
    theirs = open_clip.transform.image_transform_v2(open_clip.transform.PreprocessCfg(**cfg), is_train=False)(picture)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    mean_colour = reader.normalise(torch.from_numpy(reader.read(None)[0][None].copy()))
    assert mean_colour.abs().max() < 0.01


def test_a_picture_that_breaks_on_decoding_is_reported_and_replaced(tmp_path):
    Image.new("RGB", (64, 64), (200, 0, 0)).save(tmp_path / "a.jpg")
    content = bytearray((tmp_path / "a.jpg").read_bytes())
    content[2:20] = bytes(18)
    (tmp_path / "a.jpg").write_bytes(content)
    cfg = {"size": 32, "mode": "RGB", "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic",
           "resize_mode": "shortest", "fill_color": 0}  # fmt: skip
    picture, problem = PictureReader(cfg).read(tmp_path / "a.jpg")
    assert (picture == 128).all()
    assert "a.jpg cannot be decoded" in problem


def test_augmentation_depends_on_row_and_epoch_never_on_the_batch():
    config = replace(TINY, model=replace(TINY.model, token_dropout=0.5))
    augment = Augmentation(config, fold=0, epoch=3, num_rows=40, num_tokens=10)
    tokens = torch.tensor([[90, 5, 6, 7, 8, 99, 0, 0, 0, 0]]).repeat(40, 1)
    images = torch.arange(40 * 3 * 4 * 4, dtype=torch.uint8).reshape(40, 3, 4, 4)
    rows = np.arange(40)
    together_images, together = augment.flip(images, rows), augment.drop_tokens(tokens, rows)
    for start in (0, 17):
        part = rows[start : start + 17]
        assert torch.equal(augment.drop_tokens(tokens[part], part), together[part])
        assert torch.equal(augment.flip(images[part], part), together_images[part])
    flipped = (together_images != images).flatten(1).any(1).float().mean()
    assert 0.2 < flipped < 0.8
    assert (together[:, 0] == 90).all()
    assert (together == 99).any(1).all()
    assert (together[:, 1:6] != tokens[:, 1:6]).any()


def make_model(**overrides):
    torch.manual_seed(0)
    model = replace(TINY.model, dropout=0.0, **overrides)
    architecture = open_clip.get_model_config("tiny-clip")
    return ClipRegressor(build_clip(architecture), architecture, model, has_image=True, has_text=True, age_width=4)


def test_modality_weights_add_up_to_one_and_mix_the_heads():
    model = make_model().eval()
    with torch.no_grad():
        model.weight_logits.copy_(torch.tensor([1.0, 0.0, -1.0]))
    weights = model.modality_weights()
    assert float(sum(weights.values())) == pytest.approx(1)
    images, tokens, numbers = torch.randn(5, 3, 32, 32), torch.randint(1, 40000, (5, 77)), torch.rand(5, 4)
    parts = [
        model.heads["image"](model.clip.encode_image(images)),
        model.heads["text"](text_encoder(model.clip, average=True)(tokens)),
        model.heads["age"](numbers),
    ]
    expected = sum(w * p[:, 0] for w, p in zip(weights.values(), parts, strict=True))
    torch.testing.assert_close(model(images, tokens, numbers), expected)


def test_padding_does_not_change_the_text_features():
    model = make_model().eval()
    tokens = torch.zeros(1, 77, dtype=torch.long)
    tokens[0, :4] = torch.tensor([49406, 320, 2368, 49407])
    short = model.clip.encode_text(tokens)[0, :4].mean(0)
    torch.testing.assert_close(text_encoder(model.clip, average=True)(tokens)[0], short)


def test_frozen_encoders_do_not_learn_and_stay_in_evaluation_mode():
    model = make_model(freeze=True, allow_random_frozen=True).train()
    assert not model.clip.training
    assert model.heads.training
    counts = model.count_parameters()
    assert counts["frozen_params"] == sum(p.numel() for p in model.clip.parameters())
    assert counts["total_params"] == counts["trainable_params"] + counts["frozen_params"]
    assert not set(model.trained_state()) & set(model.frozen_state())


def test_weight_decay_pulls_matrices_and_leaves_biases_norms_and_the_mix():
    model = make_model(freeze=False)
    decay_of = {id(one): group["weight_decay"] for group in _group_parameters(model, 0.1) for one in group["params"]}
    names = {name: decay_of.pop(id(one)) for name, one in model.named_parameters() if one.requires_grad}
    assert not decay_of
    spared = {name for name, decay in names.items() if decay == 0}
    assert {"weight_logits", "heads.image.0.weight", "clip.visual.ln_post.weight"} < spared
    assert {name for name in names if name.endswith("bias")} < spared
    pulled = {name for name, decay in names.items() if decay == 0.1}
    assert {"heads.image.2.weight", "heads.age.0.weight", "clip.visual.conv1.weight"} < pulled
    assert pulled | spared == set(names)


def test_the_average_of_weights_swaps_in_and_out():
    layer = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(layer.weight)
    average = AverageOfWeights(layer, 0.9)
    for value in (1.0, 1.0):
        torch.nn.init.constant_(layer.weight, value)
        average.update()
    expected = 1 - (2 / 11) * (3 / 12)
    average.swap()
    assert layer.weight.item() == pytest.approx(expected)
    average.swap()
    assert layer.weight.item() == 1.0


def test_the_statistics_of_batch_normalisation_are_averaged_with_the_weights_they_belong_to():
    layer = torch.nn.BatchNorm1d(2, affine=False)
    average = AverageOfWeights(layer, 0.9)
    layer.running_mean.fill_(1.0)
    average.update()
    with average.swapped():
        assert layer.running_mean.tolist() == pytest.approx([1 - 2 / 11] * 2)
    assert layer.running_mean.tolist() == [1.0, 1.0]


def test_made_data_is_the_same_each_time_and_each_modality_explains_a_third(tmp_path):
    first, second = make_data(tmp_path / "a"), make_data(tmp_path / "b")
    assert (first / "train_val.csv").read_bytes() == (second / "train_val.csv").read_bytes()
    _, inventory = take_inventory(replace(TINY, data=DataConfig(root=str(first))), tmp_path)
    assert (len(inventory.ids), inventory.num_test) == (600, 120)
    assert 2.5 < np.log1p(inventory.target).var() < 3.7


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (ModelConfig(clip="ViT-B32", freeze=False), "expected the name of a model of open_clip; nearest: ViT-B-32"),
        (ModelConfig(clip="ViT-B-32", pretrained="opnai"), "tags of ViT-B-32: openai"),
        (ModelConfig(clip="tiny-clip", pretrained="openai"), "no such file or tag"),
    ],
)
def test_models_that_cannot_be_had_are_refused_before_launch(model, message):
    with pytest.raises(DataError, match=message):
        check_model(model)


def test_weights_that_cannot_be_fetched_end_in_a_word_on_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    config = replace(TINY, model=ModelConfig(clip="ViT-B-32", pretrained="openai"))
    with pytest.raises(DataError, match=r"(?s)cannot be downloaded: .*model.pretrained=/path/to/file") as caught:
        prepare_node(config)
    assert "ViT-B-32" in str(caught.value)


def test_a_machine_that_does_not_see_the_data_is_named(tmp_path):
    config = replace(TINY, data=replace(TINY.data, root=str(tmp_path / "mounted")))
    with pytest.raises(DataError, match=rf"mounted: no such folder on {os.uname().nodename}; every node"):
        prepare_node(config)
    (tmp_path / "mounted").mkdir()
    prepare_node(config)


def test_weights_of_another_architecture_or_no_weights_are_refused(tmp_path):
    state = build_clip(open_clip.get_model_config("tiny-clip")).state_dict()
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "tiny.safetensors")
    check_model(ModelConfig(clip="tiny-clip", pretrained=str(tmp_path / "tiny.safetensors")))
    with pytest.raises(DataError, match=r"does not fit model.clip=ViT-B-32: \d+ tensors differ"):
        check_model(ModelConfig(clip="ViT-B-32", pretrained=str(tmp_path / "tiny.safetensors")))
    (tmp_path / "torn.safetensors").write_bytes((tmp_path / "tiny.safetensors").read_bytes()[:1000])
    with pytest.raises(DataError, match="no weights file"):
        check_model(ModelConfig(clip="tiny-clip", pretrained=str(tmp_path / "torn.safetensors")))
    torch.save({"a": print}, tmp_path / "code.pt")
    with pytest.raises(DataError, match="without running code"):
        check_model(ModelConfig(clip="tiny-clip", pretrained=str(tmp_path / "code.pt")))


def test_the_blend_set_is_predicted_and_changes_nothing_else(small_frame, write_data, tmp_path):
    root = write_data(small_frame)
    alone, beside = (train_small(tmp_path, root, name, num_validation=num) for name, num in (("a", 8), ("b", 4)))
    assert set(alone.predictions) == {("best", "validation"), ("final", "validation")}
    blend = beside.predictions["final", "blend"]
    assert len(blend.ids) == 4
    assert np.isfinite(blend.target).all()
    both = np.concatenate([beside.predictions["final", "validation"].prediction, blend.prediction])
    np.testing.assert_allclose(both, alone.predictions["final", "validation"].prediction, rtol=1e-6)


def test_an_unfrozen_fold_records_every_metric_of_the_catalogue(small_frame, write_data, tmp_path):
    context = train_small(tmp_path, write_data(small_frame, small_frame.drop(columns="views").head(5)))
    assert len(context.steps) == 2 * 4
    assert set(context.steps[0][1]) == {"train/loss_step", "learning_rate"}
    setup = context.rows[0][1]
    assert setup["data/train_size"] == 16
    assert setup["model/total_params"] > 3_000_000
    per_epoch = [
        "train/loss_epoch",
        "val/loss_epoch",
        "learning_rate",
        "val/msle",
        "val/mae",
        "val/mse",
        "val/rmse",
        "predictions/mean",
        "predictions/std",
        "targets/mean",
        "targets/std",
        "weights/image",
        "weights/text",
        "weights/age",
        "train/samples_per_second",
        "score",
    ]
    assert set(per_epoch) <= set(context.epochs[0])
    last = {name: value for _, row in context.rows for name, value in row.items()}
    assert last["best_msle"] == min(epoch["val/msle"] for epoch in context.epochs)
    assert (last["training_completed"], last["total_epochs"]) == (1, 2)
    assert set(context.predictions) == {(c, r) for c in ("best", "final") for r in ("validation", "test")}
    final = context.predictions["final", "validation"]
    assert mean_squared_log_error(final.target, final.prediction) == pytest.approx(context.epochs[-1]["val/msle"])
    mu = context.descriptions["best"]["target_statistics"]["mu"]
    assert mu == pytest.approx(np.log1p(small_frame["views"].to_numpy()[:16]).mean())


def test_the_same_seed_gives_the_same_bits(small_frame, write_data, tmp_path):
    root = write_data(small_frame)
    first, second = train_small(tmp_path, root, "a", ema=0.9), train_small(tmp_path, root, "b", ema=0.9)
    assert first.steps == second.steps
    assert (first.root / "final").read_bytes() == (second.root / "final").read_bytes()


@pytest.mark.parametrize("stop_at", [1, 4, 6, 8])  # in the first epoch, at its end, in the second, at the very end
def test_a_fold_goes_on_bit_for_bit_wherever_it_was_stopped(small_frame, write_data, tmp_path, stop_at):
    root = write_data(small_frame, small_frame.drop(columns="views").head(5))
    whole = train_small(tmp_path, root, "whole", ema=0.9)
    first = train_small(tmp_path, root, "parts", ema=0.9, stop_at=stop_at)
    point, random_state = first.stopped_with
    torch.rand(7)  # whatever else used the generator
    second = train_small(tmp_path, root, "parts", ema=0.9, resume_from=(point, random_state))
    assert first.steps + second.steps == whole.steps
    assert len(second.steps) == 8 - stop_at
    assert (second.root / "final").read_bytes() == (whole.root / "final").read_bytes()
    assert (second.root / "best").read_bytes() == (whole.root / "best").read_bytes()
    timings = ("train/epoch_time", "train/samples_per_second", "train/data_wait_share")
    epochs = [{k: v for k, v in epoch.items() if k not in timings} for epoch in first.epochs + second.epochs]
    assert epochs == [{k: v for k, v in epoch.items() if k not in timings} for epoch in whole.epochs]
    for key, predictions in whole.predictions.items():
        np.testing.assert_array_equal(predictions.prediction_z, second.predictions[key].prediction_z)


def test_before_a_validation_of_unknown_length_a_fold_saves_where_it_is(small_frame, write_data, tmp_path, monkeypatch):
    monkeypatch.setattr(LocalFoldContext, "is_resume_point_due", lambda *_: False)
    root = write_data(small_frame)
    first = train_small(tmp_path, root, "parts", stop_at=4)
    assert (len(first.steps), first.epochs) == (4, [])
    point, random_state = first.stopped_with
    point.facts["spent_s"] += 1000
    second = train_small(tmp_path, root, "parts", resume_from=(point, random_state))
    assert len(second.steps) == 4
    assert second.epochs[0]["train/epoch_time"] > 1000  # the epoch's, not only what is left of it
    rows = train_small(tmp_path, root, "whole").epochs[0]
    num_rows = rows["train/samples_per_second"] * rows["train/epoch_time"]
    assert second.epochs[0]["train/samples_per_second"] < num_rows / 1000


def test_a_frozen_fold_shares_its_encoders_and_its_checkpoint_holds_only_what_was_learned(
    small_frame, write_data, tmp_path
):
    torch.manual_seed(3)
    state = {k: v.contiguous() for k, v in build_clip(open_clip.get_model_config("tiny-clip")).state_dict().items()}
    save_file(state, tmp_path / "weights.safetensors")
    model = replace(TINY.model, pretrained=str(tmp_path / "weights.safetensors"), freeze=True)
    context = train_small(tmp_path, write_data(small_frame), model=model)
    frozen = context.shared["frozen_encoders"]
    assert all(torch.equal(frozen[f"clip.{name}"], value) for name, value in state.items())
    assert not any(name.startswith("clip.") for name in context.load_checkpoint("best"))


@pytest.mark.parametrize(
    "fields",
    [{"train_pictures": ""}, {"text_columns": ()}, {"date_column": None}, {"train_pictures": "", "text_columns": ()}],
)
def test_any_modality_may_be_missing(small_frame, write_data, tmp_path, fields):
    data = DataConfig(root=str(write_data(small_frame)), **fields)
    context = train_small(tmp_path, data.root, data=data)
    weights = {name: context.epochs[-1][f"weights/{name}"] for name in ("image", "text", "age")}
    assert sum(weights.values()) == pytest.approx(1)
    assert weights["image"] == 0 or "train_pictures" not in fields
    assert weights["text"] == 0 or "text_columns" not in fields
    assert weights["age"] == 0 or "date_column" not in fields


def test_validation_rows_cannot_change_what_is_learned(small_frame, write_data, tmp_path):
    """Another target, text and date in the validation rows leaves the final checkpoint as it is, bit for bit."""
    first = train_small(tmp_path, write_data(small_frame), "a")
    changed = small_frame.copy()
    changed.loc[16:, ["views", "title", "date"]] = [999_999, "other words", "1999-01-01"]
    second = train_small(tmp_path, write_data(changed), "b")
    assert (first.root / "final").read_bytes() == (second.root / "final").read_bytes()


def test_pictures_that_are_kept_in_memory_change_no_bit(small_frame, write_data, tmp_path):
    root = write_data(small_frame)
    kept, read = train_small(tmp_path, root, "kept"), train_small(tmp_path, root, "read", picture_cache_gib=0.0)
    assert (kept.prepared[-1][0], read.prepared) == ("decoding", [])
    assert (kept.root / "final").read_bytes() == (read.root / "final").read_bytes()


def test_a_test_picture_that_breaks_on_decoding_becomes_the_mean_colour_and_is_listed(
    small_frame, write_data, tmp_path
):
    root = write_data(small_frame, small_frame.drop(columns="views").head(5))
    break_on_decoding(root / "test", "v03")
    context = train_small(tmp_path, root)
    assert [(table, row_id, done) for table, row_id, _, done in context.bad_rows] == [
        ("test.csv", "v03", "mean colour")
    ]
    assert np.isfinite(context.predictions["best", "test"].prediction).all()


def test_what_goes_to_a_gpu_is_copied_from_pinned_memory_beside_the_computation():
    pinned = SimpleNamespace(to=lambda device, non_blocking=False: ("pinned", device, non_blocking))
    assert _move(SimpleNamespace(pin_memory=lambda: pinned), "cuda:1") == ("pinned", "cuda:1", True)
    tensor = torch.ones(2)
    assert _move(tensor, "cpu") is tensor
    assert _move(None, "cuda:1") is None


def test_heads_and_mix_compute_in_full_precision_under_autocast():
    model = make_model().eval()
    images, tokens, numbers = torch.randn(5, 3, 32, 32), torch.randint(1, 40000, (5, 77)), torch.rand(5, 4)
    with torch.autocast("cpu", torch.bfloat16):
        z = model(images, tokens, numbers)
    assert z.dtype == torch.float32
    assert (z != z.bfloat16()).any()


def test_a_weights_file_can_say_that_it_was_trained_with_quick_gelu(tmp_path):
    weights = tmp_path / "file.safetensors"
    assert describe_architecture(ModelConfig(clip="ViT-B-32", pretrained="openai"))["quick_gelu"]
    assert "quick_gelu" not in describe_architecture(ModelConfig(clip="ViT-B-32", pretrained=str(weights)))
    assert describe_architecture(ModelConfig(clip="ViT-B-32", pretrained=str(weights), quick_gelu=True))["quick_gelu"]
