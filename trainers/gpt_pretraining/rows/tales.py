"""Tales from a grammar whose every choice shows in the text, so that the probability of a tale is the product of its
choices: what no model can be better than is known of each document.

A choice is made only where it is told: one that never shows would make the sum wrong. Hero, friend, trade, place and
thing come back within a tale: what has been said once is certain later, if a model has learned to copy.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainers.reading.data_folder import MADE_DATA
from trainers.storage.whole_files import write_whole

NUM_TRAIN, NUM_TEST, NUM_COPIES, NUM_SHUFFLED = 3000, 120, 24, 24
_NAMES = """Ada Agnes Alma Anna Beata Bella Clara Dora Edda Elsa Emma Erna Flora Freya Gerda Greta Hanna Hedda Hilda Ida
Inga Irma Jana Karla Lena Lotte Marta Meta Abel Adam Anton Arno Bruno Carl David Egon Emil Erik Felix Franz Georg Hans
Hugo Ivan Jakob Jonas Karl Kurt""".split()
_TRADES = "baker miller fisher tailor smith potter weaver carpenter shepherd painter gardener beekeeper".split()
_PLACES = """the river|the old mill|the harbour|the church|the market|the forest|the windy hill|the stone bridge
|the lake|the well|the lighthouse|the meadow|the quarry|the station|the orchard|the castle""".replace("\n", "").split(
    "|"
)
_THINGS = """kite|lantern|flute|wooden boat|silver spoon|red scarf|drum|clay bowl|music box|fishing rod|straw hat|brass
bell|blue kettle|compass|chess board|feather|mirror|umbrella|toy horse|green bottle|basket|violin|ladder|map""".replace(
    "\n", " "
).split("|")
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
_WHERE = """under the table|behind the door|on the roof|in the barn|beside the fire|among the reeds|inside the oven|near
the fence|below the stairs|between the stones""".replace("\n", " ").split("|")
_FEELINGS = "happy tired proud calm hungry grateful amused relieved".split()
_OPENINGS = (
    "Once there was a {trade} named {hero} who lived near {place}.",
    "In a small house near {place} lived {hero}, a {trade}.",
    "{hero} was a {trade} and had a house near {place}.",
    "Near {place} stood a house, and {hero} the {trade} lived there.",
)
_OWNS = (
    "{hero} had a {thing} and would not sell it.",
    "What {hero} loved best was a {thing}.",
    "Every evening {hero} cleaned a {thing}.",
)
_VISITS = (
    "On {day}, {friend} came to {place} to see the {thing}.",
    "One {day} the {trade} met {friend} near {place}.",
    "{friend} knocked at the door of the {trade} on {day}.",
)
_LOSSES = (
    'But the {thing} was gone, and {hero} said, "Help me, {friend}!"',
    'Then the wind took the {thing}, and {friend} said, "Quick, {hero}!"',
    "A crow carried the {thing} away while {hero} and {friend} talked.",
    "Nobody knew where the {thing} was, neither {friend} nor {hero}.",
)
_SEARCHES = ("They looked {where}.", "Nothing was {where}.")
_FOUND = (
    "At last {finder} found the {thing} close to {place}.",
    "It was {finder} who saw the {thing} first, not far from {place}.",
    'Suddenly {finder} called, "The {thing} is here!"',
)
_ENDINGS = (
    "The {trade} and {friend} ate together that night.",
    "Since that {day} {friend} often comes to the house of {hero}.",
    "{hero} thanked {friend} and went home with the {thing}.",
    "They sang about the {thing} all the way home, {hero} and {friend}.",
)
_MORE, _MOST_SEARCHES = 0.5, 2  # chance of another place that is searched, and places at most


@dataclass(frozen=True)
class Tale:
    """A document.

    Attributes:
        name: its id.
        text: of it.
        entropy_nats: minus the logarithm of its probability; None: the grammar does not make it.
    """

    name: str
    text: str
    entropy_nats: float | None


class _Teller:
    """Makes choices and adds up what they cost."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.nats, self.known = rng, 0.0, dict[str, str]()

    def choose(self, options: Sequence[str]) -> str:
        self.nats += math.log(len(options))
        return options[self.rng.randrange(len(options))]

    def decide(self, chance: float) -> bool:
        is_so = self.rng.random() < chance
        self.nats -= math.log(chance if is_so else 1 - chance)
        return is_so

    def say(self, options: Sequence[str], **lists: Sequence[str]) -> str:
        """One of several sentences; what it is the first to name is chosen now."""
        sentence = self.choose(options)
        for name, values in lists.items():
            if f"{{{name}}}" in sentence and name not in self.known:
                self.known[name] = self.choose(values)
        return sentence.format(**self.known)


