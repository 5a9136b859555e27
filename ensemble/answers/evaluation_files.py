"""Files of an evaluation as users of fine-tuning know them: `eval_<model>.json`, `eval_details_<model>.jsonl` and
`ablation_summary_<rows>.json`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ensemble.answers.files import find_answer
from ensemble.answers.scores import describe_ablation
from ensemble.answers.submission import tabulate_ablation

FOLDER = "evaluation"


def write_evaluation(
    lines: Sequence[Mapping[str, Any]], rows: str, write: Callable[[str, bytes], None], folder: str = FOLDER
) -> dict[str, Any]:
    """Writes the files of an evaluation of every model of an ablation.

    Args:
        lines: rows of a prediction file whose right answers are known.
        rows: what they are: out_of_fold, test.
        write: puts a file of this content at a path.
        folder: of the files.

    Returns:
        The ablation.
    """
    prefix = f"{folder}/" if folder else ""
    ablation = describe_ablation(lines)
    for name, scores in ablation["models"].items():
        write(f"{prefix}eval_{name}.json", _to_json({"model": name, "rows": rows, **scores}))
        details = [_describe(line, name) for line in lines]
        text = "".join(f"{json.dumps(one, ensure_ascii=False)}\n" for one in details if one)
        write(f"{prefix}eval_details_{name}.jsonl", text.encode())
    summary = {"rows": rows, **ablation, "ablation_comparison": tabulate_ablation(ablation)}
    write(f"{prefix}ablation_summary_{rows}.json", _to_json(summary))
    return ablation


def _to_json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _describe(line: Mapping[str, Any], name: str) -> dict[str, Any]:
    answer = find_answer(line, name)
    if answer is None:
        return {}
    return {
        "id": line["id"],
        "fold": line["fold"],
        "type": line["type"],
        "prompt": line["question"],
        "gold_answer": line["target"],
        "answer": answer["answer"],
        "text": answer["text"],
        "format": answer["format"],
        "answer_correct": None if answer["correct"] is None else bool(answer["correct"]),
        "judge_score": answer["judge_score"],
    }
