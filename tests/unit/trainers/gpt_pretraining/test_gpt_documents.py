"""Documents as people keep them are read, or what is wrong with them is said; tokens come back as text."""

import gzip
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from trainers.gpt_pretraining.config import Config, DataConfig, TokenizerConfig
from trainers.gpt_pretraining.inputs.windows import Documents, Stream
from trainers.gpt_pretraining.inventory import take_inventory
from trainers.gpt_pretraining.rows.corpus import hold_corpus, open_corpus, open_tokenizer
from trainers.gpt_pretraining.rows.documents import find_files, read_documents
from trainers.gpt_pretraining.rows.tales import make_corpus, make_tales
from trainers.gpt_pretraining.rows.tokenizers import Bytes, build_tokenizer, read_tokenizer
from trainers.interface import DataError

TEXTS = ["Once upon a time.\nThe end.", "Zweite Geschichte: Öl für 3 €.", "third 🙂 tale"]


def read(root, **fields):
    data = DataConfig(root=str(root), **fields)
    return list(read_documents(find_files(data)[0], data))


def write(path: Path, content) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_every_way_to_keep_documents_gives_the_same_documents(tmp_path):
    marked = "\n<|endoftext|>\n".join(TEXTS)
    lines = "".join(json.dumps({"text": text, "id": n}) + "\n" for n, text in enumerate(TEXTS))
    frame = pd.DataFrame({"text": TEXTS, "id": range(3)})
    write(tmp_path / "a/train.txt", marked)
    write(tmp_path / "b/train.txt.gz", gzip.compress(marked.replace("\n", "\r\n").encode()))
    write(tmp_path / "c/stories_train.jsonl", lines)
    write(tmp_path / "d/train.csv", frame.to_csv(index=False))
    frame.to_parquet(tmp_path / "train.parquet")
    for n, text in enumerate(TEXTS):
        write(tmp_path / f"e/train/{n}.txt", text)
    write(tmp_path / "f/train.txt", "\n\n".join(TEXTS))
    for place in ("a", "b", "c", "d", "e", "train.parquet"):
        found = read(tmp_path / place)
        assert [one.text for one in found] == TEXTS, place
        assert not any(one.problem for one in found)
    assert [one.text for one in read(tmp_path / "f", separator="blank_line")] == TEXTS
    assert len(read(tmp_path / "a", separator="line")) == 6
    assert [one.name for one in read(tmp_path / "c")] == ["0", "1", "2"]
    assert [one.name for one in read(tmp_path / "a")] == ["train_000001", "train_000002", "train_000003"]


def test_what_is_wrong_with_a_document_is_said(tmp_path):
    write(tmp_path / "train/latin.txt", "Öl".encode("latin-1"))
    write(tmp_path / "train/empty.txt", b"")
    write(tmp_path / "train/blank.txt", b" \n ")
    write(tmp_path / "train/zeros.txt", b"a\0b")
    write(tmp_path / "train/good.txt", b"A good one.")
    write(tmp_path / "train/large.txt", b"x" * 2000)
    write(tmp_path / "train/lines.jsonl", b'{"text": "fine"}\n{"text": 3}\n[1]\n{"text"\n')
    problems = {one.name: one.problem for one in read(tmp_path, max_megabytes=0.001)}
    said = ["not utf-8", "empty", "no text", "zero bytes", "at most data.max_megabytes"]
    for name, words in zip(["latin", "empty", "blank", "zeros", "large"], said, strict=True):
        assert words in problems[name]
    assert [bool(problems[f"lines_00000{n}"]) for n in (1, 2, 3, 4)] == [False, True, True, True]
    config = Config(data=DataConfig(root=str(tmp_path)), tokenizer=TokenizerConfig(kind="bytes"))
    with pytest.raises(DataError, match=r"7 of 10 documents of .* cannot be used: 'blank': it has no text"):
        take_inventory(config, tmp_path)
    config = Config(data=DataConfig(root=str(tmp_path), on_bad_row="drop"), tokenizer=TokenizerConfig(kind="bytes"))
    _, inventory = take_inventory(config, tmp_path)
    assert inventory.ids.tolist() == ["good", "large", "lines_000001"]
    assert len(inventory.bad_rows) == 7
    with pytest.raises(DataError, match=r"no column .words. .data.text_column; nearest: "):
        read(write(tmp_path / "t.csv", "word,id\na,1\n"), text_column="words")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="holds no documents"):
        find_files(DataConfig(root=str(tmp_path / "none")))


@pytest.mark.parametrize("kind", ["bpe", "bytes", "characters"])
def test_texts_come_back_from_their_tokens_and_from_what_was_saved(kind):
    tokenizer = build_tokenizer(TokenizerConfig(kind=kind, vocabulary=300), TEXTS)
    again = read_tokenizer(tokenizer.to_json())
    for text in [*TEXTS, "<|endoftext|> is text"[: 0 if kind == "characters" else None]]:
        (tokens,) = tokenizer.encode([text])
        assert tokenizer.decode(tokens) == text
        assert tokenizer.end not in tokens
        np.testing.assert_array_equal(again.encode([text])[0], tokens)
    assert (again.vocabulary, again.end) == (tokenizer.vocabulary, tokenizer.end)
    if kind == "characters":
        assert tokenizer.decode(tokenizer.encode(["a–b"])[0]) == "a\ufffd\ufffd"


