"""Texts that are nearly the same are found, and others are not."""

import numpy as np

from trainers.interface import NO_KEY
from trainers.reading.near_texts import find_near_texts

WORDS = [f"word{number}" for number in range(500)]


def make_texts(count, length=60):
    rng = np.random.default_rng(3)
    return [" ".join(rng.choice(WORDS, length)) for _ in range(count)]


def jaccard(one, other):
    sets = [{tuple(words[at : at + 5]) for at in range(len(words) - 4)} for words in (one.split(), other.split())]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_a_text_with_a_changed_word_is_near_and_its_likeness_is_the_jaccard_index_of_word_5_grams():
    texts = make_texts(40)
    changed = texts[7].split()
    changed[30] = "another"
    texts.append(" ".join(changed).upper())
    near = find_near_texts(texts)
    (pair,) = near.pairs
    assert (pair.one, pair.other) == (7, 40)
    assert pair.likeness == jaccard(texts[7], " ".join(changed))
    assert near.groups == [[7, 40]]


def test_groups_go_over_texts_that_are_near_both_and_texts_of_no_words_are_in_none():
    texts = make_texts(3)
    words = texts[0].split()
    chain = [words[at : at + 50] for at in (0, 7, 14)]  # 46 runs each, 39 of which the next one has, too
    texts += [" ".join(one) for one in chain] + ["", " ... ", "two words", "Two, words!"]
    assert jaccard(texts[3], texts[5]) < 0.6 < jaccard(texts[3], texts[4])
    near = find_near_texts(texts, least=0.6)
    assert near.groups == [[0, 3, 4, 5], [8, 9]]
    keys = near.to_row_keys(texts, num_train=5)
    assert (keys.train == [1, NO_KEY, NO_KEY, 1, 1]).all()
    assert (keys.test == [1, NO_KEY, NO_KEY, 2, 2]).all()
    assert keys.shown[2] == "two words"
    assert len(keys.shown[1]) == 41


def test_questions_that_differ_in_numbers_are_the_same_where_numbers_are_masked():
    texts = [f"A loan of {n},000.50 dollars at {n} percent: what is owed after {n} years of it?" for n in (3, 14, 159)]
    assert find_near_texts(texts).groups == []
    assert find_near_texts(texts, masks_numbers=True).groups == [[0, 1, 2]]


def test_all_pairs_that_share_enough_are_found_among_many():
    texts = make_texts(400, 40)
    rng = np.random.default_rng(1)
    for number in range(100):
        words = texts[number].split()
        for at in rng.choice(40, 1 + number % 2, replace=False):
            words[at] = "changed"
        texts.append(" ".join(words))
    true = {number for number in range(100) if jaccard(texts[number], texts[400 + number]) >= 0.5}
    found = {pair.one for pair in find_near_texts(texts).pairs if pair.other == pair.one + 400}
    assert found == true
    assert len(true) > 70
