r"""Finds the answer in a text and says whether it is the right one. No torch, no network.

The answer is what stands in the last `<answer>…</answer>`, else in the last `\boxed{…}`, else the whole text. Inside
tags and boxes the last number counts; a text without either must be the answer and nothing else.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from trainers.llm_finetuning.scoring.numbers import matches_number, read_numbers

AnswerKind = Literal["choice", "boolean", "number", "list", "text"]

_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_TRUE = {"true", "yes", "是", "是的", "对", "正确", "correct"}
_FALSE = {"false", "no", "否", "不是", "错", "错误", "不对", "不正确", "incorrect", "wrong"}
_LETTER = re.compile(
    r"(?:the\s+)?(?:(?:correct\s+)?(?:option|answer|choice)|选项?|答案)?\s*(?:is|是|为|:)?\s*"
    r"\(?([a-j])(?:$|[).:,、.\s]+(?P<rest>.*)$)",
    re.IGNORECASE | re.DOTALL,
)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


@dataclass(frozen=True)
class Gold:
    """The right answer, and how answers are compared with it.

    Attributes:
        answer: as the data has it.
        kind: what it is.
        tolerance: of numbers, relative; 0: none.
        choices: of a multiple choice, from A on.
    """

    answer: str
    kind: AnswerKind
    tolerance: float = 0.0
    choices: tuple[str, ...] = ()


def extract_answer(text: str) -> str:
    """The answer that a text gives, stripped; empty where its tag or box is empty."""
    found, _ = _find(text)
    return found


def _find(text: str) -> tuple[str, bool]:
    """The answer, and whether a tag or a box marks it."""
    tags = _TAG.findall(text)
    inner = tags[-1] if tags else text
    box = _last_box(inner)
    if box is not None:
        return box.strip(), True
    return inner.strip(), bool(tags)


def _last_box(text: str) -> str | None:
    r"""The content of the last whole `\boxed{…}`; brackets inside it are balanced."""
    start = text.rfind(r"\boxed{")
    if start < 0:
        return None
    depth, begin = 0, start + len(r"\boxed{")
    for place in range(begin - 1, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[begin:place]
    return None


def find_kind(gold: str, choices: Sequence[str]) -> AnswerKind:
    """What a right answer is: a letter where there are choices, else a truth value, a number, a list, or text."""
    plain = normalise_text(gold)
    if choices and len(plain) == 1 and plain.isalpha():
        return "choice"
    if plain in _TRUE | _FALSE:
        return "boolean"
    if ";" in gold and sum(bool(part.strip()) for part in gold.split(";")) > 1:
        return "list"
    return "number" if is_number(gold) else "text"


def is_number(text: str) -> bool:
    """Whether a text is one number with at most a short unit: "12 km", not "12 of the largest firms of 2019"."""
    return bool(read_numbers(text, is_whole=True)) and len(re.findall(r"[^\W\d_]+", text)) <= 1


def normalise_text(text: str) -> str:
    """Lower case without punctuation, articles and double blanks, in Unicode's NFKC form."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    plain = "".join(" " if unicodedata.category(one)[0] in "PSZC" else one for one in plain)
    return " ".join(_ARTICLES.sub(" ", plain).split())


def read_truth(text: str) -> bool | None:
    """Yes or no, in English or Chinese; None: neither. Of a sentence its first word counts if a mark follows it."""
    first = re.split(r"[,.;:!?,。;:!?\n]", text.strip(), maxsplit=1)[0]
    for plain in (normalise_text(text), normalise_text(first)):
        if plain in _TRUE or plain in _FALSE:
            return plain in _TRUE
    return None


def read_letter(text: str, choices: Sequence[str]) -> str | None:
    """The letter of the choice that a text names, by its letter or by its words; None: none of these."""
    plain = unicodedata.normalize("NFKC", text).strip().strip("*`$ ")
    match = _LETTER.fullmatch(plain)
    number = None if match is None else ord(match[1].upper()) - ord("A")
    if match is not None and number is not None and number < (len(choices) or 10):
        rest = match["rest"]
        is_marked = plain[match.end(1) : match.end(1) + 1] in ("", ")", ".", ":", ",", "、")
        if is_marked or not rest or (choices and normalise_text(rest) == normalise_text(choices[number])):
            return match[1].upper()
    same = [place for place, choice in enumerate(choices) if normalise_text(choice) == normalise_text(text)]
    return chr(ord("A") + same[0]) if len(same) == 1 and normalise_text(text) else None


def is_correct(text: str, gold: Gold) -> bool:
    """Whether a text gives the right answer."""
    answer, is_marked = _find(text)
    if gold.kind == "choice":
        return read_letter(answer, gold.choices) == gold.answer.strip().upper()
    if gold.kind == "boolean":
        return read_truth(answer) is not None and read_truth(answer) == read_truth(gold.answer)
    if gold.kind == "number":
        return (is_marked or is_number(answer)) and matches_number(answer, gold.answer, gold.tolerance)
    if gold.kind == "list":
        return _split(answer) == _split(gold.answer)
    return bool(normalise_text(answer)) and normalise_text(answer) == normalise_text(gold.answer)


def _split(text: str) -> list[str]:
    parts = re.split(r"[;\n]" if ";" in text or "\n" in text else r",\s+", text)
    return sorted(filter(None, map(normalise_text, parts)))


def name_answer(text: str, choices: Sequence[str] = ()) -> str:
    """The answer of a text in the form in which equal answers are equal: what models vote for; empty: no answer."""
    answer, is_marked = _find(text)
    if choices:
        return read_letter(answer, choices) or normalise_text(answer)
    truth = read_truth(answer)
    if truth is not None:
        return "true" if truth else "false"
    if ";" in answer:
        return "; ".join(_split(answer))
    values = read_numbers(answer) if is_marked or is_number(answer) else []
    if values and len(re.findall(r"[^\W\d_]+", answer)) <= 3:
        return f"{values[0]:.12g}"
    return normalise_text(answer)