def tell_tale(rng: random.Random) -> tuple[list[str], float]:
    """The sentences of a tale, and its entropy in nats, with what ends it."""
    teller = _Teller(rng)
    sentences = [teller.say(_OPENINGS, trade=_TRADES, hero=_NAMES, place=_PLACES), teller.say(_OWNS, thing=_THINGS)]
    others = [name for name in _NAMES if name != teller.known["hero"]]
    sentences += [teller.say(_VISITS, day=_DAYS, friend=others), teller.say(_LOSSES)]
    searched: list[str] = []
    while len(searched) < _MOST_SEARCHES and teller.decide(_MORE):
        teller.known["where"] = teller.choose([one for one in _WHERE if one not in searched])
        searched.append(teller.known["where"])
        sentences.append(teller.say(_SEARCHES))
    sentences.append(teller.say(_FOUND, finder=(teller.known["hero"], teller.known["friend"])))
    sentences.append(f"{teller.known['hero']} was {teller.choose(_FEELINGS)}.")
    sentences.append(teller.say(_ENDINGS))
    return sentences, teller.nats


def tell_again(sentences: Sequence[str], rng: random.Random) -> list[str]:
    """The same tale with another feeling: nearly a copy, which the grammar makes just as likely."""
    hero, old = sentences[-2].rstrip(".").split(" was ")
    return [*sentences[:-2], f"{hero} was {rng.choice([one for one in _FEELINGS if one != old])}.", sentences[-1]]


def make_tales(num: int, seed: int, prefix: str) -> list[Tale]:
    """Tales, each as likely as the grammar has it."""
    rng = random.Random(seed)
    told = [tell_tale(rng) for _ in range(num)]
    return [Tale(f"{prefix}_{n:04d}", " ".join(told), nats) for n, (told, nats) in enumerate(told)]


def make_corpus() -> list[Tale]:
    """The training documents: tales; some told again with one other word (`again_<number of the first>`), and some
    whose sentences are in a wrong order (`shuffled_<number>`)."""
    rng = random.Random(1)
    told = [tell_tale(rng) for _ in range(NUM_TRAIN)]
    tales = [Tale(f"tale_{n:04d}", " ".join(one), nats) for n, (one, nats) in enumerate(told)]
    for number in range(0, NUM_COPIES * 7, 7):
        again = " ".join(tell_again(told[number][0], rng))
        tales.append(Tale(f"again_{number:04d}", again, told[number][1]))
    for number in range(3, NUM_SHUFFLED * 7, 7):
        mixed = rng.sample(told[number + 200][0], len(told[number + 200][0]))
        tales[number + 200] = Tale(f"shuffled_{number + 200:04d}", " ".join(mixed), None)
    rng.shuffle(tales)
    return tales


def make_data(folder: Path) -> Path:
    """Writes `made_data/train.jsonl` and `test.jsonl`, unless they are there; returns their folder."""
    made = folder / MADE_DATA
    for name in ("train", "test"):
        if not (path := made / f"{name}.jsonl").exists():
            tales = make_corpus() if name == "train" else make_tales(NUM_TEST, 2, "new")
            lines = [json.dumps({"id": one.name, "text": one.text, "entropy_nats": one.entropy_nats}) for one in tales]
            write_whole(path, ("\n".join(lines) + "\n").encode())
    return made
