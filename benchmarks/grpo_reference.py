"""GRPO by TRL with the questions, the supervised adapter and the settings of fold 0 of a finished run of
`llm_finetuning_small`, beside the fold's own record. Needs trl (1.16), accelerate and datasets in the environment.

    python benchmarks/grpo_reference.py ~/ray_results/llm_finetuning_small
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from trainers.llm_finetuning.questions.base_model import TINY
from trainers.llm_finetuning.questions.table import Question, read_prepared
from trainers.llm_finetuning.scoring.answers import is_correct
from trainers.llm_finetuning.scoring.rewards import score_format

STEPS, TEN = 50, 10


def read_questions(run: Path) -> tuple[list[Question], list[Question]]:
    """Those that train fold 0, and those that it holds out."""
    fold_of = {row["id"]: row["fold"] for row in pq.read_table(run / "fold_plan.parquet").to_pylist()}
    questions = read_prepared(run / "inputs" / "train.parquet")
    return [one for one in questions if fold_of[one.id] != 0], [one for one in questions if fold_of[one.id] == 0]


def load_policy(run: Path) -> Any:
    """The base with the fold's supervised adapter."""
    checkpoint = run / "folds" / "0" / "checkpoints" / "sft"
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(next(checkpoint.rglob("adapter_config.json")), folder)
        shutil.copy(next(checkpoint.glob("*.safetensors")), Path(folder, "adapter_model.safetensors"))
        base = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)
        return PeftModel.from_pretrained(base, folder, is_trainable=True)


def train_by_trl(model: Any, questions: list[Question], folder: str) -> list[float]:
    """The mean reward of each step."""
    gold_of = {one.prompt: one.gold for one in questions}
    rows = [{"prompt": f"<bos>{one.prompt}", "question": one.prompt} for one in questions]

    def reward_format(completions: list[str], **_: Any) -> list[float]:
        return [score_format(text) for text in completions]

    def reward_accuracy(completions: list[str], question: list[str], **_: Any) -> list[float]:
        return [float(is_correct(text, gold_of[one])) for text, one in zip(completions, question, strict=True)]

    settings = GRPOConfig(
        output_dir=folder, max_steps=STEPS, per_device_train_batch_size=64, num_generations=4, temperature=0.7,
        max_completion_length=24, learning_rate=1e-3, lr_scheduler_type="constant", beta=0.05, loss_type="dapo",
        reward_weights=[0.3, 0.7], scale_rewards="group", max_grad_norm=1.0, logging_steps=1, report_to="none",
        bf16=False, use_cpu=True, gradient_checkpointing=False, save_strategy="no", disable_tqdm=True, top_k=0,
        top_p=1.0, seed=0,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=model, reward_funcs=[reward_format, reward_accuracy], args=settings,
        train_dataset=Dataset.from_list(rows), processing_class=AutoTokenizer.from_pretrained(TINY),
    )  # fmt: skip
    trainer.train()
    return [row["reward"] for row in trainer.state.log_history if "reward" in row]


@torch.no_grad()
def score(model: Any, questions: list[Question]) -> float:
    """The share of likeliest answers that are right."""
    tokenizer = AutoTokenizer.from_pretrained(TINY, padding_side="left")
    asked = tokenizer([f"<bos>{one.prompt}" for one in questions], return_tensors="pt", padding=True)
    inputs = {name: asked[name] for name in ("input_ids", "attention_mask")}
    found = model.eval().generate(**inputs, max_new_tokens=24, do_sample=False, pad_token_id=0, eos_token_id=2)
    texts = tokenizer.batch_decode(found[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return float(np.mean([is_correct(text, one.gold) for text, one in zip(texts, questions, strict=True)]))


def main() -> None:
    torch.set_num_threads(1)
    run, began = Path(sys.argv[1]).expanduser(), time.process_time()
    train, held_out = read_questions(run)
    model = load_policy(run)
    with tempfile.TemporaryDirectory() as folder:
        rewards = train_by_trl(model, train, folder)
    print("TRL:", show(rewards), f"held-out {score(model, held_out):.3f}, {time.process_time() - began:.0f} CPU s")
    lines = [json.loads(line) for line in (run / "metrics" / "fold_0.jsonl").read_text().splitlines()]
    own = [line["fold_0/grpo/reward"] for line in lines if "fold_0/grpo/reward" in line]
    right = next(line[name] for line in lines for name in line if name == "fold_0/sft_grpo/answer_accuracy")
    print("own:", show(own), f"held-out {right:.3f}")


def show(rewards: list[float]) -> str:
    """The mean reward of each ten steps."""
    return "reward " + " ".join(f"{np.mean(rewards[at : at + TEN]):.3f}" for at in range(0, STEPS, TEN))


if __name__ == "__main__":
    main()
