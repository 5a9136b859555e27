"""Members that were trained several times with other seeds: what they predict together, and what each seed alone gives.

A member is the mean of its trainings. The s-th training of all members together is one repetition of the whole run; how
far the errors of these repetitions are apart says what another seed changes (`comparison.rank`).

Shape suffixes: C members and combinations, S seeds, N rows; an array of rows may have one more axis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ensemble.combination import Combination
from ensemble.run import Combinable


@dataclass(frozen=True)
class Retrained:
    """Members, then combinations.

    Attributes:
        names: of the members.
        cross_fitted: what each combination predicts of each row, (N,) each.
        predictions_CN: the members and these.
        by_seed_CSN: what each training of them alone gives; None: they were trained once.
    """

    names: tuple[str, ...]
    cross_fitted: list[np.ndarray]
    predictions_CN: np.ndarray
    by_seed_CSN: np.ndarray | None = None


def predict_retrained(
    columns: Combinable, trainings: Mapping[str, Sequence[str]], hows: Sequence[Combination], average: Combination
) -> Retrained:
    """What members and combinations predict, all trainings together and each seed alone.

    Args:
        columns: of all trainings, and of models that were made elsewhere.
        trainings: names of each member's trainings; of models that are not among them there is one.
        hows: combinations of all of them.
        average: how the trainings of a member become one.
    """
    groups = _group(columns.names, trainings)
    cross_fitted = columns.predict_cross_fitted(hows)
    num_seeds = min((len(names) for names in groups.values() if len(names) > 1), default=1)
    if num_seeds == 1:
        return Retrained(columns.names, cross_fitted, np.stack([*columns.oof_MN, *cross_fitted]))
    members = [columns.take(names).predict_cross_fitted([average])[0] for names in groups.values()]
    by_seed = []
    for seed in range(num_seeds):
        names = [own[seed] if len(own) > 1 else own[0] for own in groups.values()]
        alone = columns.take(names)
        own_hows = [_with_weights_of(how, columns.names, names) for how in hows]
        by_seed.append(np.stack([*alone.oof_MN, *alone.predict_cross_fitted(own_hows)]))
    return Retrained(tuple(groups), cross_fitted, np.stack([*members, *cross_fitted]), np.stack(by_seed).swapaxes(0, 1))


def _group(names: Sequence[str], trainings: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """By member, in the order of the names, those of its trainings that are combined."""
    member_of = {training: member for member, own in trainings.items() for training in own}
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(member_of.get(name, name), []).append(name)
    return groups


def _with_weights_of(how: Combination, names: Sequence[str], kept: Sequence[str]) -> Combination:
    """The combination of some of the models, by the weights that were given for these."""
    if how.weights is None:
        return how
    weights = tuple(how.weights[names.index(name)] for name in kept)
    return replace(how, weights=weights if any(weights) else (1.0,) * len(kept))
