"""What it takes to make tokens of documents and to find those that are nearly the same, before a GPT's run starts.

    python benchmarks/documents.py [--megabytes 200]

Documents of twelve sentences of made-up tales in one text file: the size that is given, and a quarter of it. Each is
read in a process of its own, with byte pairs learned from it. Memory is the process's peak, less what it holds after
its imports; pages of mapped files count, which the system takes back when it needs them. The baseline of the time is
`tokenizers` alone on the same texts."""

from __future__ import annotations

import argparse
import multiprocessing
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from trainers.gpt_pretraining.config import Config, DataConfig, TokenizerConfig
from trainers.gpt_pretraining.inventory import take_inventory
from trainers.gpt_pretraining.rows.corpus import open_tokenizer
from trainers.gpt_pretraining.rows.tales import tell_tale

VOCABULARY, AT_ONCE = 4096, 512


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--megabytes", type=int, default=200)
    most = arguments.parse_args().megabytes
    for megabytes in (most // 4, most):
        with tempfile.TemporaryDirectory() as scratch, multiprocessing.get_context("spawn").Pool(1) as pool:
            place = Path(scratch)
            num = write_tales(place / "train.txt", megabytes * 1_000_000)
            whole_s, memory = pool.apply(take, (place,))
            bare_s = pool.apply(encode, (place,))
            print(
                f"{megabytes:,} MB, {num:,} documents: {whole_s:.0f} CPU s, {whole_s / bare_s:.1f} of the "
                f"{bare_s:.0f} s of the tokens alone; peak memory {memory:,.0f} MiB, "
                f"{memory * 2**20 / num:,.0f} bytes a document"
            )


def write_tales(path: Path, size: int) -> int:
    """Writes about so many bytes of tales; returns their number."""
    rng, num = random.Random(0), 0
    sentences = [one for _ in range(2000) for one in tell_tale(rng)[0]]
    with path.open("w") as file:
        while file.tell() < size:
            file.writelines(f"{' '.join(rng.choices(sentences, k=12))}\n<|endoftext|>\n" for _ in range(1000))
            num += 1000
    return num


def take(place: Path) -> tuple[float, float]:
    """CPU seconds, and the memory in MiB that is added."""
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    config = Config(data=DataConfig(root=str(place)), tokenizer=TokenizerConfig(vocabulary=VOCABULARY))
    take_inventory(config, place)
    added = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return time.process_time() - began, added / 1024


def encode(place: Path) -> float:
    """CPU seconds of the tokens alone, by the tokenizer that was learned."""
    texts = (place / "train.txt").read_text().split("\n<|endoftext|>\n")
    tokenizer = open_tokenizer(next(place.glob("cache/documents/tokens_*")))
    began = time.process_time()
    counts = [
        len(one) for start in range(0, len(texts), AT_ONCE) for one in tokenizer.encode(texts[start : start + AT_ONCE])
    ]
    assert np.sum(counts) > 0
    return time.process_time() - began


if __name__ == "__main__":
    main()
