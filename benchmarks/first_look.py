"""What the first look at pictures costs, and another one when nothing has changed, on a file system whose every `open`
and `stat` takes 5 ms: a library that is preloaded makes the calls below the data wait. Needs gcc.

    python benchmarks/first_look.py [--sizes 2000 20000] [--most-before 2000]

`before` does one after another what starts did without a memory, in the same process: for CLIP three looks at each
file (header, size, end), for the U-Net four threads that read and decode each pair. Times are wall and CPU seconds,
children included; calls, and how many of them waited at the same time, are those of this process. The looks come after
SETTLED_S, as nothing is remembered of files that were written just now.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from PIL import Image

from trainers.clip_regression.config import DataConfig as ClipData
from trainers.clip_regression.rows.row_keys import hash_pictures
from trainers.reading.known_files import SETTLED_S, KnownFiles
from trainers.reading.picture_files import check_picture_content, digest_end, load_decoders, look_at_pictures
from trainers.unet_segmentation.config import DataConfig as UnetData
from trainers.unet_segmentation.rows.findings import look_at_pairs
from trainers.unet_segmentation.rows.folders import Found
from trainers.unet_segmentation.rows.scan import _look_at

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
static int calls, waiting, most;
int take_calls(void) { return __sync_lock_test_and_set(&calls, 0); }
int take_most(void) { return __sync_lock_test_and_set(&most, 0); }
static void be_slow(const char *path) {
  static const char *prefix;
  if (!prefix && !(prefix = getenv("SLOW_BELOW"))) return;
  if (!path || strncmp(path, prefix, strlen(prefix))) return;
  struct timespec pause = {0, 5000000};
  __sync_fetch_and_add(&calls, 1);
  int now = __sync_add_and_fetch(&waiting, 1), seen = most;
  while (now > seen && !__sync_bool_compare_and_swap(&most, seen, now)) seen = most;
  nanosleep(&pause, NULL);
  __sync_fetch_and_sub(&waiting, 1);
}
#define OPEN(name) int name(const char *path, int flags, ...) { \
  static int (*real)(const char *, int, ...); va_list list; va_start(list, flags); int mode = va_arg(list, int); \
  va_end(list); if (!real) real = dlsym(RTLD_NEXT, #name); be_slow(path); return real(path, flags, mode); }
#define OPENAT(name) int name(int folder, const char *path, int flags, ...) { \
  static int (*real)(int, const char *, int, ...); va_list list; va_start(list, flags); \
  int mode = va_arg(list, int); va_end(list); if (!real) real = dlsym(RTLD_NEXT, #name); be_slow(path); \
  return real(folder, path, flags, mode); }
#define STAT(name) int name(const char *path, void *found) { \
  static int (*real)(const char *, void *); if (!real) real = dlsym(RTLD_NEXT, #name); be_slow(path); \
  return real(path, found); }
#define STATAT(name) int name(int folder, const char *path, void *found, int flags) { \
  static int (*real)(int, const char *, void *, int); if (!real) real = dlsym(RTLD_NEXT, #name); be_slow(path); \
  return real(folder, path, found, flags); }
OPEN(open) OPEN(open64) OPENAT(openat) OPENAT(openat64) STAT(stat) STAT(stat64) STATAT(fstatat) STATAT(fstatat64)
int __xstat64(int version, const char *path, void *found) {
  static int (*real)(int, const char *, void *); if (!real) real = dlsym(RTLD_NEXT, "__xstat64"); be_slow(path);
  return real(version, path, found); }
"""


