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

A stream with `enqueue` that finds its session busy waits in the session's queue, and claims again
when it may be its turn. Each in the queue has a lease, and a log it may append to, as an owner has.

Every call may be repeated: what happened already happens once. Every call raises StoreLost when
the store does not answer in time; what was asked may have happened then, or may still happen. A
store may have several parts, each with some of the sessions, and one of them be away: calls for
many sessions raise nothing, but have a StoreLost in the place of each answer that did not come.
"""

from __future__ import annotations

import enum
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol, TypeVar

from jarvis_stream.errors import JarvisError
from jarvis_stream.tally import Tally

T = TypeVar("T")

READ_BYTES: Final = 64 * 1024
"""Bytes that one `read` returns of a log, by default."""


class StoreLost(JarvisError):
    """The store that the nodes share did not answer in time, or refused."""


def only(answers: Sequence[T | StoreLost]) -> T:
    """What the store answered who asked about one thing; raises StoreLost when it did not."""
    (answer,) = answers
    if isinstance(answer, StoreLost):
        raise answer
    return answer


OnConflict = Literal["interrupt", "rollback", "reject", "enqueue"]


class Reserved(enum.Enum):
    """How a start took its name."""

    FREE = "free"
    STOPPED = "stopped"
    """A stop had come before it."""


class Verdict(enum.Enum):
    """What the store says of a claim."""

    GOOD = "good"
    """It may go on: what was asked is done, by this call or by an earlier one."""
    FENCED = "fenced"
    """It is over: superseded, buried, released, or closed before."""
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
    position: int = 0
    """Its place in the queue, from 1 on; 0 when it has claimed the session."""
    by: str = ""
    """The stream that superseded it."""
    closed: bool = False
    """Whether its log has its end: only its agent may still tidy up."""
    removed: bool = False
    """Whether a removal covers it, so that no new reader may follow it."""


class Outrun(JarvisError):
    """A newer ticket has claimed the session: this stream never comes to life."""

    def __init__(self, by: str) -> None:
        super().__init__(f"superseded by {by}")
        self.by = by
        """The newer stream."""


class Vacated(Outrun):
    """The start was abandoned, by its own node or by another node after its lease expired. Its
    stream_id is free, or belongs to another start."""

    def __init__(self) -> None:
        super().__init__("")


class Outdated(JarvisError):
    """A removal covers the epoch of a late claim: the claim needs a newer ticket."""


class Busy(JarvisError):
    """The session has an owner, or others are before this one in the queue."""

    def __init__(self, by: str, epoch: int, position: int) -> None:
        super().__init__(f"busy with {by}")
        self.by = by
        """The owner's stream, or the first one's in the queue while there is no owner."""
        self.epoch = epoch
        """The highest epoch that has claimed the session."""
        self.position = position
        """Its own place in the queue, from 1 on; 0 when it is not in the queue."""


class Batch(NamedTuple):
    """Frames in order: those after seq `first`, up to `last`, joined (whole lines)."""

    claim: Claim
    first: int
    last: int
    frames: bytes
    is_end: bool = False
    """Whether the last frame is the terminal frame of the log."""


class Appended(NamedTuple):
    """What became of a batch; `last` is the seq up to which the store has the log."""

    verdict: Verdict
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed:
    """What a heartbeat learns: also what was said in words that may have been lost."""

    verdict: Verdict
    cancelled: bool = False
    """Whether somebody has stopped it."""
    attended: bool = False
    """Whether it is read on another node."""
    by: str = ""
    """The stream that superseded it."""
    rollback: bool = False
    """Whether its turn is to leave the history for that."""
    removed: bool = False
    """Whether a removal covers it."""


class Tail(NamedTuple):
    """What a log holds after a cursor: frames up to seq `last`, joined."""

    epoch: int
    """0 while the stream has neither claimed its session nor joined the queue."""
    last: int
    """Less than the cursor when that is past the end of the log."""
    frames: bytes
    closed: bool
    """Whether `last` is the terminal frame."""
    expired: bool
    """Whether it is not closed, and its node is thought dead: bury it."""
    vacated: bool = False
    """Whether its start was abandoned before the first frame, so that the log stays empty."""
    removed: bool = False
    """Whether a removal covers it: readers that follow it see its end, new ones see nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """Something said to a node, or about a session it watches. It may be lost, or come twice."""

    kind: Literal["superseded", "cancel", "claimed", "released", "forgotten"]
    session: str
    stream: str = ""
    """Empty for `forgotten`."""
    by: str = ""
    """superseded, forgotten: the stream that took its place; empty when there is none."""
    rollback: bool = False
    """superseded: whether its turn is to leave the history."""
    first: int = 0
    """forgotten: the lowest epoch of the span."""
    before: int = 0
    """forgotten: the epoch after the highest of the span."""


