"""How results are told in words: the rows that were scored, what a search is worth, the submission. Texts only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ensemble.kinds import Kind
from ray_jobs.config.folds import say_shared
from ray_jobs.runs.json_files.summary import Combinations, NewRowsError, ScoredModel, Summary
from ray_jobs.runs.json_files.sweep_outcome import SweepOutcome


def describe_part(part: str, rows: Sequence[ScoredModel]) -> str:
    """The rows on which models are compared as they are: those of the blend set, or test rows."""
    which = "rows of the blend set" if part == "blend" else "test rows whose truth is known"
    return f"{rows[0].num_rows:,} {which}, which no model has seen"


def describe_scored_rows(combinations: Combinations) -> str:
    """Which rows score the combinations."""
    what = "rows of the blend set" if combinations.scored_on == "blend" else "out-of-fold rows"
    return f"{combinations.num_rows:,} {what}"


# What the intervals of a comparison do not hold.
ROWS_ONLY = (
    "The intervals are over rows only: that the same recipe with another seed trains other models is not in them "
    "(ensemble.seeds)."
)


def explain_intervals(combinations: Combinations) -> str:
    """What the intervals of a comparison hold."""
    if combinations.num_seeds == 1:
        return ROWS_ONLY
    spreads = [
        f"{row.name} {row.seed_std:.4f}" for row in combinations.rows if row.kind == "member" and row.seed_errors
    ]
    return (
        f"Each member is {combinations.num_seeds} trainings with other seeds, and the intervals hold what another seed "
        f"changes. Standard deviation of the error over the seeds: {', '.join(spreads)}."
    )


def explain_cross_fitting(combinations: Combinations) -> str:
    """How fitted weights are scored, and what leak remains."""
    # The plan knows the order of folds, but not the time of a row.
    drawn = "drawn at random" + ", not in the order of time" * (combinations.fold_kind == "time")
    if combinations.scored_on == "blend":
        return (
            f"Fitted weights are scored by cross-fitting: each fifth of the blend set, {drawn}, by weights from the "
            "others. No model has seen any of these rows."
        )
    if combinations.weights_from == "other_parts":
        return (
            f"Fitted weights are scored by cross-fitting: each fifth of the rows, {drawn}, by weights from the others. "
            "No model was trained on any of these rows."
        )
    if combinations.weights_from == "earlier_folds":
        return (
            "Fitted weights are scored in the order of time: each fold by weights from the earlier folds, and the "
            "first, before which there is none, by equal weights."
        )
    return (
        "Fitted weights are scored by cross-fitting: each fold by weights from the other folds. Those folds' "
        "predictions come from models that were trained on its rows, so a small leak of the second level remains."
    )


def explain_outcome(outcome: SweepOutcome) -> list[str]:
    """What to believe of a search, in sentences."""
    lines = [
        f"Chosen inside each fold and scored on it: {outcome.error_label} {outcome.nested_error:.4f}. That is "
        f"what choosing is worth; the winner's own {outcome.winner_error:.4f} is the best of "
        f"{outcome.num_combinations} and flattered by luck. The default has {outcome.default_error:.4f}."
    ]
    bound = f"{outcome.improvement:+.4f}, at least {outcome.improvement_low:+.4f} (95 %, for all together)"
    if outcome.replaces:
        lines.append(
            f"The winner is better than the default by {bound}: {outcome.winner}. --apply writes its submission."
        )
    elif outcome.winner == outcome.default:
        lines.append("The default is the winner.")
    else:
        lines.append(
            f"The winner, {outcome.winner}, is not shown to be better than the default: {bound}. The default stays."
        )
    return lines


def describe_counts(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """The leaks of a run as its provenance has them (see `count_leaks`), a sentence each."""
    lines = []
    for kind, numbers in counts.items():
        if numbers["validation_rows"]:
            lines.append(
                f"{numbers['validation_rows']:,} validation rows {say_shared(kind)} rows that train their fold"
            )
        if numbers.get("blend_rows"):
            lines.append(f"{numbers['blend_rows']:,} rows of the blend set {say_shared(kind)} training rows")
        if numbers["test_rows"]:
            lines.append(f"{numbers['test_rows']:,} test rows {say_shared(kind)} training rows")
    return lines


def explain_choice(summary: Summary) -> str:
    """What was chosen on the rows that score it."""
    if any(fold.ended_by == "patience" for fold in summary.folds):
        return (
            "best was chosen on the rows it is scored on, and so was where the folds ended (training.patience): the "
            "scores of best and of final are a little optimistic"
        )
    return "best was chosen on the rows it is scored on, so its score is a little optimistic; final was not chosen"


def explain_ends(summary: Summary) -> list[str]:
    """Which folds have ended before all their epochs, and why, a sentence for each reason."""
    reasons = {
        "budget": "no further epoch fitted into run.time_budget",
        "patience": "no epoch was better for so long as training.patience allows",
    }
    lines: list[str] = []
    several = len({fold.member for fold in summary.folds}) > 1
    for reason, words in reasons.items():
        ended = [fold for fold in summary.folds if fold.ended_by == reason]
        if not ended:
            continue
        names = ", ".join(
            f"{fold.member + ' ' if several else ''}{fold.fold}"
            + (f" ({fold.epochs} epoch{'s' * (fold.epochs > 1)})" if fold.epochs else "")
            for fold in ended
        )
        lines.append(f"ended before all epochs, since {words}: fold{'s' * (len(ended) > 1)} {names}")
    return lines


def explain_workers(summary: Summary) -> str:
    """Why a run cannot be repeated bit for bit."""
    several = len({fold.member for fold in summary.folds}) > 1
    folds = [
        f"{fold.member + ' ' if several else ''}fold {fold.fold}: {', then '.join(map(str, fold.workers))}"
        for fold in summary.folds
        if fold.workers
    ]
    return f"not bit-repeatable: the number of workers was not always the same ({'; '.join(folds)})"


def describe_submission(kind: Kind, submission: Mapping[str, Any]) -> str:
    """What was combined and how, in one line, from a submission's facts."""
    what, number = "member" if "fold_method" in submission else "model", submission["n_models"]
    text = f"{submission['method']} of {number} {what}s' {submission['checkpoints']} checkpoints"
    if number == 1:
        text = f"the {submission['checkpoints']} checkpoint of one {what}"
    text = f"{text} {kind.describe_scale(submission)}".rstrip() + _describe_interval(submission.get("interval"))
    return text + describe_folds(submission)


