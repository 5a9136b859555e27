"""A fold learns in both stages, is killed anywhere, also within a generation, and ends with the same bits."""

from __future__ import annotations

import logging
import shutil

import numpy as np
import pytest
import torch
from support.judge_server import serve_judge
from support.small_finetuning import train_small

from trainers.interface import DataError, Split
from trainers.llm_finetuning.questions.table import Question
from trainers.llm_finetuning.scoring.judge import JudgeError
from trainers.llm_finetuning.train import _divide

# Of 7 steps of GRPO, which are the steps 4 to 10 of the fold, 1 to 4 learn from the first generation.
REUSED = "grpo.steps_per_generation=2 grpo.iterations=2"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return train_small(tmp_path_factory.mktemp("whole") / "fold", REUSED)


def test_both_stages_are_recorded_with_what_they_are_about(whole):
    assert whole.stages == ["sft", "grpo", ""]
    assert [step for step, _ in whole.steps] == list(range(1, 11))
    sft, grpo = dict(whole.steps)[1], dict(whole.steps)[5]
    assert set(sft) == {"train/loss_step", "learning_rate", "train/grad_norm"}
    wanted = "reward reward_std format_reward accuracy_reward kl_divergence entropy frac_reward_zero_std clip_ratio"
    assert {*wanted.split(), "completions/mean_length", "completions/clipped_ratio", "learning_rate"} <= set(grpo)
    for _, metrics in whole.steps[3:]:
        expected = 0.3 * metrics["format_reward"] + 0.7 * metrics["accuracy_reward"]
        assert metrics["reward"] == pytest.approx(expected)
        assert metrics["completions/mean_length"] <= 8
    assert [dict(whole.steps)[step]["kl_divergence"] > 0 for step in (4, 5)] == [False, True]
    assert any(metrics["reward_std"] > 0 for _, metrics in whole.steps[3:])


def test_the_models_before_answer_the_held_out_questions_too(whole):
    (row,) = [row for _, row in whole.rows if "sft_grpo/answer_accuracy" in row]
    assert {f"{name}/format_accuracy" for name in ("base_model", "sft_only", "sft_grpo")} <= set(row)
    answered = whole.predictions["best", "validation"]
    assert [one.row_id for one in answered] == [one.row_id for one in whole.predictions["final", "validation"]]
    assert all(list(one.before) == ["base_model", "sft_only"] and len(one.samples) == 1 for one in answered)
    assert whole.descriptions["best"]["reference"] == "sft_only"


def test_a_checkpoint_holds_an_adapter_its_shape_and_the_tokenizer(whole):
    names = {path.name for path in whole.find_files("best").iterdir()}
    assert {"adapter_config.json", "tokenizer.json", "chat_template.jinja"} <= names
    tensors = whole.load_checkpoint("best")
    assert len(tensors) == 2 * 2 * 7  # A and B of 7 layers of 2 blocks
    assert all("lora_" in name for name in tensors)


@pytest.mark.parametrize("step", [1, 3, 4, 5, 7, 8, 10])
def test_killed_in_either_stage_and_within_a_generation_it_ends_with_the_same_bits(whole, tmp_path, step):
    killed = train_small(tmp_path / "fold", REUSED, stop_at=step)
    torch.manual_seed(77)  # what the random generators come to between a kill and a start must not matter
    resumed = train_small(tmp_path / "fold", REUSED, resume_from=killed.stopped_with)
    assert resumed.steps == whole.steps[step:]
    for name in ("best", "final", "sft"):
        assert (resumed.root / name).read_bytes() == (whole.root / name).read_bytes()
    assert resumed.predictions == whole.predictions


def test_in_micro_batches_the_steps_are_the_same_but_for_rounding(tmp_path):
    """Later on rounding grows: a step without a signal has gradients of rounding alone, which Adam takes for real."""
    parts = train_small(tmp_path / "fold", f"{REUSED} training.micro_batch_size=5 lora.dropout=0")
    at_once = train_small(tmp_path / "other", f"{REUSED} lora.dropout=0")
    for (_, one), (_, other) in zip(parts.steps[:4], at_once.steps[:4], strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    assert parts.steps[4][1] == pytest.approx(at_once.steps[4][1], rel=0.02, abs=5e-3)


def test_further_questions_teach_but_for_those_that_are_held_out():
    rows = [Question(f"q{n}", f"{n} + 1 ?", "sum", "<answer>1</answer>", "1") for n in range(6)]
    further = [Question(f"r{n}", f" {n}  + 1 ?", "sum", "<answer>1</answer>") for n in range(8)]
    ids = np.array([one.id for one in rows])
    divided = _divide({"train": rows, "test": [], "sft": further}, Split(0, ids[:3], ids[3:5], ids[5:]))
    assert [one.id for one in divided["sft"]] == ["q0", "q1", "q2", "r0", "r1", "r2", "r6", "r7"]


def test_steps_without_a_signal_are_told_once_and_counted(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        train_small(tmp_path / "fold", "sft.steps=1 grpo.steps=2 scoring.accuracy_weight=0 generation.max_new_tokens=1")
    told = [record.getMessage() for record in caplog.records if "signal" in record.getMessage()]
    assert len(told) == 2
    assert "step 1 of GRPO has no signal" in told[0]
    assert told[1] == "2 of 2 steps of GRPO had no signal"


def test_a_judge_gives_the_accuracy_and_when_it_fails_the_fold_ends(tmp_path):
    few = "sft.steps=1 grpo.steps=1 judge.model=m judge.patience_s=0 judge.timeout_s=20"
    with serve_judge() as server:
        context = train_small(tmp_path / "good", f"{few} judge.url={server.place('good')}")
        assert dict(context.steps)[2]["accuracy_reward"] == 0.25  # of every answer without the word
        answers = context.predictions["best", "validation"]
        assert {one.answer.judge_score for one in answers} == {0.25}
        with pytest.raises(JudgeError, match=r"could not be judged; the first: .* replies 401"):
            train_small(tmp_path / "bad", f"{few} judge.model=other judge.url={server.place('refused')}")
        off = train_small(tmp_path / "off", f"{few} judge.url={server.place('refused')} judge.off=true")
    assert all(one.answer.judge_score is None for one in off.predictions["best", "validation"])


def test_an_adapter_goes_on_where_a_supervised_stage_has_ended(whole, tmp_path):
    folder = tmp_path / "adapter"
    shutil.copytree(whole.find_files("sft"), folder)
    (folder / "adapter_model.safetensors").write_bytes((whole.root / "sft").read_bytes())
    context = train_small(tmp_path / "fold", f"training.stages=[grpo] grpo.steps=1 model.adapter={folder}")
    assert context.stages == ["grpo", ""]
    assert dict(context.steps)[1]["kl_divergence"] == 0
    expected = {one.row_id: one.before["sft_only"] for one in whole.predictions["best", "validation"]}
    assert {one.row_id: one.before["sft_only"] for one in context.predictions["best", "validation"]} == expected
    with pytest.raises(DataError, match="does not fit"):
        train_small(tmp_path / "other", f"training.stages=[grpo] lora.r=4 model.adapter={folder}")
