"""Every message of an error that a user may meet, read from the code: what a program can check of its words."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# `refuse` and `_FailedError` make errors, too.
ERRORS = re.compile(
    r"(Run|ConfigChanged|RunBusy|RunFolder|Cluster|IncompleteRun|Storage|ClusterLost|Data|Prediction|Value)Error$"
)
BANNED = (
    r"please|seats?|honest|insists?|settled?|said|mend|anew|whose|stupid|invalid|illegal|oops",
    # The same fault has the same words everywhere: `no such file`, `no such folder`, `no column`, `missing or damaged`.
    r"no such (table|picture)|damaged or missing|lacks|missing columns?|has no column|no readable",
    # `name=value: expected one of a, b`.
    r"expected one of \[|not one of|must be|should be|has to be|not allowed|not on offer|is not for",
)


def collect_messages() -> Iterator[tuple[str, str]]:
    """Place and words of each message; of a value that is put in `{}`."""
    for package in ("ray_jobs", "trainers", "ensemble"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for call in ast.walk(ast.parse(path.read_text())):
                if not isinstance(call, ast.Call) or not call.args:
                    continue
                name = ast.unparse(call.func).rpartition(".")[2]
                text = _read(call.args[-1] if name == "refuse" else call.args[0])
                if (ERRORS.search(name) or name == "refuse") and len(text.split()) > 1:
                    is_value = name == "refuse"
                    yield f"{path.relative_to(ROOT)}:{call.lineno}", f"{{}}={{}}: expected {text}" if is_value else text


def _read(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _read(node.left) + _read(node.right)
    return "{}"


MESSAGES = list(collect_messages())


def test_there_are_many_messages():
    assert len(MESSAGES) > 200


@pytest.mark.parametrize("banned", BANNED)
def test_no_message_has_a_word_that_is_not_used_in_messages(banned):
    assert [(place, text) for place, text in MESSAGES if re.search(rf"\b({banned})\b", text, re.IGNORECASE)] == []


def test_no_message_ends_with_a_full_stop():
    assert [(place, text) for place, text in MESSAGES if text.rstrip().endswith((".", ";", ":"))] == []


def test_what_was_expected_stands_behind_what_was_found():
    """A value, or the field with the one value that it is about, or the flag; then `: expected` or `; expected`."""
    found = re.compile(r"\{\}|^[a-z_.]+=\S+|^--[a-z-]+|^no ")
    wrong = [(place, text) for place, text in MESSAGES if "expected" in text and not found.search(text)]
    assert wrong == []