def describe_folds(submission: Mapping[str, Any]) -> str:
    """Whose models were combined, where it was not all folds'."""
    if "folds" not in submission:
        return ""
    return f", of {name_folds(submission['folds'], submission['num_folds'])} (the others are not finished)"


def name_folds(folds: Sequence[int], num_folds: int) -> str:
    """`fold 1 of 5`; `folds 0, 2 of 5`."""
    return f"fold{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))} of {num_folds}"


def describe_part_of_folds(folds: Sequence[int], num_folds: int) -> dict[str, Any]:
    """What a submission's facts say of its folds: nothing where all are combined."""
    return {} if len(folds) == num_folds else {"folds": list(folds), "num_folds": num_folds}


def _describe_interval(facts: Mapping[str, Any] | None) -> str:
    if facts is None:
        return ""
    guaranteed = facts["guaranteed"]
    what = "nothing is guaranteed" if guaranteed is None else f"coverage at least {guaranteed:.3f}"
    if (facts.get("exchangeability") or {}).get("rejected"):
        what += ", as the rows are not exchangeable: " + _explain_rejection(facts["exchangeability"])
    return f", with {facts['level']:.0%} {facts.get('what', 'intervals')} ({facts['kind']}: {what})"


def _explain_rejection(found: Mapping[str, Any]) -> str:
    """What the test of exchangeability with the lower p value has found."""
    words = {"order": "errors follow the order of the table", "new_rows": "test rows are predicted otherwise"}
    name = min((name for name in words if found.get(name) is not None), key=found.__getitem__)
    return f"{words[name]} (p = {found[name]:.3f})"


def describe_new_rows(found: NewRowsError) -> str:
    """The error on new rows with its interval, in a sentence."""
    units = f"{found.num_units:,} {'groups of ' * found.are_groups}rows"
    interval = f"{found.low:.4f} to {found.high:.4f}"
    return f"{found.label} on new rows: {found.value:.4f}, 95 % interval {interval} ({units})"


def explain_new_rows(found: NewRowsError) -> str:
    """What the interval of the error on new rows stands on."""
    text = f"Of {found.what}, on rows that are drawn as these were"
    text += ": of new groups. " if found.are_groups else ". "
    text += "The interval is a bootstrap's"
    if found.widening > 1.01:
        text += f", widened by {found.widening:.2f}, as measured: models and rows are of the same data"
    if found.is_chosen:
        text += "; the checkpoints were chosen on these rows, which it does not hold"
    if found.is_ordered:
        text += "; it takes rows as independent, which those of one time may not be"
    return text + "."
