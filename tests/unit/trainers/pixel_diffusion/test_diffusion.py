"""The loss, the times and noise of rows, and the sampler."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from trainers.pixel_diffusion.diffusion.fixed_noise import (
    DRAWS,
    choose_draws,
    choose_places,
    choose_rows,
    draw_row_noise,
    draw_sample_noise,
    place_times,
)
from trainers.pixel_diffusion.diffusion.loss import add_noise, draw_times, find_losses
from trainers.pixel_diffusion.diffusion.references import predict_mean
from trainers.pixel_diffusion.diffusion.sampler import Guidance, average_models, draw_samples, from_bytes, to_bytes
from trainers.pixel_diffusion.process import Process

PROCESS = Process()


def test_the_loss_is_of_velocities_clamped_in_both_target_and_prediction():
    clean, noise = torch.full((2, 3, 4, 4), 0.5), torch.full((2, 3, 4, 4), -1.0)
    time = torch.tensor([0.5, 0.99])
    noisy = add_noise(Process(noise_scale=2.0), clean, noise, time)
    assert noisy[:, 0, 0, 0].tolist() == pytest.approx([0.25 - 1.0, 0.495 - 0.02])
    predicted, divisor = clean + 0.1, torch.tensor([0.5, 0.05])[:, None, None, None]
    v, said = (clean - noisy) / divisor, (predicted - noisy) / divisor
    expected = (v - said).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(find_losses(PROCESS, predicted, clean, time), expected)
    assert expected.tolist() == pytest.approx([0.04, 4.0], rel=1e-5)


def test_the_loss_is_computed_in_float32_whatever_the_prediction_s_type():
    clean = torch.full((1, 3, 2, 2), 0.123)
    loss = find_losses(PROCESS, clean.bfloat16(), clean, torch.tensor([0.98]))
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(((0.123 - float(torch.tensor(0.123).bfloat16())) / 0.05) ** 2, rel=1e-3)


def test_times_of_training_are_logistic_normal():
    normal = torch.tensor([-1.0, 0.0, 2.0])
    expected = [1 / (1 + math.exp(0.8 - 0.8 * one)) for one in normal.tolist()]
    assert draw_times(PROCESS, normal).tolist() == pytest.approx(expected)


def test_times_of_rows_are_stratified_and_belong_to_the_row_alone():
    ids = [f"row{number}" for number in range(500)]
    times = place_times(ids, PROCESS)
    assert times.shape == (500, DRAWS)
    quantiles = 0.5 * (1 + np.vectorize(math.erf)((np.log(times / (1 - times)) + 0.8) / 0.8 / math.sqrt(2)))
    np.testing.assert_allclose(np.floor(quantiles * DRAWS), np.tile(np.arange(DRAWS), (500, 1)))
    assert quantiles.mean() == pytest.approx(0.5, abs=0.01)
    np.testing.assert_array_equal(place_times(ids[7:9], PROCESS), times[7:9])
    np.testing.assert_array_equal(np.bincount(choose_draws(ids)) > 90, True)


def test_noise_belongs_to_the_row_and_the_draw():
    one = draw_row_noise("a", 0, (3, 40, 40))
    np.testing.assert_array_equal(one, draw_row_noise("a", 0, (3, 40, 40)))
    assert (one.mean(), one.std()) == pytest.approx((0, 1), abs=0.05)
    others = [draw_row_noise("a", 1, one.shape), draw_row_noise("b", 0, one.shape), draw_sample_noise(0, 0, one.shape)]
    assert all(abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.06 for other in others)


def test_places_are_all_or_some_of_a_row():
    assert choose_places("a", 768, 1024).tolist() == list(range(768))
    places = choose_places("a", 3072, 1024)
    assert (np.diff(places) > 0).all()
    assert len(places) == 1024
    assert places.tolist() != choose_places("b", 3072, 1024).tolist()


def test_of_many_rows_some_are_chosen_by_their_ids():
    ids, places = np.array([f"row{number:03d}" for number in range(100)]), np.arange(20, 100)
    assert choose_rows(ids, places, 80) is places
    chosen = choose_rows(ids, places, 30)
    assert len(set(chosen.tolist())) == 30
    assert (np.diff(chosen) > 0).all()
    assert 30 < chosen.mean() < 80
    assert set(choose_rows(ids, places[::-1], 30).tolist()) == set(chosen.tolist())


def follow(steps: int, process: Process = PROCESS) -> torch.Tensor:
    """From noise to pictures by a model that knows the picture."""
    known = torch.full((2, 3, 4, 4), 0.6)
    noise = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(2, dtype=torch.int64)
    return draw_samples(process, lambda noisy, time, label: known, noise, labels, 1, steps=steps)


def test_up_to_one_step_for_each_clamp_the_sampler_arrives_at_the_predicted_picture():
    assert torch.equal(follow(20), to_bytes(torch.full((2, 3, 4, 4), 0.6)))
    assert torch.equal(follow(3, Process(noise_scale=4.0)), follow(20))
    assert not torch.equal(follow(50), follow(20))  # its last step goes 0.02 / 0.05 of the way


def test_heun_evaluates_twice_a_step_but_for_the_last_and_guides_only_between_its_bounds():
    asked = []

    def predict(noisy, time, label):
        asked.append((round(float(time[0]), 4), label.tolist()))
        return torch.zeros_like(noisy)

    noise, labels = torch.zeros(1, 3, 4, 4), torch.tensor([2])
    draw_samples(PROCESS, predict, noise, labels, 5, steps=10)
    assert [time for time, _ in asked] == [round(n / 10, 4) for k in range(9) for n in (k, k + 1)] + [0.9]
    asked.clear()
    draw_samples(PROCESS, predict, noise, labels, 5, steps=50, guidance=Guidance(3.0))
    free = [time for time, label in asked if label == [5]]
    assert (min(free), max(free)) == (0.12, 0.98)  # not at 0.1, and Heun's second evaluation at its own time
    assert len(asked) == 99 + len(free)
    asked.clear()
    draw_samples(PROCESS, predict, noise, labels, 5, steps=50, guidance=Guidance(1.0))
    assert len(asked) == 99


def test_guidance_exaggerates_the_velocity():
    def predict(noisy, time, label):
        return torch.where(label[:, None, None, None] == 5, 0.1, 0.2).expand_as(noisy)

    noise = torch.zeros(1, 3, 2, 2)
    made = draw_samples(PROCESS, predict, noise, torch.tensor([2]), 5, steps=1, guidance=Guidance(3.0, low=-1.0))
    assert from_bytes(made).flatten()[0].item() == pytest.approx(0.1 + 3 * 0.1, abs=0.01)


def test_an_ensemble_predicts_the_mean_of_what_its_models_predict():
    models = [lambda noisy, time, label, value=value: torch.full_like(noisy, value) for value in (0.0, 0.3, 0.6)]
    said = average_models(models)(torch.zeros(1, 3, 2, 2), torch.zeros(1), torch.zeros(1))
    torch.testing.assert_close(said, torch.full((1, 3, 2, 2), 0.3))


def test_who_knows_all_pictures_predicts_their_posterior_mean():
    known = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 0.5]])
    noisy, time = torch.tensor([[0.2, 0.1]]), torch.tensor([0.4])
    weights = np.exp(-((noisy - 0.4 * known) ** 2).sum(1).numpy() / (2 * (0.6 * 0.5) ** 2))
    expected = (weights[:, None] * known.numpy()).sum(0) / weights.sum()
    said = predict_mean(Process(noise_scale=0.5), noisy, time, known)
    assert said[0].tolist() == pytest.approx(expected.tolist())
