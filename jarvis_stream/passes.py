"""Words that stand for a principal for a while: tickets and logins."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from jarvis_stream.identity.base import Principal


@dataclass(frozen=True, slots=True)
class _Pass:
    principal: Principal
    due: float
    attending: set[Callable[[], object]] = field(default_factory=set, compare=False)


class Passes:
    """Issues words that cannot be guessed, each good for `seconds`.

    Bounded: at most `most` of them, and `most_each` of one principal, whose own oldest then goes.
    Words are kept as digests: neither a look-up's time nor a memory dump tells one.
    """

    def __init__(
        self,
        *,
        seconds: float,
        most: int = 100_000,
        most_each: int = 64,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.seconds = seconds
        self._most = most
        self._most_each = most_each
        self._clock = clock
        self._passes: OrderedDict[bytes, _Pass] = OrderedDict()
        self._of: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._passes)

    def __repr__(self) -> str:
        return f"<Passes {len(self)}>"

    def issue(self, principal: Principal) -> str:
        """A new word for a principal."""
        self._sweep()
        if self._of[principal.name] >= self._most_each:
            self._remove(next(d for d, p in self._passes.items() if _is_of(p, principal)))
        if len(self._passes) >= self._most:
            self._remove(next(iter(self._passes)))
        word = secrets.token_urlsafe(32)
        self._passes[_digest(word)] = _Pass(principal, self._clock() + self.seconds)
        self._of[principal.name] += 1
        return word

    def look(self, word: str) -> Principal | None:
        """Whom it stands for; expires when the word does, or when the principal does before it."""
        found = self._passes.get(_digest(word))
        return self._alive(found)

    def redeem(self, word: str) -> Principal | None:
        """The same as it stands for, and never again; expires as the principal itself does."""
        digest = _digest(word)
        found = self._passes.get(digest)
        if found is None:
            return None
        self._remove(digest)
        return found.principal if self._alive(found) else None

    def drop(self, word: str) -> None:
        """Let it stand for nobody. Idempotent."""
        digest = _digest(word)
        if digest in self._passes:
            self._remove(digest)

    def attend(self, word: str, gone: Callable[[], object]) -> Callable[[], None]:
        """Call `gone` when the word is dropped, or at once if it was; what comes back ends that."""
        found = self._passes.get(_digest(word))
        if found is None:
            gone()
            return lambda: None
        found.attending.add(gone)
        return lambda: found.attending.discard(gone)

    def _alive(self, found: _Pass | None) -> Principal | None:
        if found is None:
            return None
        ends = found.due
        if found.principal.expires_at is not None:
            ends = min(ends, found.principal.expires_at)
        return Principal(found.principal.name, ends) if self._clock() < ends else None

    def _sweep(self) -> None:
        # All are good equally long: the first one in is the first to go.
        now = self._clock()
        while self._passes and next(iter(self._passes.values())).due <= now:
            self._remove(next(iter(self._passes)))

    def _remove(self, digest: bytes) -> None:
        found = self._passes.pop(digest)
        name = found.principal.name
        self._of[name] -= 1
        if not self._of[name]:
            del self._of[name]
        for gone in tuple(found.attending):
            gone()


def _is_of(found: _Pass, principal: Principal) -> bool:
    return found.principal.name == principal.name


def _digest(word: str) -> bytes:
    return hashlib.sha256(word.encode(errors="surrogatepass")).digest()
