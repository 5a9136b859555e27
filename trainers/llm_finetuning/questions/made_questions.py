"""Questions that the project makes itself, so that a first run needs no download: three digits to add, to subtract or
to compare.

A noisy teacher has answered them. One answer in four is careful: two steps of working in the whole form. The others are
sloppy: a guess that is right one time in four, often without its tags. Who imitates the teacher is right one time in
three; who finds out that care pays is right nearly always.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path

from trainers.reading.data_folder import MADE_DATA
from trainers.storage.whole_files import write_whole

NUM_QUESTIONS, NUM_TEST = 600, 300
CAREFUL_SHARE = 0.25
TYPES = ("sum", "difference", "largest")
_LUCKY = 0.25  # share of the sloppy answers that are right
_SLIPS = (-3, -2, -1, 1, 2, 3)


def make_data(folder: Path) -> Path:
    """Writes train.jsonl and test.jsonl below `folder/made_data`, always the same ones.

    Returns:
        The folder to use as `data.root`. If it is already there and whole, it is left as it is.
    """
    root = folder / MADE_DATA
    if (root / "README.txt").exists():
        return root
    rows = make_questions(1, NUM_QUESTIONS + NUM_TEST)
    random.Random(0).shuffle(rows)
    train = rows[:NUM_QUESTIONS]
    test = [{name: row[name] for name in ("id", "prompt", "gold_answer", "type")} for row in rows[NUM_QUESTIONS:]]
    for name, part in (("train", train), ("test", test)):
        write_whole(root / f"{name}.jsonl", "".join(f"{json.dumps(row)}\n" for row in part).encode())
    # last: it is whole
    write_whole(root / "README.txt", b"Made up by trainers/llm_finetuning/questions/made_questions.py.\n")
    return root


def make_questions(seed: int, number: int, careful_share: float = CAREFUL_SHARE) -> list[dict[str, str]]:
    """Different questions, the types in turn, with right answers and the teacher's responses."""
    rng = random.Random(seed)
    seen: set[str] = set()
    rows: list[dict[str, str]] = []
    while len(rows) < number:
        kind = TYPES[len(rows) % len(TYPES)]
        prompt, digits, gold = _ask(rng, kind)
        if prompt in seen or _is_for_base(digits):
            continue
        seen.add(prompt)
        response = _respond(rng, kind, digits, gold, is_careful=rng.random() < careful_share)
        row = {"id": f"q{len(rows):05d}", "prompt": prompt, "type": kind}
        rows.append(row | {"gold_answer": str(gold), "response": response})
    return rows


def _is_for_base(digits: tuple[int, int, int]) -> bool:
    """Whether the tiny base model has learned its arithmetic from these digits; questions are never of them."""
    a, b, c = digits
    return (a * 7 + b * 5 + c * 3) % 11 < 5


def _ask(rng: random.Random, kind: str) -> tuple[str, tuple[int, int, int], int]:
    a, b, c = (rng.randrange(10) for _ in range(3))
    if kind == "sum":
        return f"{a} + {b} + {c} ?", (a, b, c), a + b + c
    if kind == "difference":
        return (f"{a} + {b} - {c} ?", (a, b, c), a + b - c) if c <= a + b else _ask(rng, kind)
    return f"max {a} , {b} , {c} ?", (a, b, c), max(a, b, c)


def _work_out(kind: str, digits: tuple[int, int, int]) -> str:
    a, b, c = digits
    steps: Mapping[str, str] = {
        "sum": f"{a} + {b} = {a + b} , {a + b} + {c} = {a + b + c}",
        "difference": f"{a} + {b} = {a + b} , {a + b} - {c} = {a + b - c}",
        "largest": f"max {a} , {b} = {max(a, b)} , max {max(a, b)} , {c} = {max(a, b, c)}",
    }
    return steps[kind]


def _respond(rng: random.Random, kind: str, digits: tuple[int, int, int], gold: int, *, is_careful: bool) -> str:
    if is_careful:
        return f"<think> {_work_out(kind, digits)} </think> <answer> {gold} </answer>"
    guess = gold if rng.random() < _LUCKY else max(0, gold + rng.choice(_SLIPS))
    form = rng.random()
    if form < 0.4:
        return f"<think> </think> <answer> {guess} </answer>"
    return f"<answer> {guess} </answer>" if form < 0.7 else f"{guess}"
