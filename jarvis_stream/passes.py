"""Words that stand for a principal for a while: tickets and logins."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from jarvis_stream.identity.base import Principal


class Keeper(Protocol):
    """Issues words that cannot be guessed, each good for `seconds`.

    Every call may raise Unavailable, where the words are not kept in this process.
    """

    seconds: float

    async def issue(self, principal: Principal) -> str:
        """A new word for a principal; one with very many loses the oldest."""
        ...

    async def look(self, word: str) -> Principal | None:
        """Whom it stands for; expires when the word does, or when the principal does before it.

        The word is the principal's `login`.
        """
        ...

    async def redeem(self, word: str) -> Principal | None:
        """The same as it was issued to, and never again; expires as the principal itself does."""
        ...

    async def find(self, login: str) -> Principal | None:
        """Look up a word by its digest, as `look` does by the word."""
        ...

    async def drop(self, word: str) -> None:
        """Let it stand for nobody. Idempotent."""
        ...

    async def drop_all(self, name: str) -> int:
        """Drop every word of a principal; return how many there were."""
        ...

    def attend(self, login: str, gone: Callable[[], object]) -> Callable[[], None]:
        """Call `gone` when a principal's `login` is dropped, or at once if it was.

        What comes back ends that.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Pass:
    principal: Principal
    due: float
    attending: set[Callable[[], object]] = field(default_factory=set, compare=False)


class Passes:
    """See Keeper: in this process.

    Bounded: at most `most` of them, and `most_each` of one principal, whose own oldest then goes.
    Words are kept as digests: neither a look-up's time nor a memory dump tells one.
    """

    def __init__(
        self,
        *,
        seconds: float,
        most: int = 100_000,
        most_each: int = 64,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`clock` decides how long a word is good; `wall` whether its principal has expired."""
        self.seconds = seconds
        self._most = most
        self._most_each = most_each
        self._clock = clock
        self._wall = wall
        self._passes: OrderedDict[str, _Pass] = OrderedDict()
        self._of: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._passes)

    def __repr__(self) -> str:
        return f"<Passes {len(self)}>"

    async def issue(self, principal: Principal) -> str:
        """See Keeper.issue."""
        self._sweep()
        if self._of[principal.name] >= self._most_each:
            self._remove(next(d for d, p in self._passes.items() if _is_of(p, principal)))
        if len(self._passes) >= self._most:
            self._remove(next(iter(self._passes)))
        word = secrets.token_urlsafe(32)
        self._passes[digest(word)] = _Pass(principal, self._clock() + self.seconds)
        self._of[principal.name] += 1
        return word

    async def look(self, word: str) -> Principal | None:
        """See Keeper.look."""
        return await self.find(digest(word))

    async def find(self, login: str) -> Principal | None:
        """See Keeper.find."""
        principal = self._alive(self._passes.get(login))
        return replace(principal, login=login) if principal is not None else None

    async def redeem(self, word: str) -> Principal | None:
        """See Keeper.redeem."""
        key = digest(word)
        found = self._passes.get(key)
        if found is None:
            return None
        self._remove(key)
        return found.principal if self._alive(found) else None

    async def drop(self, word: str) -> None:
        """See Keeper.drop."""
        key = digest(word)
        if key in self._passes:
            self._remove(key)

    async def drop_all(self, name: str) -> int:
        """See Keeper.drop_all."""
        keys = [key for key, found in self._passes.items() if found.principal.name == name]
        for key in keys:
            self._remove(key)
        return len(keys)

    def attend(self, login: str, gone: Callable[[], object]) -> Callable[[], None]:
        """See Keeper.attend."""
        found = self._passes.get(login)
        if found is None:
            gone()
            return lambda: None
        found.attending.add(gone)
        return lambda: found.attending.discard(gone)

    def _alive(self, found: _Pass | None) -> Principal | None:
        if found is None:
            return None
        now = self._wall()
        ends = now + found.due - self._clock()
        if found.principal.expires_at is not None:
            ends = min(ends, found.principal.expires_at)
        return replace(found.principal, expires_at=ends) if now < ends else None

    def _sweep(self) -> None:
        # All are good equally long: the first one in is the first to go.
        now = self._clock()
        while self._passes and next(iter(self._passes.values())).due <= now:
            self._remove(next(iter(self._passes)))

    def _remove(self, key: str) -> None:
        found = self._passes.pop(key)
        name = found.principal.name
        self._of[name] -= 1
        if not self._of[name]:
            del self._of[name]
        for gone in tuple(found.attending):
            gone()


def _is_of(found: _Pass, principal: Principal) -> bool:
    return found.principal.name == principal.name


def digest(word: str) -> str:
    """What is kept of a word."""
    return hashlib.sha256(word.encode(errors="surrogatepass")).hexdigest()
