"""Fair shares of a bounded memory: one principal's entries never evict another's smaller share."""

from __future__ import annotations

import heapq
from collections import OrderedDict

from jarvis_stream.ids import owner_of


class Shares:
    """How much of a bounded memory each owner uses.

    When the memory is full, the oldest entry of the owner with the largest share is evicted: an
    owner who uses less than an equal share loses nothing.
    """

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        # Entries may be out of date; one with each owner's present size, or more, is among them.
        self._heap: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._sizes)

    def of(self, owner: str) -> int:
        """Return how much an owner uses."""
        return self._sizes.get(owner, 0)

    def add(self, owner: str, size: int) -> None:
        """Count an entry in."""
        total = self._sizes[owner] = self._sizes.get(owner, 0) + size
        heapq.heappush(self._heap, (-total, owner))
        if len(self._heap) > 4 * len(self._sizes) + 256:
            self._heap = [(-total, owner) for owner, total in self._sizes.items()]
            heapq.heapify(self._heap)

    def remove(self, owner: str, size: int) -> None:
        """Count an entry out; an owner without any is forgotten."""
        left = self._sizes.get(owner, 0) - size
        if left > 0:
            self._sizes[owner] = left
        else:
            self._sizes.pop(owner, None)

    def largest(self, owner: str) -> str:
        """Return the owner whose oldest entry is to be evicted; of equals, this one."""
        while self._heap:
            recorded, candidate = self._heap[0]
            total = self._sizes.get(candidate, 0)
            if total == -recorded:
                return candidate if total > self.of(owner) else owner
            heapq.heappop(self._heap)
            if 0 < total < -recorded:
                heapq.heappush(self._heap, (-total, candidate))
        return owner


class FairSet:
    """At most `limit` keys (see ids.key_of), each owner's in the order they came."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._shares = Shares()
        self._keys: dict[str, OrderedDict[str, None]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: str) -> bool:
        return key in self._keys.get(owner_of(key), ())

    def add(self, key: str) -> str | None:
        """Add a key, or make it its owner's newest; return the key that is evicted for it."""
        owner = owner_of(key)
        self.discard(key)
        self._keys.setdefault(owner, OrderedDict())[key] = None
        self._shares.add(owner, 1)
        self._count += 1
        if self._count <= self._limit:
            return None
        evicted = next(iter(self._keys[self._shares.largest(owner)]))
        self.discard(evicted)
        return evicted

    def discard(self, key: str) -> bool:
        """Remove a key; return whether it was there."""
        owner = owner_of(key)
        keys = self._keys.get(owner)
        if keys is None or key not in keys:
            return False
        del keys[key]
        if not keys:
            del self._keys[owner]
        self._shares.remove(owner, 1)
        self._count -= 1
        return True
