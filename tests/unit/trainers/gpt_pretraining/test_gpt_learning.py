"""A fold that learns from a stream of tales: it goes on after a kill in mid-epoch with the same bits, and its models
continue a prompt."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.local_context import KilledError, LocalFoldContext

from trainers.gpt_pretraining.generate import Options, choose_token, generate, mix
from trainers.gpt_pretraining.inventory import take_inventory, write_inputs
from trainers.gpt_pretraining.new_rows import find_new_rows
from trainers.gpt_pretraining.predict import Predictor, Soup, load_model, load_tokenizer
from trainers.gpt_pretraining.recipes import gpt_pretraining_small
from trainers.gpt_pretraining.train import train_fold
from trainers.interface import Split, TrainedModel

SMALL = gpt_pretraining_small().trainer
CONFIG = replace(
    SMALL,
    data=replace(SMALL.data, near_texts=0.0, max_rows=150),
    tokenizer=replace(SMALL.tokenizer, vocabulary=320),
    model=replace(SMALL.model, width=32, layers=1, heads=2, context=64, dropout=0.1),
    training=replace(SMALL.training, epochs=2, batch_size=12, packing="stream", ema_decay=0.9, evaluate_every=9),
)


def train(root, name, **how):
    config, inventory = take_inventory(CONFIG, root, root / "cache")
    context = LocalFoldContext(root / name)
    context.root.mkdir()
    context.stop_at, context.resume_from = how.get("stop_at"), how.get("resume_from")
    write_inputs(config, inventory, context.inputs)
    try:
        train_fold(config, Split(0, inventory.ids[:120], inventory.ids[120:140], inventory.ids[140:]), context)
    except KilledError:
        assert context.stop_at
    return context


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("learning")


@pytest.fixture(scope="module")
def trained(root):
    threads = torch.get_num_threads()
    context = train(root, "whole")
    torch.set_num_threads(threads)
    return context


def as_model(context, name="best"):
    files = {path.name: path.read_bytes() for path in context.find_files(name).iterdir()}
    return TrainedModel(json.loads(json.dumps(context.descriptions[name])), context.load_checkpoint(name), {}, files)


def test_it_learns_more_than_how_often_tokens_are(trained):
    losses = trained.predictions["final", "validation"]
    assert losses.nats.sum() < 0.95 * losses.baseline.sum()
    first, last = trained.steps[0][1], trained.steps[-1][1]
    assert first["train/loss"] == pytest.approx(np.log(320), rel=0.02)
    assert last["train/perplexity"] == pytest.approx(np.exp(last["train/loss"]), rel=1e-5)
    assert sum(metrics["train/tokens"] for _, metrics in trained.steps) == 2 * dict(trained.rows)[0]["data/tokens"]
    epoch = trained.epochs[-1]
    assert epoch["epoch/train_loss"] == pytest.approx(
        np.mean([metrics["train/loss"] for _, metrics in trained.steps[len(trained.steps) // 2 :]]), rel=0.02
    )
    assert epoch["val/excess_nats"] < epoch["val/loss_epoch"]
    assert [step for step, _ in trained.evaluations] == list(range(9, len(trained.steps), 9))
    names = {"eval/loss", "eval/perplexity", "eval/bits_per_byte", "eval/step", "eval/best_perplexity"}
    assert names <= set(trained.evaluations[0][1])


def test_a_kill_in_the_middle_of_the_second_epoch_changes_no_bit(root, trained):
    stop_at = len(trained.steps) * 3 // 4
    killed = train(root, "killed", stop_at=stop_at)
    resumed = train(root, "resumed", resume_from=killed.stopped_with)
    assert resumed.steps == trained.steps[stop_at:]
    assert resumed.epochs[-1]["epoch/train_loss"] == trained.epochs[-1]["epoch/train_loss"]
    for name in ("best", "final"):
        assert (resumed.root / name).read_bytes() == (trained.root / name).read_bytes()
    for key, losses in trained.predictions.items():
        np.testing.assert_array_equal(losses.nats, resumed.predictions[key].nats)


def test_a_prompt_is_continued_the_same_way_by_the_same_seed(trained, tmp_path):
    models = [as_model(trained, "best"), as_model(trained, "final")]
    options = Options(prompt="Once there was", count=2, tokens=12, top_k=40, seed=3)
    first, again = (list(generate(models, options, tmp_path, "cpu", 1)) for _ in range(2))
    assert first == again
    assert first[0] != first[1]
    assert all(text.startswith("Once there was") for text in first)
    lines = [json.loads(line) for line in (tmp_path / "texts.jsonl").read_text().splitlines()]
    assert [line["text"] for line in lines] == first
    other = replace(options, seed=4, mixture="log_mean", temperature=0.0, count=1)
    assert list(generate(models, other, tmp_path, "cpu", 1)) != first[:1]


def test_models_together_are_the_mean_of_their_probabilities_or_of_the_logarithms(trained):
    models = [as_model(trained, "best"), as_model(trained, "final")]
    tokenizer = load_tokenizer(models)
    loaded = [load_model(model, tokenizer, "cpu") for model in models]
    tokens = [tokenizer.end, *tokenizer.encode(["Once there"])[0].tolist()]
    one, other = (np.exp(mix([model], tokens, "mean", "cpu")) for model in loaded)
    np.testing.assert_allclose(np.exp(mix(loaded, tokens, "mean", "cpu")), (one + other) / 2, rtol=1e-6)
    geometric = np.sqrt(one * other)
    np.testing.assert_allclose(np.exp(mix(loaded, tokens, "log_mean", "cpu")), geometric / geometric.sum(), rtol=1e-6)
    rng = np.random.default_rng(0)
    drawn = {choose_token(np.log(one), Options(top_k=3), rng) for _ in range(50)}
    assert drawn <= set(np.argsort(-one)[:3].tolist())
    assert choose_token(np.log(one), Options(temperature=0.0), rng) == one.argmax()
    for wrong in ({"temperature": -1.0}, {"top_k": 0}, {"tokens": 0}, {"mixture": "median"}):
        with pytest.raises(ValueError, match=r"--[a-z-]+=.*: expected"):
            Options(**wrong)


def test_the_soup_is_the_mean_of_weights_where_folds_begin_with_the_same(trained, tmp_path):
    first = as_model(trained).tensors
    models = [replace(as_model(trained), tensors={name: by * first[name] for name in first}) for by in (1, 2)]
    mean = replace(models[0], tensors={name: 1.5 * first[name] for name in first})
    (tmp_path / "new.txt").write_text("Once there was a fox.")
    rows = find_new_rows([CONFIG], tmp_path / "new.txt")
    (block,) = rows.read(8)
    found = Soup(models, rows, "cpu", 1).predict(block).nats
    np.testing.assert_allclose(found, Predictor([mean], rows, "cpu", 1).predict(block).nats, rtol=1e-5)
    assert np.abs(found - Predictor(models[:1], rows, "cpu", 1).predict(block).nats).max() > 1e-3
    assert not CONFIG.BEGINS_ALIKE
    assert replace(CONFIG, model=replace(CONFIG.model, pretrained="gpt2")).BEGINS_ALIKE