def main() -> None:
    """Makes pictures, and looks at them in a process for which they are slow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 20_000])
    parser.add_argument("--most-before", type=int, default=2000, help="one after another: 5 ms a call add up")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        measure(Path(arguments.inside), arguments.most_before)
        return
    with tempfile.TemporaryDirectory() as scratch:
        library = Path(scratch) / "slow.so"
        (Path(scratch) / "slow.c").write_text(SHIM)
        subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", library, Path(scratch) / "slow.c", "-ldl"], check=True)
        for size in arguments.sizes:
            root = Path(scratch) / f"data{size}"
            make_pictures(root, size)
            time.sleep(SETTLED_S + 1)
            environment = os.environ | {"LD_PRELOAD": str(library), "SLOW_BELOW": str(root)}
            command = [sys.executable, __file__, "--inside", str(root), "--most-before", str(arguments.most_before)]
            subprocess.run(command, env=environment, check=True)


def make_pictures(root: Path, number: int) -> None:
    """Pictures of 256 pixels and masks; a few contents, each with bytes of its own at its end."""
    rng = np.random.default_rng(0)
    for folder in ("images", "masks", "cache"):
        (root / folder).mkdir(parents=True)
    grey = np.asarray(Image.fromarray(rng.integers(0, 255, (16, 16), dtype=np.uint8)).resize((256, 256)))
    for folder, values in (("images", grey), ("masks", ((grey > 120) * 255).astype(np.uint8))):
        place = root / "first.png"
        Image.fromarray(values).save(place)
        content = place.read_bytes()
        for row in range(number):
            (root / folder / f"{row}.png").write_bytes(content + row.to_bytes(4, "little") * (folder == "images"))


def measure(root: Path, most_before: int) -> None:
    """Prints a line of JSON for each look."""
    load_decoders()
    pictures, masks = (sorted((root / folder).iterdir()) for folder in ("images", "masks"))
    found = Found([place.stem for place in pictures], pictures, list(masks))
    clip, unet = ClipData(root=str(root)), UnetData(root=str(root))
    looks: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "CLIP": (lambda: look_for_clip_before(clip, pictures), lambda: look_for_clip(clip, pictures, root)),
        "U-Net": (
            lambda: look_for_unet_before(unet, found),
            lambda: _look_at(unet, found, KnownFiles(root / "cache", root)),
        ),
    }
    for family, (before, after) in looks.items():
        if len(pictures) <= most_before:
            report(family, len(pictures), "before", before)
        report(family, len(pictures), "first look", after)
        report(family, len(pictures), "nothing has changed", after)


def look_for_clip(data: ClipData, pictures: list[Path], root: Path) -> None:
    """Headers, ends, and contents that are the same."""
    known = KnownFiles(root / "cache", root)
    found = look_at_pictures(known, data.picture_rules, pictures)
    hash_pictures(pictures, [one.end for one in found], known)


def look_for_clip_before(data: ClipData, pictures: list[Path]) -> None:
    """One file after another, three times."""
    for place in pictures:
        assert place.is_file()
        with place.open("rb") as file:
            check_picture_content(file.read(), place.name, data.picture_rules)
        digest_end(place)
    for _ in range(2):
        for place in pictures:
            place.stat()
            digest_end(place)


def look_for_unet_before(data: UnetData, found: Found) -> None:
    """Four pairs at a time."""

    def look(pair: tuple[Path, Path | None]) -> object:
        assert all(place is not None and place.is_file() and place.stat() for place in pair)
        return look_at_pairs(data, [pair])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(look, zip(found.pictures, found.masks, strict=True)))


def report(family: str, rows: int, what: str, look: Callable[[], object]) -> None:
    """Runs a look and prints what it costs."""
    slow = ctypes.CDLL(os.environ["LD_PRELOAD"])
    slow.take_calls(), slow.take_most()
    began, cpu_s = time.perf_counter(), _count_cpu_s()
    look()
    wall_s, cpu_s = time.perf_counter() - began, _count_cpu_s() - cpu_s
    told = {"wall_s": round(wall_s, 2), "cpu_s": round(cpu_s, 2)}
    told |= {"calls": slow.take_calls(), "most_at_once": slow.take_most()}  # of this process
    print(json.dumps({"family": family, "rows": rows, "look": what} | told), flush=True)


def _count_cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    main()