class Health:
    """How the store answers, since this process began."""

    def __init__(self) -> None:
        self.trips = Tally((0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1))
        """Of every call that was answered, how long it took."""
        self.failures = 0
        """Calls that were not."""
        self.since = math.inf
        """Since when the same connections to the same servers hold, on the monotonic clock. What
        changed them may have been a failover, and have lost the newest writes."""
        self.furthest = -math.inf
        """The largest difference, in seconds, of the Unix time of any server of the store minus the
        monotonic clock."""
        self.last_answer = -math.inf
        """When any part of it gave the last one, on the monotonic clock."""
        self.reachable = False
        """Whether the last call was answered, by every part of the store that was asked. One is
        made every second, whatever happens."""
        self.refusal: str | None = None
        """The command that streams need and every part of the store refuses, with the remedy, for
        operators; None when there is none. Tried every few seconds."""
        self.listening = False
        """Whether words are heard."""
        self.listening_since = math.inf
        """Since when, without a gap, on the monotonic clock."""

    @property
    def epoch_floor(self) -> int:
        """An upper bound of the epochs that the store can have issued by its clock; 0 if unknown.

        After a failover, the clock and the newest tickets may be behind those of the lost server.
        """
        if self.furthest == -math.inf:
            return 0
        return math.ceil((time.monotonic() + self.furthest) * 1000)


