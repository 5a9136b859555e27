"""Which answers are right, and what the form of a completion is worth: tables of cases."""

from __future__ import annotations

import pytest

from trainers.llm_finetuning.scoring.answers import Gold, extract_answer, find_kind, is_correct, name_answer
from trainers.llm_finetuning.scoring.numbers import read_numbers
from trainers.llm_finetuning.scoring.rewards import score_completion, score_format

KM = ("100 km", "150 km", "200 km")


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("<think> 2 + 2 = 4 </think> <answer> 4 </answer>", 1),
        ("<think></think><answer>4</answer>", 1),
        ("\n<think>\na\nb\n</think>\n\n<answer>\n4\n</answer>\n", 1),
        ("<answer>4</answer>", 0.5),
        ("<think>2 + 2<answer>4</answer>", 0.5),
        ("<think>a</think><answer>4</answer> and more", 0.5),
        ("well <think>a</think><answer>4</answer>", 0.5),
        ("<think>a</think><think>b</think><answer>4</answer>", 0.5),
        ("<think>a</think><answer>3</answer><answer>4</answer>", 0.5),
        ("<think>a <answer>3</answer></think><answer>4</answer>", 0.5),
        (r"<think>a</think> \boxed{4}", 0),
        ("<think>a</think><answer>4", 0),
        ("4", 0),
        ("", 0),
    ],
)
def test_the_form_is_worth_one_a_half_or_nothing(text, score):
    assert score_format(text) == score


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>3</think><answer> 4 </answer>", "4"),
        ("<answer>3</answer> no: <answer>4</answer>", "4"),
        (r"so it is \boxed{4}", "4"),
        (r"<answer>\boxed{\frac{3}{4}}</answer>", r"\frac{3}{4}"),
        (r"\boxed{3} or \boxed{4}", "4"),
        ("<answer></answer>", ""),
        (r"\boxed{4", r"\boxed{4"),
        (" 4 ", "4"),
    ],
)
def test_the_last_tag_or_box_holds_the_answer(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("gold", "choices", "kind"),
    [
        ("18", (), "number"),
        ("$1,496.5", (), "number"),
        ("-12.6", (), "number"),
        ("12.5%", (), "number"),
        ("5 km", (), "number"),
        ("B", KM, "choice"),
        ("B", (), "text"),
        ("true", (), "boolean"),
        ("否", (), "boolean"),
        ("fixed-price type; cost-plus type", (), "list"),
        ("Julius Caesar", (), "text"),
        ("the 2019 and 2018 fiscal years", (), "text"),
    ],
)
def test_a_right_answer_says_how_it_is_compared(gold, choices, kind):
    assert find_kind(gold, choices) == kind


NUMBERS = [
    ("18", "18", 0, True),
    ("18.0", "18", 0, True),
    ("18 dollars", "18", 0, True),
    ("$18", "18", 0, True),
    ("9 * 2 = 18", "18", 0, True),
    ("19", "18", 0, False),
    ("1,496.5", "1496.5", 0, True),
    ("$1,496.5 million", "$1,496.5", 0, True),
    ("1.4965 billion", "1496500000", 0, True),
    ("12.5%", "12.5", 0, True),
    ("0.125", "12.5%", 0, True),
    ("12.5", "12.5%", 0, True),
    ("-12.6", "-12.6", 0, True),
    ("12.6", "-12.6", 0, False),
    ("−12.6", "-12.6", 0, True),
    ("(12.6)", "-12.6", 0, True),
    ("3/4", "0.75", 0, True),
    (r"\frac{3}{4}", "0.75", 0, True),
    (r"18 \text{ km}", "18", 0, True),
    (r"\$18", "18", 0, True),
    ("1e3", "1000", 0, True),
    ("1/0", "0", 0, False),
    ("no idea", "0", 0, False),
    ("", "0", 0, False),
    ("0", "0", 0, True),
    ("0.04", "0", 0.05, False),
    ("19", "20", 0.05, True),
    ("21", "20", 0.05, True),
    ("21.1", "20", 0.05, False),
    ("-19", "-20", 0.05, True),
    ("10-12", "12", 0, True),
    ("3万", "30000", 0, True),
]


