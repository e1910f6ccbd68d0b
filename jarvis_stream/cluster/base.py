"""The port of who owns a session, when several processes ("nodes") serve the same ones.

A node takes a TICKET for every new stream (its epoch), CLAIMs the session with it, waits until the
older streams have been RELEASEd, and then APPENDs what its agent says. A claim is never a swap: a
request that timed out at its node may still be carried out later, and must not steal the session
then. So a ticket that is not newer than the last claim is refused, whenever it arrives.

    ticket ──► claim ──► older … gone (≤ bound) ──► append … append ──► close ──► release
                 │                                    │
                 └── revokes the owner before it      └── FENCED once somebody newer has claimed

Each stream has a log of its own, in the store all nodes share: what another node's readers follow.
While a stream is the owner it appends; what it had admitted before it learnt of its end, and its
terminal frame, it may still write by `close`, which nobody but itself and its undertaker may do,
and only once. A lease says that its node lives; who finds it expired may `bury` the stream: the
log gets a terminal frame for it.

Every call may be repeated: what happened already happens once. Every call raises StoreLost when
the store does not answer in time; what was asked may have happened then, or may still happen.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from jarvis_stream.errors import JarvisError


class StoreLost(JarvisError):
    """The store that the nodes share did not answer in time, or refused."""


OnConflict = Literal["interrupt", "rollback", "reject", "enqueue"]


class Stopped:
    """See Cluster.reserve."""


class Verdict(enum.Enum):
    """What the store says of a claim."""

    OWNER = "owner"
    """It owns its session."""
    FENCED = "fenced"
    """Somebody newer has claimed the session, or this stream has been buried: it is over."""
    REGRESSED = "regressed"
    """The store has forgotten: claim the same ticket again, and append from its `last` on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """Who started a stream_id, and where: there before the stream, and as long as its log."""

    stream: str
    session: str
    nonce: str
    """Random, of one start: what tells two attempts of one node apart."""
    node: str
    trace_id: str
    replaces: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One stream of a session, as the store knows it."""

    name: Name
    epoch: int
    """Its ticket. After the store has lost writes one may be given twice: the nonce tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Living(Claim):
    """A claim that has not been released."""

    expired: bool
    """Whether its lease has run out: its node is thought dead."""


class Outrun(JarvisError):
    """A newer ticket has claimed the session: this stream never comes to life."""

    def __init__(self, by: str) -> None:
        super().__init__(f"superseded by {by}")
        self.by = by
        """The newer stream."""


class Busy(JarvisError):
    """The session has an owner, or others are before this one in the queue."""

    def __init__(self, by: str, position: int) -> None:
        super().__init__(f"busy with {by}")
        self.by = by
        self.position = position
        """How many are to go first in the queue, this one included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Frames in order: those after seq `first`, up to `last`, joined (whole lines)."""

    claim: Claim
    first: int
    last: int
    frames: bytes


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of a batch; `last` is the seq up to which the store has the log."""

    verdict: Verdict
    last: int


@dataclass(frozen=True, slots=True)
class Renewed:
    """What a heartbeat learns; `cancelled` is the backstop of a lost `cancel` word."""

    verdict: Verdict
    cancelled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """What a log holds after a cursor: frames up to seq `last`, joined."""

    epoch: int
    """0 while the stream has not claimed its session."""
    last: int
    frames: bytes
    closed: bool
    """Whether `last` is the terminal frame."""
    expired: bool
    """Whether it is not closed, and its node is thought dead: bury it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """Something said to a node, or about a session that it watches. Any may be lost."""

    kind: Literal["superseded", "cancel", "claimed", "released"]
    session: str
    stream: str
    by: str = ""
    """superseded: the stream that took its place."""
    rollback: bool = False
    """superseded: whether its turn is to leave the history."""


class Cluster(Protocol):
    """The store that all nodes share; `session` and `stream` are keys (see ids.key_of)."""

    node: str
    """The name of this process: unique, and new with every start."""
    lease: float
    """Seconds after `claim` or `renew` was sent in which a claim is alive."""

    def running(self, hear: Callable[[Word], None]) -> AbstractAsyncContextManager[object]:
        """Use it inside; `hear` is called on the loop, and must not raise.

        Raises StoreLost on entry when the store cannot be had.
        """
        ...

    @property
    def reachable(self) -> bool:
        """Whether the last call was answered."""
        ...

    # Names: a stream_id is started once, on whatever node

    async def reserve(self, name: Name) -> Name | Stopped | None:
        """Take a name: None when it is this start's now, else who has it.

        Stopped when a stop came before it; the stop is used up, the name is taken.
        """
        ...

    async def find(self, stream: str) -> Name | None:
        """Who has a name."""
        ...

    async def free(self, name: Name) -> None:
        """Give back a name whose stream was refused, or whose log must not be read any more."""
        ...

    async def stop(self, stream: str) -> Name | None:
        """Have a stream cancelled on its node: said at once, and kept for its next heartbeat.

        None when nobody has the name: then the stop waits for it, for a while.
        """
        ...

    # Ownership

    async def ticket(self, session: str, floor: int) -> int:
        """The next epoch: above every one given, logged or claimed, above `floor`, and no less
        than the store's clock in milliseconds. Tickets must be asked for in the order of the
        session's streams on this node."""
        ...

    async def claim(
        self, claim: Claim, *, on_conflict: OnConflict = "interrupt"
    ) -> Sequence[Living]:
        """Own the session; returns the older streams that live. Starts its lease.

        The owner before is told (superseded), as is who watches. Raises Outrun for a ticket not
        newer than the last claim; Busy for `reject` while there is a living owner or a queue, and
        for `enqueue` while there is a living owner or an older one in the queue: it is in the
        queue then, its lease begins, and it asks again. Any other claim empties the queue.
        """
        ...

    async def older(self, claim: Claim) -> Sequence[Living]:
        """The streams of its session with a lower epoch that have not been released."""
        ...

    async def renew(self, claims: Sequence[Claim]) -> Sequence[Renewed]:
        """Heartbeat: begin the leases anew, each unless it is over; queued ones too."""
        ...

    async def release(self, claim: Claim) -> None:
        """Its agent has stopped. Nobody newer is touched; a later claim of its ticket is refused."""
        ...

    async def living(self, session: str) -> Sequence[Living]:
        """The streams of a session that have not been released, oldest first."""
        ...

    # Logs

    async def append(self, batches: Sequence[Batch]) -> Sequence[Appended]:
        """Append to logs of owners: one trip for all, each batch for itself.

        A batch that begins after the end of the log is REGRESSED, frames that are there already
        are left out.
        """
        ...

    async def close(self, batch: Batch) -> Appended:
        """Write what is left of a log, its terminal frame the last; whoever owns the session now.

        FENCED when it was closed before by its undertaker: other readers saw another end.
        """
        ...

    async def bury(self, name: Name, last: int, frame: bytes) -> bool:
        """End the log of a dead node's stream after seq `last`, and release it.

        False when that is not so: it lives, was closed, or has more frames.
        """
        ...

    async def read(self, cursors: Sequence[tuple[Name, int]]) -> Sequence[Tail | None]:
        """What each log holds after its cursor (a piece of it, when it is much); one trip for all.

        None when nothing is known of the log (any more).
        """
        ...

    # Words

    async def watch(self, session: str) -> None:
        """Hear of every `claimed` and `released` of a session, until `unwatch`."""
        ...

    async def unwatch(self, session: str) -> None:
        """Idempotent."""
        ...