class Cluster(Protocol):
    """The store that all nodes share; `session` and `stream` are keys (see ids.key_of)."""

    node: str
    """The name of this process: unique, and new with every start."""
    lease: float
    """Seconds after `claim` or `renew` was sent in which a claim is alive."""

    health: Health

    def running(self, hear: Callable[[Word], None]) -> AbstractAsyncContextManager[object]:
        """Use it inside, once; `hear` is called on the loop, and must not raise.

        Raises StoreLost on entry when the store cannot be had; the text says why, what to do, and
        holds no password.
        """
        ...

    # Names: a stream_id is started once, on whatever node

    async def reserve(self, name: Name) -> Reserved | Name:
        """Take a name for a start, or return which other start has it.

        Its lease begins before other nodes can see the name: a name that is neither claimed nor
        renewed within it expires. A name without a log belongs to an abandoned start.
        """
        ...

    async def find(self, stream: str) -> Name | None:
        """Who has a name."""
        ...

    async def free(self, names: Sequence[Name]) -> Sequence[StoreLost | None]:
        """Undo `reserve` and `claim` for failed starts, in one trip for all.

        These starts can no longer claim. A stop that was applied to one of them applies to the next
        start with its name.
        """
        ...

    async def stop(self, stream: str) -> Name | None:
        """Have a stream cancelled on its node: said at once, and kept for its next heartbeat.

        None when nobody has the name: the next start that takes it learns of the stop then, if it
        comes within a minute.
        """
        ...

    async def unstop(self, stream: str) -> None:
        """Forget a stop that arrived before its stream; no effect when a start has the name."""
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
        """Own the session; returns those of `older`, oldest first. Starts its lease.

        The owner before is told (superseded), so are the older ones in the queue; and who watches
        (claimed). Raises Outdated for a ticket that a removal covers; Outrun for one not newer than
        the last claim, or when its log was closed before; Vacated when it was freed, or released
        before its log was closed; Busy for `reject` while there is a living owner or a queue, and
        for `enqueue` while there is a living owner or a living older one in the queue: then it is
        in the queue, its lease begins, and it asks again. An owner whose log is closed is none.
        After REGRESSED, claim with `interrupt`.
        """
        ...

    async def older(self, claim: Claim) -> Sequence[Living]:
        """Who claimed its session with a lower epoch and has not been released, oldest first."""
        ...

    async def renew(self, claims: Sequence[Claim]) -> Sequence[Renewed | StoreLost]:
        """Heartbeat, one trip for all: begin the leases anew, and hear what became of each.

        For whoever has not been released: owners, those in the queue, the superseded that tidy up,
        and names that are only reserved (their epoch is 0). A name that the store has lost is
        taken again, unless another start has it now. An empty heartbeat asks the store nothing.
        """
        ...

    async def release(self, claims: Sequence[Claim]) -> Sequence[StoreLost | None]:
        """The agent of each has stopped, or it leaves the queue: one trip for all. Nobody newer is
        touched; if it claims later (a request that was late), that is refused."""
        ...

    async def living(self, sessions: Sequence[str]) -> Sequence[Sequence[Living] | StoreLost]:
        """Who has claimed each session, or is in its queue, and has not been released; oldest
        first, the queue last. One trip for all."""
        ...

    async def remove(self, session: str, first: int, before: int, by: str = "") -> None:
        """Remove the streams of a session with `first` <= epoch < `before`.

        After that, claims with such an epoch are rejected, and logs with one are marked as removed.
        `by` is the stream that replaces them. Every node is notified (forgotten). Removals can be
        repeated and applied in any order.
        """
        ...

    async def is_removed(self, session: str, epoch: int) -> bool:
        """Return whether a removal of the session covers this epoch."""
        ...

    # Logs

    async def append(self, batches: Sequence[Batch]) -> Sequence[Appended | StoreLost]:
        """Append to logs of owners: one trip for all, each batch for itself, at most one of each
        log.

        A batch that begins after the end of the log is REGRESSED, frames that are there already
        are left out.
        """
        ...

    async def close(self, batches: Sequence[Batch]) -> Sequence[Appended | StoreLost]:
        """Write what is left of logs, whoever owns their sessions now: one trip for all, at most
        one batch of each log.

        A batch that `is_end` closes its log. From then on its stream is no owner: a `reject` or
        `enqueue` is not kept waiting. A long rest of a log goes in several batches, of which only
        the last one `is_end`. FENCED when the log was closed before by another node: other readers
        saw another end. REGRESSED as for `append`. Also for a stream that never claimed, once it
        has a ticket.
        """
        ...

    async def bury(self, batches: Sequence[Batch]) -> Sequence[bool | StoreLost]:
        """Close and release dead nodes' streams: one trip for all, each batch for itself.

        False when there is nothing to bury: it lives, is closed (then it is released only), or has
        come as far as `batch.last`.

        A batch without frames, from 0 to 0, releases a stream without frames; its log stays
        empty, and its name can be freed. False when the stream has frames.

        A batch may begin before the end of the log: who has read more of it than a store that
        lost writes puts it back. A stream that never claimed is given the batch's epoch.
        """
        ...

    async def read(
        self, cursors: Sequence[tuple[Name, int]], *, max_bytes: int = READ_BYTES
    ) -> Sequence[Tail | StoreLost | None]:
        """What each log holds after its cursor (a piece of it, when it is much); one trip for all.

        A piece ends with the batch that reaches `max_bytes`. None when nothing is known of the log
        (any more).
        """
        ...

    async def attend(self, names: Sequence[Name]) -> None:
        """Tell the nodes of these streams, for the time of one lease, that they are read here.

        Raises StoreLost when one of them is not told; the others are.
        """
        ...

    # Words

    async def watch(self, sessions: Sequence[str]) -> None:
        """Hear of every `claimed` and `released` of these sessions, until `unwatch`.

        Whoever claims or queues is told of `released` in its session without watching it.
        """
        ...

    async def unwatch(self, sessions: Sequence[str]) -> None:
        """Idempotent."""
        ...
