"""One principal's entries in a bounded memory do not evict another's."""

from __future__ import annotations

import random
from collections import Counter

from jarvis_stream.ids import key_of, owner_of
from jarvis_stream.shares import FairSet, Shares


def test_the_largest_share_loses_its_oldest_entry() -> None:
    keys = FairSet(4)
    for key in ("ann/1", "bob/1", "ann/2", "ann/3"):
        assert keys.add(key) is None
    assert keys.add("bob/2") == "ann/1"
    assert keys.add("bob/3") == "bob/1"  # both had two; the newcomer's owner pays
    assert keys.add("cid/1") in ("ann/2", "bob/2")
    assert len(keys) == 4


def test_a_key_that_is_added_again_is_its_owners_newest() -> None:
    keys = FairSet(2)
    keys.add("ann/1")
    keys.add("ann/2")
    assert keys.add("ann/1") is None
    assert keys.add("ann/3") == "ann/2"
    assert "ann/1" in keys


def test_a_key_is_discarded_once() -> None:
    keys = FairSet(2)
    keys.add("1")
    assert keys.discard("1")
    assert not keys.discard("1")
    assert (len(keys), len(keys._keys), len(keys._shares)) == (0, 0, 0)


def test_a_flood_of_one_principal_leaves_the_small_share_of_another() -> None:
    keys = FairSet(100)
    mine = [key_of("bob", f"{n}") for n in range(50)]
    for key in mine:
        keys.add(key)
    for n in range(10_000):
        keys.add(key_of("ann", f"{n}"))
    assert all(key in keys for key in mine)
    assert len(keys) == 100
    assert len(keys._shares._heap) < 1000


def test_whoever_has_the_most_is_found_among_random_changes() -> None:
    dice = random.Random(7)
    shares, sizes = Shares(), Counter[str]()
    for _ in range(20_000):
        owner = f"{dice.randrange(40)}"
        size = dice.randrange(1, 50)
        if dice.random() < 0.55:
            shares.add(owner, size)
            sizes[owner] += size
        elif sizes[owner]:
            size = min(size, sizes[owner])
            shares.remove(owner, size)
            sizes[owner] -= size
        assert sizes[shares.largest(owner)] == max(sizes.values())


def test_without_owners_the_oldest_key_goes_first() -> None:
    keys = FairSet(2)
    keys.add("a")
    keys.add("b")
    assert keys.add("c") == "a"
    assert owner_of("c") == ""
