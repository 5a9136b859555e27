"""The transformer: its sizes, and what its parts compute."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from trainers.pixel_diffusion.network.blocks import RMSNorm
from trainers.pixel_diffusion.network.embeddings import (
    build_rotation,
    build_sine_table,
    cut_patches,
    join_patches,
    turn_pairs,
)
from trainers.pixel_diffusion.network.model import Denoiser
from trainers.pixel_diffusion.network.shapes import SHAPES, Shape, find_shape

TINY = Shape(depth=4, width=32, heads=2, bottleneck=8, patch=4, class_tokens=3, join_block=1)


# Numbers of parameters with 1,000 classes, counted from the reference program's modules; G and B/64 by hand.
@pytest.mark.parametrize(
    ("name", "size", "number"),
    [
        ("JiT-B/4", 64, 130_477_872),
        ("JiT-B/16", 256, 131_123_712),
        ("JiT-B/32", 512, 133_190_400),
        ("JiT-L/16", 256, 458_877_664),
        ("JiT-L/32", 512, 461_534_176),
        ("JiT-H/16", 256, 952_514_368),
        ("JiT-H/32", 512, 956_055_616),
        ("JiT-B/64", 1024, 141_457_152),
        ("JiT-G/16", 256, 2_007_130_000),
        ("JiT-G/32", 512, 2_011_555_984),
    ],
)
def test_the_named_models_have_the_published_numbers_of_parameters(name, size, number):
    with torch.device("meta"):
        model = Denoiser(SHAPES[name], size, 1000)
    assert model.count_parameters() == {"total_params": number, "trainable_params": number, "frozen_params": 0}


@pytest.mark.parametrize(("letter", "gflops"), [("B", 25), ("L", 88), ("H", 182), ("G", 383)])
def test_a_forward_pass_costs_what_is_published(letter, gflops):
    """The paper counts a multiplication and an addition as one."""
    assert SHAPES[f"JiT-{letter}/16"].count_flops(256) / 2e9 == pytest.approx(gflops, rel=0.05)


def test_a_new_model_predicts_grey_and_its_maps_begin_as_published():
    torch.manual_seed(0)
    model = Denoiser(TINY, 16, 5)
    said = model(torch.randn(2, 3, 16, 16), torch.tensor([0.2, 0.9]), torch.tensor([0, 5]))
    assert said.shape == (2, 3, 16, 16)
    assert not said.any()
    block = model.blocks[0]
    for linear in (block.attention.qkv, block.mlp.up, model.patches.narrow):
        bound = math.sqrt(6 / sum(linear.weight.shape))  # Xavier over the whole matrix
        assert 0.9 * bound < float(linear.weight.detach().abs().max()) <= bound
    assert float(model.labels.weight.detach().std()) == pytest.approx(0.02, rel=0.2)
    assert model.patches.narrow.bias is None


def test_patches_are_rows_of_pixels_with_their_colours_and_can_be_put_back():
    pictures = torch.arange(2 * 3 * 8 * 8).reshape(2, 3, 8, 8).float()
    patches = cut_patches(pictures, 4)
    assert patches.shape == (2, 4, 48)
    assert patches[1, 1, :6].tolist() == [*pictures[1, :, 0, 4].tolist(), *pictures[1, :, 0, 5].tolist()]
    assert torch.equal(join_patches(patches, 4, 8, 8), pictures)


def test_the_first_half_of_the_sine_table_says_the_column_and_the_second_the_row():
    table = build_sine_table(3, 3, 16)
    assert torch.equal(table[1, 8:], table[2, 8:])  # places 1 and 2 are in row 0
    assert torch.equal(table[1, :8], table[4, :8])  # places 1 and 4 are in column 1
    assert table[1, :2].tolist() == pytest.approx([math.sin(1), math.sin(10000 ** (-1 / 4))])
    assert table[1, 4] == pytest.approx(math.cos(1))


def test_neighbouring_channels_are_turned_by_row_and_then_by_column():
    rotation = build_rotation(2, 2, 8, 1)
    values = torch.randn(1, 1, 5, 8)
    turned = turn_pairs(values, rotation)
    assert torch.equal(turned[0, 0, :2], values[0, 0, :2])  # the class token, and the patch at 0, 0
    first, second = values[0, 0, 3, :2].tolist()  # the patch in row 1, column 0
    expected = [first * math.cos(1) - second * math.sin(1), second * math.cos(1) + first * math.sin(1)]
    assert turned[0, 0, 3, :2].tolist() == pytest.approx(expected)
    assert torch.equal(turned[0, 0, 3, 4:], values[0, 0, 3, 4:])
    torch.testing.assert_close(turned.norm(dim=-1), values.norm(dim=-1))


def test_norms_are_computed_in_float32_and_keep_the_type():
    values = torch.full((2, 4), 3e3, dtype=torch.bfloat16)
    said = RMSNorm(4)(values)
    assert said.dtype == torch.bfloat16
    torch.testing.assert_close(said.float(), torch.ones(2, 4))


def test_class_tokens_come_before_their_block_and_are_dropped_at_the_end():
    model, lengths = Denoiser(TINY, 16, 5), []
    for block in model.blocks:
        block.register_forward_hook(lambda module, args, out: lengths.append(out.shape[1]))
    model(torch.zeros(1, 3, 16, 16), torch.zeros(1), torch.zeros(1, dtype=torch.int64))
    assert lengths == [16, 19, 19, 19]


def test_without_class_tokens_there_is_nothing_of_them_to_learn():
    model = Denoiser(replace(TINY, class_tokens=0), 16, 5)
    model(torch.zeros(1, 3, 16, 16), torch.zeros(1), torch.zeros(1, dtype=torch.int64)).sum().backward()
    assert "class_places" not in dict(model.named_parameters())
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_dropout_is_in_the_middle_half_of_the_blocks_alone():
    with torch.device("meta"):
        blocks = Denoiser(SHAPES["JiT-H/16"], 256, 10).blocks
    rates = [block.mlp.dropout.p for block in blocks]
    assert rates == [block.attention.dropout.p for block in blocks]
    assert [number for number, rate in enumerate(rates) if rate] == list(range(8, 24))
    assert all(isinstance(block.mlp.dropout, nn.Dropout) for block in blocks)


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("JiT-B/8", {}, r"model.name=JiT-B/8: expected one of JiT-B/4, .*; nearest: JiT-B/"),
        ("JiT-B/4", {"width": 100}, r"model.width=100: expected a multiple of 48, four times model.heads=12"),
        ("JiT-B/4", {"join_block": 12}, r"model.join_block=12: expected 0 to 11, a block of model.depth=12"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(name, given, said):
    with pytest.raises(ValueError, match=said):
        find_shape(name, given)
