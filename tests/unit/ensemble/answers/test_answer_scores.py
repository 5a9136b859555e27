"""Accuracies of answers, their intervals, and what each model of an ablation adds."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import binomtest

from ensemble.answers.evaluation_files import evaluate_tables, write_evaluation
from ensemble.answers.figures import draw_ablation, draw_examples
from ensemble.answers.files import build_answer_table
from ensemble.answers.scores import describe_ablation, find_interval, find_standard_error, score_guessing
from trainers.predictions import Answer, AnsweredQuestion


def answer(right):
    return Answer("<think></think><answer>7</answer>", "7" if right else "8", 1.0, right)


def build(rights, *, befores=(), groups=None, fold=0, types=("sum", "difference")):
    rows = [
        AnsweredQuestion(
            f"q{n}", f"{n} + 1 ?", types[n % len(types)], "7", "sft_grpo", answer(right),
            before={name: answer(own[n]) for name, own in befores},
            group=None if groups is None else groups[n],
        )
        for n, right in enumerate(rights)
    ]  # fmt: skip
    return build_answer_table(rows, fold=fold, checkpoint="best")


@pytest.mark.parametrize(("hits", "number"), [(0, 7), (3, 7), (95, 100), (100, 100)])
def test_the_interval_of_independent_rows_is_wilson_s(hits, number):
    low, high = find_interval(np.repeat([1.0, 0.0], [hits, number - hits]))
    expected = binomtest(hits, number).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_where_rows_share_a_group_the_interval_counts_groups():
    """Each row ten times: the interval is about that of the rows alone, and not a third of it."""
    alone = np.random.default_rng(0).random(200) < 0.6
    rows, groups = np.repeat(alone, 10).astype(float), [f"g{n}" for n in range(200) for _ in range(10)]
    width = np.diff(find_interval(rows, groups))[0]
    assert width == pytest.approx(np.diff(find_interval(alone.astype(float)))[0], rel=0.03)
    assert np.diff(find_interval(rows))[0] < 0.4 * width
    values = np.random.default_rng(1).normal(size=50)
    assert find_standard_error(values, np.arange(50)) == pytest.approx(values.std(ddof=1) / np.sqrt(50))


def test_an_ablation_has_each_model_its_types_and_paired_differences():
    base, sft, last = [False] * 8, [True, False] * 4, [True, True, True, False] * 2
    found = describe_ablation(build(last, befores=[("base_model", base), ("sft_only", sft)]).to_pylist())
    assert list(found["models"]) == ["base_model", "sft_only", "sft_grpo"]
    assert [one["answer_accuracy"] for one in found["models"].values()] == [0, 0.5, 0.75]
    assert found["models"]["sft_grpo"]["by_type"]["sum"]["answer_accuracy"] == 1
    pairs = [(one["model"], one["against"], one["difference"]) for one in found["differences"]]
    assert pairs == [("sft_only", "base_model", 0.5), ("sft_grpo", "sft_only", 0.25), ("sft_grpo", "base_model", 0.75)]
    d = np.array(last, float) - np.array(sft, float)
    half = 1.959964 * d.std(ddof=1) / np.sqrt(8)
    assert found["differences"][1]["high"] == pytest.approx(0.25 + half)


def test_guessing_says_the_answer_that_other_folds_have_most_often():
    lines = [
        {**line, "target": target, "fold": fold}
        for line, target, fold in zip(
            build([True] * 6, types=("sum",)).to_pylist(), "aababb", [0, 0, 0, 1, 1, 1], strict=True
        )
    ]
    # Fold 0 guesses b, as fold 1 has it twice, and is right once; fold 1 guesses a, and is right once.
    assert describe_ablation(lines)["guess"]["answer_accuracy"] == pytest.approx(2 / 6)
    target_N = np.array([[0, 1], [0, 1], [0, 2], [1, 3]])
    assert score_guessing(target_N)["accuracy"] == 0.75


def test_its_files_have_the_names_that_users_know(tmp_path):
    written = {}
    lines = build([True, False], befores=[("base_model", [False, False])]).to_pylist()
    write_evaluation(lines, "out_of_fold", written.__setitem__)
    names = [f"evaluation/{name}" for name in ("eval_base_model.json", "eval_sft_grpo.json")]
    assert {*names, "evaluation/ablation_summary_out_of_fold.json"} <= set(written)
    details = written["evaluation/eval_details_sft_grpo.jsonl"].decode().splitlines()
    assert [json.loads(line)["answer_correct"] for line in details] == [True, False]
    scores = json.loads(written["evaluation/eval_sft_grpo.json"])
    assert {"format_accuracy", "answer_accuracy", "format_correct", "answer_correct", "total"} <= set(scores)
    summary = json.loads(written["evaluation/ablation_summary_out_of_fold.json"])
    assert [row[0] for row in summary["ablation_comparison"]["data"]] == ["base_model", "sft_grpo"]


def test_models_of_several_folds_are_evaluated_together_with_their_votes_and_soup():
    rights = [[True, True, False, False], [True, False, True, False], [True, True, True, False]]
    tables = {f"fold_{n}": build(own, fold=n) for n, own in enumerate(rights)}
    written = {}
    columns, lines, metrics = evaluate_tables(tables | {"soup": build([True] * 4)}, "test", written.__setitem__)
    assert len(columns) == len(lines[0]) == 5
    found = {line[0]: line[1:4] for line in lines}
    assert (found["sft_grpo"][0], found["sft_grpo"][2].split()[0]) == ("12", "0.583")
    assert found["majority_vote"][2].split()[0] == "0.750"
    assert found["soup"][2].split()[0] == "1.000"
    assert metrics["answer_accuracy"] == pytest.approx(7 / 12)
    assert (metrics["answer_correct"], metrics["total"]) == (7, 12)
    assert (metrics["majority_vote/answer_accuracy"], metrics["soup/answer_accuracy"]) == (0.75, 1)
    befores = [("base_model", [False] * 4), ("sft_only", [True, False, False, False])]
    _, _, metrics = evaluate_tables({"fold_0": build([True] * 4, befores=befores)}, "test", written.__setitem__)
    assert [metrics[f"{name}/answer_accuracy"] for name in ("base_model", "sft_only", "sft_grpo")] == [0, 0.25, 1]
    assert [row[0] for row in metrics["ablation_comparison"]["data"]] == ["base_model", "sft_only", "sft_grpo"]


def test_pictures_are_drawn_of_any_number_of_models_and_types():
    lines = build([True, False], befores=[("base_model", [False, False])]).to_pylist()
    assert len(draw_ablation(describe_ablation(lines)).axes) == 1
    draw_ablation(describe_ablation(build([True], types=("$x_1$",)).to_pylist()))
    figure = draw_examples(lines)
    assert any("<answer>7</answer>" in text.get_text() for text in figure.axes[0].texts)
