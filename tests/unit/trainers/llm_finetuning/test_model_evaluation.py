"""Finished models answer questions whose right answers are known: each, the models before, and the soup of all."""

from __future__ import annotations

import json

import pytest
import torch
from peft import PeftModel, get_peft_model_state_dict
from support.judge_server import serve_judge
from support.small_finetuning import make_folder, train_small

from trainers.interface import DataError, TrainedModel
from trainers.llm_finetuning.evaluate import Options, evaluate
from trainers.llm_finetuning.network.language_model import load_base
from trainers.llm_finetuning.new_rows import find_new_rows
from trainers.llm_finetuning.predict import Soup, _read_config
from trainers.llm_finetuning.questions.base_model import TINY
from trainers.llm_finetuning.scoring.judge import JudgeError


@pytest.fixture(scope="module")
def folds(tmp_path_factory):
    root = tmp_path_factory.mktemp("folds")
    return [train_small(root / str(seed), f"grpo.steps=2 training.seed={seed}") for seed in range(2)]


def read_models(folds, name):
    models = []
    for number, context in enumerate(folds):
        description = json.loads(json.dumps(context.descriptions[name or "best"])) | {"fold": number}
        files = {path.name: path.read_bytes() for path in context.find_files("best").iterdir()}
        tensors = context.load_checkpoint(name or "best")
        models.append(TrainedModel(description, tensors, context.shared["base_model"], files, f"fold_{number}"))
    return models


@pytest.fixture
def rows(folds, tmp_path):
    table = (make_folder() / "made_data" / "test.jsonl").read_text().splitlines()[:8]
    (tmp_path / "some.jsonl").write_text("\n".join(table))
    return find_new_rows([_read_config(read_models(folds, "")[0])], tmp_path / "some.jsonl")


def run(folds, rows, options, cache, **how):
    return dict(evaluate(lambda name: read_models(folds, name), rows, options, cache, "cpu", 1, **how))


def test_each_fold_s_model_answers_and_the_soup_of_all(folds, rows, tmp_path):
    found = run(folds, rows, Options(), tmp_path, is_ablation=True)
    assert list(found) == ["fold_0", "fold_1", "soup"]
    assert [one.row_id for one in found["soup"]] == [one.row_id for one in found["fold_0"]]
    assert list(found["fold_0"][0].before) == ["base_model", "sft_only"]
    first, second = ([one.before["base_model"] for one in found[name]] for name in ("fold_0", "fold_1"))
    assert first == second
    sft = run(folds, rows, Options(eval_sft=True), tmp_path)
    for name in ("fold_0", "fold_1"):
        assert [one.answer for one in sft[name]] == [one.before["sft_only"] for one in found[name]]
        assert {one.model for one in sft[name]} == {"sft_only"}


def test_merged_models_answer_as_the_adapters_that_they_hold(folds, rows, tmp_path):
    found = run(folds, rows, Options(merge=str(tmp_path / "merged")), tmp_path)
    assert {path.name for path in (tmp_path / "merged").iterdir()} == {"fold_0", "fold_1", "soup"}
    for whose, answered in found.items():
        path = tmp_path / "merged" / whose
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= {one.name for one in path.iterdir()}
        again = run(folds, rows, Options(model_path=str(path)), tmp_path)
        assert [one.answer for one in again[whose]] == [one.answer for one in answered]
        assert {one.model for one in again[whose]} == {whose}
    with pytest.raises(DataError, match=r"expected a folder, a \.gguf file, or a tag of the hub; found none"):
        run(folds, rows, Options(model_path=str(tmp_path / "nowhere")), tmp_path)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT's own
def test_adapters_that_are_written_are_loaded_by_peft_and_begin_another_training(folds, rows, tmp_path):
    run(folds, rows, Options(adapters=str(tmp_path / "adapters")), tmp_path)
    assert {path.name for path in (tmp_path / "adapters").iterdir()} == {"fold_0", "fold_1"}
    (_, second), place = read_models(folds, ""), tmp_path / "adapters" / "fold_1"
    loaded = get_peft_model_state_dict(PeftModel.from_pretrained(load_base(TINY, None), place))
    assert set(loaded) == set(second.tensors)
    assert all(torch.equal(value, second.tensors[name]) for name, value in loaded.items())
    context = train_small(tmp_path / "more", f"training.stages=[grpo] grpo.steps=1 model.adapter={place}")
    assert context.descriptions["best"]["reference"] == "sft_only"
    with pytest.raises(
        DataError, match=r"no adapter_config\.json and no adapter_model\.safetensors there: expected a f"
    ):
        train_small(tmp_path / "none", f"training.stages=[grpo] model.adapter={tmp_path}")


def test_the_soup_answers_new_questions_as_it_is_evaluated(folds, rows, tmp_path):
    found = run(folds, rows, Options(), tmp_path)
    (block,) = rows.read(8)
    answered = Soup(read_models(folds, ""), rows, "cpu", 1).predict(block).answered
    assert answered == [found["soup"]]
    assert answered != [found["fold_0"]]


def test_questions_without_right_answers_are_refused(folds, rows, tmp_path):
    rows.path.write_text('{"id": "a", "prompt": "1 + 1 + 1 ?"}\n')
    with pytest.raises(DataError, match="1 questions have no right answer, such as 'a'"):
        run(folds, rows, Options(), tmp_path)


def test_the_run_s_judge_is_asked_unless_nobody_wants_it(folds, rows, tmp_path):
    with serve_judge() as server:

        def read(name, mode):
            models = read_models(folds[:1], name)
            models[0].description["config"]["judge"] |= {"url": server.place(mode), "model": "m", "patience_s": 0.0}
            return models

        found = dict(evaluate(lambda name: read(name, "good"), rows, Options(), tmp_path, "cpu", 1))
        assert {one.answer.judge_score for one in found["fold_0"]} == {0.25}
        with pytest.raises(JudgeError, match="of 8 answers could not be judged: expected a share of at most"):
            dict(evaluate(lambda name: read(name, "refused"), rows, Options(), tmp_path / "other", "cpu", 1))
        silent = dict(evaluate(lambda name: read(name, "refused"), rows, Options(no_judge=True), tmp_path, "cpu", 1))
    assert {one.answer.judge_score for one in silent["fold_0"]} == {None}
