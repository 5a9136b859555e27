"""Prediction files of answers, and `oof.parquet`.

| column      | meaning |
|---|---|
| id, member, repeat, fold, checkpoint, in_sample | as in `ensemble.predictions` |
| target      | the right answer; null where it is not known |
| prediction  | the answer in the model's likeliest text, in the form in which equal answers are equal |
| type, group | of the question; rows of one group stay on one side of a fold |
| question, text | what was asked, and all that was said |
| format, correct, judge_score | 1, 1/2 or 0; 1 or 0 or null; a judge's or null |
| model       | what the model is called in an ablation |
| samples     | answers drawn from it |
| before      | the likeliest answers of the models that it came from |
| letters     | of a multiple choice the probability of each letter |
| type_code, answer_code | checksums of type and right answer, by which rows are scored |

Shape suffixes: N rows.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ensemble.predictions import PredictionError, build_row_columns, read_table

_ANSWER = [
    ("text", pa.string()), ("answer", pa.string()), ("format", pa.float64()), ("correct", pa.float64()),
    ("judge_score", pa.float64()),
]  # fmt: skip
SAMPLES = pa.list_(pa.struct(_ANSWER))
BEFORE = pa.list_(pa.struct([("model", pa.string()), *_ANSWER]))
LETTERS = pa.list_(pa.struct([("letter", pa.string()), ("probability", pa.float64())]))
_KEPT = ("type_code", "answer_code", "correct", "format")


def build_answer_table(
    rows: Sequence[Any], *, fold: int, checkpoint: str, in_sample: bool = False, member: str = "main", repeat: int = 0
) -> pa.Table:
    """A table of one model's answers.

    Args:
        rows: with the attributes of `trainers.interface.AnsweredQuestion`.

    Raises:
        PredictionError: a score is not from 0 to 1.
    """
    for one in rows:
        scores = [one.answer.format_score, *(() if one.answer.judge_score is None else (one.answer.judge_score,))]
        if not all(0 <= score <= 1 for score in scores):
            raise PredictionError(
                f"fold {fold} ({checkpoint}): the answer to id {one.row_id!r} has scores {scores}: expected 0 to 1"
            )
    ids = [one.row_id for one in rows]
    columns = {
        **build_row_columns(ids, fold=fold, checkpoint=checkpoint, in_sample=in_sample, member=member, repeat=repeat),
        "target": pa.array([one.gold_answer for one in rows], pa.string()),
        "prediction": pa.array([one.answer.answer for one in rows], pa.string()),
        "type": pa.array([one.type for one in rows], pa.string()),
        "group": pa.array([one.group for one in rows], pa.string()),
        "question": pa.array([one.question for one in rows], pa.string()),
        "text": pa.array([one.answer.text for one in rows], pa.string()),
        "judge_score": pa.array([one.answer.judge_score for one in rows], pa.float64()),
        "model": pa.array([one.model for one in rows], pa.string()),
        "samples": pa.array([[_list_scores(answer) for answer in one.samples] for one in rows], SAMPLES),
        "before": pa.array(
            [[{"model": name} | _list_scores(answer) for name, answer in one.before.items()] for one in rows], BEFORE
        ),
        "letters": pa.array(
            [[{"letter": name, "probability": value} for name, value in one.letters.items()] for one in rows], LETTERS
        ),
        **join_kept(*_score_rows(rows)),
    }
    return pa.table(columns)


def _list_scores(answer: Any) -> dict[str, Any]:
    return {
        "text": answer.text,
        "answer": answer.answer,
        "format": float(answer.format_score),
        "correct": None if answer.is_correct is None else float(answer.is_correct),
        "judge_score": answer.judge_score,
    }


def _score_rows(rows: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    target_N = np.array([[_sum_up(one.type), _sum_up(one.gold_answer or "")] for one in rows], np.int64)
    correct_N = [np.nan if one.answer.is_correct is None else float(one.answer.is_correct) for one in rows]
    return target_N.reshape(-1, 2), np.array(
        [[right, one.answer.format_score] for right, one in zip(correct_N, rows, strict=True)], np.float64
    ).reshape(-1, 2)


def _sum_up(text: str) -> int:
    return zlib.crc32(" ".join(text.casefold().split()).encode())


def read_answer_table(path: Path) -> pa.Table:
    """A prediction file.

    Raises:
        PredictionError: it is missing or damaged, or holds no answers.
    """
    table = read_table(path)
    split_kept(table)
    return table


def join_kept(target_N: np.ndarray, prediction_N: np.ndarray) -> dict[str, Any]:
    """Codes of type and right answer, (N, 2), and whether the answer is right and of the whole form, (N, 2), as
    columns."""
    correct_N = np.asarray(prediction_N[:, 0], np.float64)
    return {
        "type_code": pa.array(np.asarray(target_N[:, 0], np.int64)),
        "answer_code": pa.array(np.asarray(target_N[:, 1], np.int64)),
        "correct": pa.array(correct_N, mask=np.isnan(correct_N)),
        "format": pa.array(np.asarray(prediction_N[:, 1], np.float64)),
    }


def split_kept(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """What `join_kept` has joined; right is NaN where the right answer is not known.

    Raises:
        PredictionError: the columns are not there.
    """
    if missing := [name for name in _KEPT if name not in table.column_names]:
        raise PredictionError(f"predictions without {', '.join(missing)}: these are no answers")
    target_N = np.stack([table[name].to_numpy().astype(np.int64) for name in _KEPT[:2]], axis=1)
    correct_N = table["correct"].fill_null(np.nan).to_numpy().astype(np.float64)
    return target_N, np.stack([correct_N, table["format"].to_numpy().astype(np.float64)], axis=1)


def list_models(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """The models of an ablation in the order in which they were trained: those before, then the fold's own."""
    names = dict.fromkeys(one["model"] for row in lines for one in row["before"])
    return list(dict.fromkeys((*names, *(row["model"] for row in lines))))


def find_answer(line: Mapping[str, Any], model: str) -> Mapping[str, Any] | None:
    """What a model of an ablation answers to a row; None: it was not asked."""
    if line["model"] == model:
        return {
            "answer": line["prediction"],
            **{name: line[name] for name in ("text", "format", "correct", "judge_score")},
        }
    return next((one for one in line["before"] if one["model"] == model), None)
