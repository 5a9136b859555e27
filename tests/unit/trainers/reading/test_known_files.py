"""What was found out about files is remembered until they change."""

import os
import threading
from functools import partial

import pytest

from trainers.reading import known_files, portions
from trainers.reading.known_files import FOLDER, KnownFiles


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(known_files, "SETTLED_S", -10.0)  # files are remembered as soon as they are written
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def write_files(folder, number):
    folder.mkdir(exist_ok=True)
    places = [folder / f"{n}.txt" for n in range(number)]
    for n, place in enumerate(places):
        place.write_text(f"content {n}")
    return places


class Looks:
    """Reads files and counts them. A file that begins with "bad" is not in order."""

    def __init__(self):
        self.seen = []

    def __call__(self, items):
        self.seen += [path.name for path, *_ in items]
        return [(text, not text.startswith("bad")) for text in (path.read_text() for path, *_ in items)]


def look(cache, places, how="read"):
    looks = Looks()
    found = KnownFiles(cache, "root").look_at(how, [(place,) for place in places], looks)
    assert found == [place.read_text() for place in places]
    return looks.seen


def test_a_file_that_stays_as_it_is_is_looked_at_once(tmp_path, cache):
    places = write_files(tmp_path / "data", 5)
    assert len(look(cache, places)) == 5
    assert look(cache, places) == []
    assert look(cache, places[:2], how="read otherwise") == ["0.txt", "1.txt"]
    assert look(cache, places[::-1]) == []


@pytest.mark.parametrize("is_saved", [True, False])
def test_a_second_way_of_looking_forgets_nothing_and_takes_no_more_memory(tmp_path, cache, is_saved):
    items = [(place,) for place in write_files(tmp_path / "data", 3)]
    known, looks = KnownFiles(cache if is_saved else None, "root"), Looks()
    for how in ("headers", "contents", "headers"):
        known.look_at(how, items, looks)
    assert len(looks.seen) == 6
    assert sum(map(len, known.memories.values())) == (3 if is_saved else 6)


def test_a_file_of_another_size_or_time_is_looked_at_again(tmp_path, cache):
    places = write_files(tmp_path / "data", 4)
    look(cache, places)
    before = places[1].stat()
    places[0].write_text("of another size")
    places[1].write_text("content X")
    os.utime(places[1], ns=(before.st_atime_ns, before.st_mtime_ns))  # the size and the time that it had
    os.utime(places[2], (1, 1))
    assert look(cache, places) == ["0.txt", "1.txt", "2.txt"]
    assert look(cache, places) == []


def test_what_is_not_in_order_is_looked_at_again(tmp_path, cache):
    places = write_files(tmp_path / "data", 2)
    places[0].write_text("bad")
    look(cache, places)
    assert look(cache, places) == ["0.txt"]


def test_a_file_that_was_written_just_now_is_not_remembered(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(known_files, "SETTLED_S", 60.0)
    places = write_files(tmp_path / "data", 2)
    look(cache, places)
    assert len(look(cache, places)) == 2


@pytest.mark.parametrize("content", [b"", b"no table", None])
def test_of_a_damaged_memory_nothing_is_known(tmp_path, cache, content):
    places = write_files(tmp_path / "data", 300)
    look(cache, places)
    (memory,) = (cache / FOLDER).iterdir()
    whole = bytearray(memory.read_bytes())
    whole[len(whole) // 3] ^= 255
    memory.write_bytes(whole if content is None else content)
    assert len(look(cache, places)) == 300
    assert look(cache, places) == []


def test_without_a_cache_nothing_is_remembered(tmp_path, cache):
    places = write_files(tmp_path / "data", 2)
    assert len(look(cache / "not there", places)) == 2
    assert not (cache / "not there").exists()


def test_a_memory_and_their_number_are_bounded(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(known_files, "_MOST_ENTRIES", 4)
    monkeypatch.setattr(known_files, "_MOST_MEMORIES", 2)
    places = write_files(tmp_path / "data", 6)
    look(cache, places[:4])
    look(cache, places[3:])
    assert look(cache, places[3:]) == []
    assert len(look(cache, places[:3])) == 2  # the one of them that had room is known
    for number in range(3):
        look(cache, places[:1], how=f"{number}")
    assert len(list((cache / FOLDER).iterdir())) == 2


def test_what_was_seen_before_an_error_is_remembered(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(portions, "PORTION", 2)
    places = write_files(tmp_path / "data", 4)
    places[3].unlink()
    with pytest.raises(FileNotFoundError):
        look(cache, places)
    assert look(cache, places[:3]) == ["2.txt"]


def test_files_are_asked_for_many_at_a_time(tmp_path, monkeypatch):
    places = write_files(tmp_path / "data", 256)
    together = threading.Barrier(32, timeout=60)  # as many as wait for each other before any is answered
    asked = os.stat

    def ask(path, *args, **kwargs):
        if path in places[:: len(places) // 32]:
            together.wait()
        return asked(path, *args, **kwargs)

    monkeypatch.setattr(known_files, "THREADS", 64)
    monkeypatch.setattr(known_files.os, "stat", ask)
    known = KnownFiles()
    known.ask_stamps(places)
    assert set(known.stamps) == set(places)


def add_to_each(number, items):
    return [(os.getpid(), item + number) for item in items]


def test_what_takes_long_is_done_in_several_processes_too(monkeypatch):
    monkeypatch.setattr(portions, "PORTION", 10)
    monkeypatch.setattr(portions, "_WORTH_S", -1.0)
    monkeypatch.setattr(portions, "count_cores", lambda: 2)
    looked = list(portions.look_in_portions(partial(add_to_each, 1), range(1000, 1100), range(5, 95)))
    found = {number: one for numbers, ones in looked for number, one in zip(numbers, ones, strict=True)}
    assert {number: value for number, (_, value) in found.items()} == {n: 1001 + n for n in range(5, 95)}
    assert len({process for process, _ in found.values()}) > 1


def end_elsewhere(here, items):
    if os.getpid() != here:
        os._exit(1)
    return list(items)


def test_what_a_process_that_dies_does_not_give_is_done_here(monkeypatch):
    monkeypatch.setattr(portions, "PORTION", 10)
    monkeypatch.setattr(portions, "_WORTH_S", -1.0)
    monkeypatch.setattr(portions, "count_cores", lambda: 3)
    looked = list(portions.look_in_portions(partial(end_elsewhere, os.getpid()), range(50), range(50)))
    assert sorted(number for numbers, _ in looked for number in numbers) == list(range(50))
