"""Users' tables of questions: what is read of them, what is refused, what is told."""

from __future__ import annotations

import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ray_jobs.config.overrides import override
from ray_jobs.config.recipes import RECIPES
from trainers.interface import DataError
from trainers.llm_finetuning.inventory import take_inventory
from trainers.llm_finetuning.questions.made_questions import make_questions
from trainers.llm_finetuning.scoring.rewards import score_completion


def write(folder, name, rows):
    (folder / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def ask(prompt, answer="1", **more):
    return {"prompt": prompt, "gold_answer": answer} | more


def take(root, *words):
    config = override(RECIPES["llm_finetuning"](), [f"data.root={root}", "training.stages=[grpo]", *words])
    return take_inventory(config.trainer, root)


def test_the_user_s_columns_are_mapped(tmp_path):
    rows = [
        {
            "question": "Which?",
            "context": "A table.",
            "choices": ["x", "y"],
            "answer": "B",
            "kind": "mc",
            "why": "as y",
        },
        {"question": "True?", "context": "", "choices": None, "answer": True, "kind": "tf", "why": "it is"},
    ]
    pq.write_table(
        pa.Table.from_pylist([row | {"answer": str(row["answer"]).lower()} for row in rows]), tmp_path / "t.parquet"
    )
    words = """data.prompt_column=question data.context_column=context data.choices_column=choices data.answer_column=answer
        data.type_column=kind data.rationale_column=why data.group_column=context""".split()
    _, inventory = take(tmp_path / "t.parquet", *words)
    first, second = inventory.tables.questions["train"]
    assert first.prompt == "A table.\nWhich?\nA. x\nB. y"
    assert (first.gold.kind, second.gold.kind, second.prompt) == ("choice", "boolean", "True?")
    assert first.response == "<think>as y</think><answer>b</answer>"
    assert inventory.strata.tolist() == ["mc", "tf"]
    assert inventory.groups.tolist() == ["A table.", "1"]


def test_a_right_answer_may_stand_in_the_response(tmp_path):
    write(tmp_path, "train.jsonl", [{"prompt": "?", "response": "<think>a</think><answer>7</answer>"}])
    assert take(tmp_path)[1].target.tolist() == ["7"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"question": "?"}], r"no column 'prompt' \(data.prompt_column"),
        ([ask(" ")], "no prompt"),
        ([ask("?", "")], "no right answer"),
        ([ask("?", id="=cmd")], "formula"),
        ([ask("?", id="a"), ask("!", id="a")], "id 'a' stands there more than once"),
        ([["?"]], "line 1: is list: expected an object"),
        ([], "no rows"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(tmp_path, rows, message):
    write(tmp_path, "train.jsonl", rows)
    with pytest.raises(DataError, match=message):
        take(tmp_path)


def test_a_letter_that_is_no_choice_is_refused_or_dropped(tmp_path):
    write(tmp_path, "train.jsonl", [ask("?", "C", choices=["x", "y"]), ask("!", "B", choices=["x", "y"])])
    with pytest.raises(DataError, match="expected a letter from A to B"):
        take(tmp_path, "data.choices_column=choices")
    _, inventory = take(tmp_path, "data.choices_column=choices", "data.on_bad_row=drop")
    assert [row["id"] for row in inventory.bad_rows] == ["0"]


def test_test_questions_have_right_answers_all_or_none(tmp_path):
    write(tmp_path, "train.jsonl", [ask("?")])
    write(tmp_path, "test.jsonl", [ask("a?"), {"prompt": "b?"}])
    with pytest.raises(DataError, match="1 of 2 questions have no right answer"):
        take(tmp_path)
    write(tmp_path, "test.jsonl", [{"prompt": "b?"}])
    assert "not scored" in take(tmp_path)[1].notes[0]


def test_questions_that_are_nearly_the_same_share_a_key(tmp_path):
    near = [f"Tom has {n} apples and buys {n + 1} more, how many apples has he now?" for n in (3, 5)]
    write(tmp_path, "train.jsonl", [ask(near[0]), ask("What is the capital of France, please tell me?"), ask(near[1])])
    write(tmp_path, "test.jsonl", [ask(f"  {near[0].upper()}")])
    keys = take(tmp_path)[1].row_keys
    first, other, second = keys["near_question"].train.tolist()
    assert first == second != other
    assert keys["question"].train[0] == keys["question"].test[0]
    assert len(set(keys["question"].train.tolist())) == 3
    assert set(take(tmp_path, "data.near_duplicates=none")[1].row_keys) == {"question"}


def test_without_responses_there_is_nothing_for_the_supervised_stage(tmp_path):
    write(tmp_path, "train.jsonl", [ask("?")])
    with pytest.raises(DataError, match=r"no question has a response .* or set training.stages=\[grpo\]"):
        take(tmp_path, "training.stages=[sft]")


def test_the_noisy_teacher_is_right_where_it_is_careful_and_else_by_luck():
    rows = make_questions(0, 400)
    careful = [row for row in rows if "=" in row["response"]]
    assert len(careful) / len(rows) == pytest.approx(0.25, abs=0.06)

    def share(part):
        from trainers.llm_finetuning.scoring.answers import Gold

        return sum(
            score_completion(row["response"], Gold(row["gold_answer"], "number")).accuracy for row in part
        ) / len(part)

    assert share(careful) == 1
    assert share([row for row in rows if row not in careful]) == pytest.approx(0.25, abs=0.08)


def test_a_model_that_is_not_there_is_refused(tmp_path):
    write(tmp_path, "train.jsonl", [ask("?")])
    with pytest.raises(DataError, match=r"model.path=/nowhere: expected a folder, a \.gguf file"):
        take(tmp_path, "model.path=/nowhere")
    with pytest.raises(DataError, match=r"no config\.json in it"):
        take(tmp_path, f"model.path={tmp_path}")


def test_the_config_is_resolved_once(tmp_path):
    write(tmp_path, "train.jsonl", [ask("?")])
    config, _ = take(tmp_path)
    assert len(config.model.sha256) == 64
    assert replace(config) == config
