"""The words by which values, names and columns are refused."""

from __future__ import annotations

import math

import pytest

from trainers.values import check_choice, check_number, describe_missing, refuse, show_value, suggest


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "none"), (True, "true"), (3, "3"), (0.004, "0.004"), (1e-06, "1e-06"), (4294967296, "4294967296"),
        (1.0, "1"), ("a/b", "a/b"), ("", "''"), ("two words", "'two words'"), ((0, 2), "[0,2]"), (["a", "b c"], "[a,'b c']"),
    ],
)  # fmt: skip
def test_a_value_is_shown_as_it_is_typed(value, shown):
    assert show_value(value) == shown


@pytest.mark.parametrize(
    ("value", "bounds", "expected"),
    [
        (1, {"least": 2, "most": 1000}, "2 to 1000"),
        (0, {"least": 1}, "at least 1"),
        (0.0, {"above": 0}, "above 0"),
        (1, {"least": 0, "below": 1, "unit": "a share"}, "a share, at least 0 and below 1"),
        (0.5, {"least": 1, "below": 1e6, "unit": "seconds", "instead": "none"}, "seconds, at least 1 and below 1000000, or none"),
        (math.nan, {"above": 0, "instead": "auto"}, "a finite number, above 0, or auto"),
        (math.inf, {"above": 0}, "a finite number, above 0"),
        (None, {"least": 1}, "a finite number, at least 1"),
    ],
)  # fmt: skip
def test_a_number_out_of_its_range_is_refused_with_the_range(value, bounds, expected):
    with pytest.raises(ValueError, match="expected") as refused:
        check_number("a.b", value, **bounds)
    assert str(refused.value) == f"a.b={show_value(value)}: expected {expected}"


def test_a_number_in_its_range_and_what_may_stand_instead_are_taken():
    check_number("a.b", 2, least=2, most=2)
    check_number("a.b", None, least=1, instead="none")
    check_number("a.b", "auto", above=0, instead="auto")
    check_choice("a.b", 3, (1, 3))


def test_a_choice_is_refused_with_all_choices():
    with pytest.raises(ValueError, match=r"^a\.b=2: expected one of 1, 3$"):
        check_choice("a.b", 2, (1, 3))
    assert str(refuse("a.b", "x y", "z")) == "a.b='x y': expected z"


def test_nearest_names_follow_a_name_that_is_not_known():
    assert suggest("oen", ["one", "two"]) == "; nearest: one"
    assert suggest("oen", ["xyz"]) == ""


def test_a_missing_column_is_named_with_its_field_the_nearest_and_all_that_there_are():
    described = describe_missing([("dat", "data.date_column"), ("qqq", ""), ("ttle", "")], ["id", "date", "title"])
    assert described == (
        "no column 'dat' (data.date_column; nearest: date, id), 'qqq', 'ttle' (nearest: title, date); the table has "
        "'id', 'date', 'title'"
    )
    assert len(describe_missing([("a", "")], [f"column_{n}" for n in range(1000)])) < 1100