def test_gpt2_s_files_and_a_tokenizer_json_are_read(tmp_path):
    learned = build_tokenizer(TokenizerConfig(vocabulary=300), TEXTS * 9)
    learned.inner.model.save(str(tmp_path))
    vocabulary = json.loads((tmp_path / "vocab.json").read_text())
    (tmp_path / "vocab.json").rename(tmp_path / "encoder.json")
    (tmp_path / "merges.txt").rename(tmp_path / "vocab.bpe")
    tokenizer = build_tokenizer(TokenizerConfig(kind="file", path=str(tmp_path)), [])
    assert (tokenizer.vocabulary, tokenizer.end) == (len(vocabulary), vocabulary["<|endoftext|>"])
    np.testing.assert_array_equal(tokenizer.encode(TEXTS)[2], learned.encode(TEXTS)[2])
    learned.inner.save(str(tmp_path / "tokenizer.json"))
    np.testing.assert_array_equal(
        build_tokenizer(TokenizerConfig(kind="file", path=str(tmp_path)), []).encode(TEXTS)[1],
        learned.encode(TEXTS)[1],
    )
    with pytest.raises(DataError, match=r"expected a tokenizer.json, or a folder"):
        build_tokenizer(TokenizerConfig(kind="file", path=str(tmp_path / "nowhere")), [])
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="cannot be read as a tokenizer"):
        build_tokenizer(TokenizerConfig(kind="file", path=str(tmp_path)), [])


def test_a_stream_has_every_token_once_an_epoch_and_another_order_each(tmp_path):
    texts = [f"document {n} " + "word " * (n % 7) for n in range(40)]
    corpus, every = hold_corpus([str(n) for n in range(40)], texts, Bytes()), np.arange(0, 40, 2)
    rows = Stream(corpus, every, 32, 256, seed=1, fold=0)
    seen = []
    for epoch in (0, 1):
        opened = rows.open_epoch(epoch)
        windows = [opened.read(row) for row in range(rows.num_rows)]
        assert all(len(window) == 33 for window in windows)
        assert all((one[-1] == other[0]) for one, other in itertools.pairwise(windows))
        stream = np.concatenate([windows[0][:1], *(window[1:] for window in windows)])
        seen.append(stream)
        whole = Bytes().decode(stream[stream != 256])
        assert sum(texts[n] in whole for n in every) >= len(every) - 3
        assert not any(f"document {n} " in whole for n in range(1, 40, 2))
    assert len(seen[0]) - 1 == rows.kept["tokens"] == rows.num_tokens - 1 - rows.kept["tokens_left_over"]
    assert not np.array_equal(*seen)
    np.testing.assert_array_equal(rows.open_epoch(1).read(3), rows.open_epoch(1).read(3))


def test_rows_of_documents_begin_with_them_and_crop_nothing():
    texts = ["short", "x" * 70]
    rows = Documents(hold_corpus(["a", "b"], texts, Bytes()), np.arange(2), 32, 256, 0, 0)
    found = [rows.read(row).tolist() for row in range(rows.num_rows)]
    assert [len(row) for row in found] == [7, 33, 33, 8]
    assert [row[0] for row in found] == [256, 256, 120, 120]
    assert sum(len(row) - 1 for row in found) == rows.kept["tokens"] == 6 + 71


def test_the_entropy_of_a_tale_is_that_of_its_choices():
    """Estimated from the tales alone: the chance of an opening, of a number of searches, and so on."""
    tales = make_tales(4000, 5, "tale")
    nats = np.array([tale.entropy_nats for tale in tales])
    searches = np.array([tale.text.count("They looked") + tale.text.count("Nothing was") for tale in tales])
    shares = np.bincount(searches) / len(tales)
    fixed = sum(map(math.log, (4, 12, 48, 16, 3, 24, 3, 7, 47, 4, 3, 2, 8, 4)))
    of_search = [math.log(2), 2 * math.log(2) + math.log(20), 2 * math.log(2) + math.log(20) + math.log(18)]
    expected = fixed + sum(share * value for share, value in zip(shares, of_search, strict=True))
    # A feeling and a finder are chosen always; a day or a trade may be named by the sentence that is chosen.
    assert nats.mean() == pytest.approx(expected, abs=0.2)
    assert len({tale.text for tale in tales}) == len(tales)


def test_the_made_up_documents_have_planted_copies_and_broken_ones(tmp_path):
    corpus = make_corpus()
    names = [tale.name for tale in corpus]
    assert sum(name.startswith("again_") for name in names) == sum(name.startswith("shuffled_") for name in names) == 24
    assert all((tale.entropy_nats is None) == tale.name.startswith("shuffled_") for tale in corpus)
    config = Config(data=DataConfig(max_rows=900), tokenizer=TokenizerConfig(vocabulary=400))
    _, inventory = take_inventory(config, tmp_path, tmp_path / "cache")
    keys = inventory.row_keys["near text"].train
    pairs = [inventory.ids[keys == key].tolist() for key in np.unique(keys[keys > 0])]
    assert pairs
    assert all(len({name.split("_")[1] for name in pair}) == 1 and len(pair) == 2 for pair in pairs)
    tokenizer = open_tokenizer(inventory.tables)
    rows = open_corpus(inventory.tables, "train", tokenizer)
    assert tokenizer.decode(rows.read(5)) == corpus[5].text
    assert rows.floors_N[5] == pytest.approx(corpus[5].entropy_nats)
    assert "byte pairs learned" in inventory.notes[0]
    assert "nearly the same" in inventory.notes[1]