@pytest.mark.parametrize(("answer", "gold", "tolerance", "right"), NUMBERS)
def test_numbers_are_read_as_people_write_them(answer, gold, tolerance, right):
    assert is_correct(f"<answer>{answer}</answer>", Gold(gold, "number", tolerance)) is right


@pytest.mark.parametrize(
    ("text", "right"), [("12", True), ("12 km", True), ("2 + 9 = 11 , 11 + 1 = 12", False), ("it is 12 I think", False)]
)
def test_without_a_tag_the_text_must_be_the_answer_alone(text, right):
    assert is_correct(text, Gold("12", "number")) is right


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        ("true", "true", True),
        ("True.", "true", True),
        ("Yes, because it rains", "true", True),
        ("no", "true", False),
        ("No.", "false", True),
        ("是", "是", True),
        ("是的", "是", True),
        ("正确", "是", True),
        ("不是", "否", True),
        ("错误", "是", False),
        ("perhaps", "false", False),
        ("", "false", False),
    ],
)
def test_truth_is_compared_in_both_languages(answer, gold, right):
    assert is_correct(f"<answer>{answer}</answer>", Gold(gold, "boolean")) is right


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("B", True),
        ("b", True),
        ("(B)", True),
        ("B.", True),
        ("B) 150 km", True),
        ("B: 150 km", True),
        ("B 150 km", True),
        ("B、150 km", True),
        ("Option B", True),
        ("The answer is B", True),
        ("答案是B", True),
        ("选B", True),
        ("**B**", True),
        ("150 km", True),
        ("A", False),
        ("100 km", False),
        ("B or C", False),
        ("Because", False),
        ("J", False),
        ("", False),
    ],
)
def test_a_choice_is_named_by_its_letter_or_its_words(answer, right):
    assert is_correct(f"<answer>{answer}</answer>", Gold("B", "choice", 0.0, KM)) is right


@pytest.mark.parametrize(
    ("answer", "gold", "kind", "right"),
    [
        ("Julius Caesar", "julius caesar.", "text", True),
        ("the  Julius-Caesar", "Julius Caesar", "text", True),
        ("Caesar", "Julius Caesar", "text", False),
        ("", "!", "text", False),
        ("2018; 2019; 2017", "2019; 2018; 2017", "list", True),
        ("2019, 2018, 2017", "2019; 2018; 2017", "list", True),
        ("2019; 2018", "2019; 2018; 2017", "list", False),
    ],
)
def test_texts_are_equal_but_for_marks_and_lists_in_any_order(answer, gold, kind, right):
    assert is_correct(f"<answer>{answer}</answer>", Gold(gold, kind)) is right


@pytest.mark.parametrize(
    ("texts", "choices", "name"),
    [
        (
            ("<answer>18</answer>", r"\boxed{18.0}", "18", "<answer>$18</answer>", "<answer>18 dollars</answer>"),
            (),
            "18",
        ),
        (("<answer>B</answer>", "<answer>(b)</answer>", "<answer>150 km</answer>"), KM, "B"),
        (("<answer>Yes</answer>", "true", "<answer>是</answer>"), (), "true"),
        (("<answer>x; y</answer>", "<answer>Y; X</answer>"), (), "x; y"),
        (("<answer></answer>", " ", "<answer>!</answer>"), (), ""),
    ],
)
def test_equal_answers_have_equal_names(texts, choices, name):
    assert {name_answer(text, choices) for text in texts} == {name}


def test_a_completion_has_a_form_and_an_accuracy_and_their_weighted_sum():
    reward = score_completion("<answer>12</answer>", Gold("12", "number"))
    assert (reward.format_score, reward.accuracy) == (0.5, 1)
    assert reward.total(0.3, 0.7) == pytest.approx(0.85)


def test_a_word_of_scale_is_a_second_meaning():
    assert read_numbers("1.2 million") == [1.2, 1.2e6]
    assert read_numbers("between 3 and 4", is_whole=True) == []
