"""One live stream per session: claim first, wait outside, activate last.

    claim ──► PENDING ──wait (≤ cancel_timeout)──► activate ──► ACTIVE ──► SEALED ──► ENDED
                 │                                   │              ▲  the answer is kept
                 └───── revoke: the fence falls, the task is cancelled

A stream is retired when its task has ended, wherever it stands then. One that waits in the
session's queue (`on_conflict: enqueue`) has a task, but has claimed nothing yet.

Every critical section below is free of `await`: on one loop it is atomic, needs no lock, and may
run in a done-callback or in a `finally` that is being cancelled.

What holds at any moment:

1. At most one stream of a session is ACTIVE and not revoked, and it is the session's head.
2. No frame is admitted to a stream once a newer one has claimed its session.
3. A stream activates before the bound only when every older producer has ended.
4. The wait never exceeds the bound, whatever an old task does.
5. When all tasks have ended, nothing is left in the maps.
6. A stop is never lost, and never hits another stream.
7. The newest claim wins.
8. What waits in the queue has claimed nothing; it goes in turn, and its agent is told of everything
   that was asked before it.

A stream may take the place of an earlier one (`replaces`): that turn and every later one of the
session leave the history with the coming of the new question. Those that still live are superseded
first, as by any newer stream.

Every session has an owner, the empty one where nobody has a name. Ids are the client's own: two
owners may use the same ones, and neither can tell. What is kept here, and in the history, is kept
by key (see ids.key_of), so that somebody else's is not refused but unknown.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from loguru import logger

from jarvis_stream.agents.base import Agent, Turn
from jarvis_stream.cluster.base import (
    Busy,
    Name,
    OnConflict,
    Outdated,
    Outrun,
    StoreLost,
    Vacated,
    Word,
)
from jarvis_stream.errors import (
    AgentFailure,
    Answered,
    AnswerTooLong,
    Conflict,
    CursorAhead,
    Gone,
    NotFound,
    Overloaded,
    Refused,
    ShuttingDown,
    StreamFailure,
    StreamRevoked,
    TooMany,
    Unavailable,
)
from jarvis_stream.frames import Done, Ending, Failed
from jarvis_stream.history.base import (
    Begun,
    EndStatus,
    History,
    Removed,
    Span,
    TurnEnd,
    TurnRecord,
    TurnStart,
)
from jarvis_stream.ids import TraceParent, id_of, key_of, new_session_id
from jarvis_stream.journal import CURRENT_STREAM
from jarvis_stream.mirror import Mirror
from jarvis_stream.node import Entry, Node, Transcript, Watcher
from jarvis_stream.recurring import RecurringLog
from jarvis_stream.shares import FairSet
from jarvis_stream.shelf import Shelf
from jarvis_stream.stream import Delivery, State, Stream
from jarvis_stream.tally import Tally

MAX_ZOMBIES = 4
"""Undead streams a session may have before it takes no new one."""

MAX_TOMBSTONES = 10_000
"""Stops remembered for streams that have not come yet. Past it, the principal with the most of them
loses the oldest."""

LOOKUP_TIMEOUT = 0.25
"""Seconds the history may take to tell whether a stream_id was used before."""

MAX_DELETIONS = 1000
"""Deletions of sessions at a time; each is finished, even if its client has left."""

REMOVE_TIMEOUT = 5.0
"""Seconds that a shutdown waits for them."""

LOOK_AGAIN = 0.5
"""Seconds between two looks for streams that do not stop, while all are waited for."""

MAX_ATTEMPTS = 8
"""Starts of one request, when other starts had its stream_id before it and came to nothing."""

QUEUE_POLL = 0.5
"""Seconds between two questions whether it is a stream's turn, when other nodes have a say."""

_STATUS_OF_REASON: dict[str, EndStatus] = {
    "cancelled": "cancelled",
    "superseded": "superseded",
    "shutdown": "interrupted",
}


@dataclass(slots=True, kw_only=True)
class Opening:
    """A valid request for one answer."""

    prompt: str
    stream_id: str
    trace_id: str
    owner: str = ""
    """Whose answer it will be."""
    counts_as: str = ""
    """The name that the answer counts for while it lives; the owner if it is empty."""
    parent: TraceParent | None = None
    """The caller's place in the trace, when it told one."""
    session_id: str | None = None
    """None: the server mints one."""
    after: int = 0
    on_conflict: OnConflict = "interrupt"
    on_disconnect: str = "cancel"
    transport: str = "direct"
    """What it came over, for the metrics."""
    replaces: str | None = None
    """The stream whose turn, with all that follow it, the new one takes the place of."""
    replaces_from: int | None = None
    """Its epoch; see StreamRegistry.look_up."""
    may_be_known: bool = False
    """Whether the client brought the stream_id, so that this may be a repetition."""
    entry: Entry | None = None
    """Its claim, where other nodes have a say; see StreamRegistry.start."""

    @property
    def key(self) -> str:
        """See ids.key_of."""
        return key_of(self.owner, self.stream_id)


@dataclass(frozen=True, slots=True)
class Cancellation:
    """The result of a stop."""

    stream_id: str
    cancelled: bool
    """Whether the stream ended by being cancelled (False: it had ended in another way before)."""
    clean: bool
    """Whether its agent has really stopped; False when the bound ran out first."""
    cleanup_ms: int


@dataclass(slots=True)
class _Session:
    """The streams of one session that are not retired, oldest first."""

    last_epoch: int = 0
    head: Stream | None = None
    """The newest that has claimed it."""
    live: list[Stream] = field(default_factory=list)
    """Those that have claimed it."""
    queue: deque[Stream] = field(default_factory=deque)
    """Those that wait for their turn to."""

    @property
    def is_busy(self) -> bool:
        return bool(self.queue) or (self.head is not None and self.head.is_open)

    @property
    def streams(self) -> tuple[Stream, ...]:
        return (*self.live, *self.queue)


class Times:
    """How long things took, in seconds, since the process began."""

    def __init__(self) -> None:
        self.first_token = Tally((0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100))
        """From the start to its first token."""
        self.supersede_wait = Tally((0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 2, 3))
        """From the start of a stream that had predecessors until its agent could begin."""
        self.stop = Tally((0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10))
        """From a stop, a supersede or a departure until the agent, its upstream closed, ended."""
        self.delivery = Tally((0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1))
        """From the log to the readers' connections, of every so many turns of the loop one."""


class StreamRegistry:
    """Owns every stream and every stream's task."""

    def __init__(
        self,
        agent: Agent,
        history: History,
        *,
        cancel_timeout: float = 2.0,
        max_answer_bytes: int = 4 * 1024 * 1024,
        unwatched_timeout: float = 600.0,
        max_queue: int = 8,
        max_streams: int = 10_000,
        max_streams_each: int = 64,
        max_sessions_each: int = 10_000,
        max_seconds: float = 3600.0,
        last_epoch: int = 0,
        shelf: Shelf | None = None,
        clock: Callable[[], int] | None = None,
        trace: Callable[[Stream], None] | None = None,
        node: Node | None = None,
    ) -> None:
        """`cancel_timeout`, seconds, bounds every wait for an agent's cleanup.

        `last_epoch` is the highest that any session had before this process; `clock` gives the
        time in milliseconds and must never go back. `max_streams` may live at a time, and
        `max_streams_each` of one owner, who may have `max_sessions_each`; who has no name is not
        one owner. An answer may take `max_seconds`. `trace` is shown every stream once, when all
        of it is over. `node` is the way to the other processes that serve the same sessions.
        """
        self.history = history
        self._agent = agent
        self._cancel_timeout = cancel_timeout
        self._max_answer_bytes = max_answer_bytes
        self._unwatched_timeout = unwatched_timeout
        self._shelf = Shelf() if shelf is None else shelf  # an empty one is falsy
        self._clock = clock or _steady_clock()
        self._trace = trace
        self.node = node
        self._sessions: dict[str, _Session] = {}
        self._streams: dict[str, Stream] = {}
        self._tombstones = FairSet(MAX_TOMBSTONES)
        self._founding: dict[str, dict[asyncio.Future[None], str]] = {}
        """By owner: the keys of sessions that the history may not count yet. Each place is done
        when it does, or when its start has failed."""
        self._epoch_floor = last_epoch
        self._max_queue = max_queue
        self._max_streams = max_streams
        self._max_streams_each = max_streams_each
        self._max_sessions_each = max_sessions_each
        self._max_seconds = max_seconds
        self._of_owner: Counter[str] = Counter()
        """Live streams by the name that they count for; mostly their owner."""
        self._counted_as: dict[str, str] = {}
        """That name, by the key of each of them."""
        """How many of the streams are whose, of those who have a name."""
        self._watchers: dict[str, list[Watcher]] = {}
        self._bounds: dict[Stream, asyncio.TimerHandle] = {}
        """Of the revoked streams that have not stopped: when to give them up."""
        self._unsaved: set[asyncio.Future[None]] = set()
        """Of the answers that the history is keeping: `Stream.ended`."""
        self._deletions: set[asyncio.Task[bool]] = set()
        self._draining = False
        self.endings: Counter[str] = Counter()
        """How many streams ended, by finish reason or error code."""
        self.timeouts = 0
        """How many streams did not stop within the bound; of other nodes, those waited for."""
        self.starts: Counter[tuple[str, str]] = Counter()
        """How many requests came, by transport and what became of them: `started`, `attached`."""
        self.times = Times()
        self._delivery = Delivery(self.times.delivery)

    # What is here

    def __repr__(self) -> str:
        return (
            f"<StreamRegistry sessions={len(self._sessions)} streams={len(self._streams)}"
            f" kept={len(self._shelf)}{' draining' if self._draining else ''}>"
        )

    def __len__(self) -> int:
        """How many streams are not retired."""
        return len(self._streams)

    def __iter__(self) -> Iterator[Stream]:
        return iter(list(self._streams.values()))

    @property
    def draining(self) -> bool:
        """Whether new streams are refused because the server is shutting down."""
        return self._draining

    @property
    def shelf(self) -> Shelf:
        """The ended streams that can still be replayed."""
        return self._shelf

    def find(self, stream_id: str, owner: str = "") -> Stream | None:
        """A stream of this owner that lives or can still be replayed, unless it was removed."""
        stream = self._known(key_of(owner, stream_id))
        return None if stream is None or stream.deleted else stream

    def _known(self, key: str) -> Stream | None:
        return self._streams.get(key) or self._shelf.get(key)

    def knows(self, opening: Opening) -> bool:
        """Whether it repeats a request whose stream is here."""
        return opening.may_be_known and self.find(opening.stream_id, opening.owner) is not None

    def head(self, session_id: str, owner: str = "") -> Stream | None:
        """The newest stream that has claimed a session, while it has not ended."""
        session = self._sessions.get(key_of(owner, session_id))
        head = session.head if session else None
        if head is None or head.deleted or head.state is State.ENDED:
            return None
        return head

    async def active(self, session_ids: Sequence[str], owner: str = "") -> list[bool]:
        """Which sessions have a live stream, on whatever node as far as that can be asked."""
        abroad: Sequence[object] = [None] * len(session_ids)
        if self.node is not None:
            abroad = await self.node.heads([key_of(owner, each) for each in session_ids])
        return [
            there is not None or self.head(session_id, owner) is not None
            for session_id, there in zip(session_ids, abroad, strict=True)
        ]

    async def abroad(self, session_id: str, owner: str = "") -> Transcript | None:
        """What another node's live stream of a session has said, as far as that can be asked."""
        if self.node is not None:
            with suppress(StoreLost):
                (head,) = await self.node.heads([key_of(owner, session_id)])
                if head is not None:
                    return await self.node.transcript(head.name)
        return None

    async def look_up(self, opening: Opening) -> Opening:
        """What to `open`: what must be asked of the history first has been asked.

        Raises Gone for a repetition of a request whose stream is not here any more, Conflict when
        that stream was another session's, NotFound when what it replaces is no turn of the
        session. A history that cannot be asked in time does not stand in the way, unless it alone
        knows what is to be replaced: raises Unavailable.
        """
        if self.knows(opening):
            return opening
        if opening.may_be_known:
            await self._check_unused(opening)
        if opening.replaces is None or self._replaced(opening) is not None:
            return opening
        turn = await self.history.turn(key_of(opening.owner, opening.replaces))
        if turn is None or id_of(turn.session_id) != opening.session_id:
            raise _nothing_to_replace(opening)
        return replace(opening, replaces_from=turn.epoch)

    async def _check_unused(self, opening: Opening) -> None:
        turn = await self._recall(opening.key)
        if turn is None or self.knows(opening):  # the same request may have come twice at once
            return
        if opening.session_id not in (None, id_of(turn.session_id)):
            raise _others(opening.stream_id)
        raise _gone(opening.stream_id)

    @asynccontextmanager
    async def _room_for(self, opening: Opening) -> AsyncIterator[None]:
        """Start a stream inside: hold a place among the sessions that its owner may have.

        Raises TooMany. Concurrent first questions see each other: a session that the history does
        not count yet holds its place until it does.
        """
        owner = opening.owner
        key = key_of(owner, opening.session_id or new_session_id())
        is_first = owner and opening.replaces is None and key not in self._sessions
        if not is_first or self.knows(opening):
            yield
            return
        await self._check_room(opening, key)
        place = asyncio.get_running_loop().create_future()
        self._founding.setdefault(owner, {})[place] = key
        try:
            yield
        finally:
            stream = self._streams.get(opening.key)
            if stream is None or stream.begun is None or stream.begun.done():
                self._leave_place(owner, place)
            else:
                stream.begun.add_done_callback(lambda _: self._leave_place(owner, place))

    def _leave_place(self, owner: str, place: asyncio.Future[None]) -> None:
        places = self._founding[owner]
        del places[place]
        if not places:
            del self._founding[owner]
        place.set_result(None)

    async def _check_room(self, opening: Opening, key: str) -> None:
        """Raises TooMany for the first question of one session more than its owner may have.

        A history that cannot be read in time does not stand in the way.
        """
        owner, most = opening.owner, self._max_sessions_each
        until = time.monotonic() + LOOKUP_TIMEOUT
        while True:
            before = self._founding.get(owner, {})
            # Also those that the history may or may not have counted.
            places = dict(before)
            try:
                async with asyncio.timeout(LOOKUP_TIMEOUT):
                    count = await self.history.count(owner)
                    places |= self._founding.get(owner, {})
                    others = set(places.values()) - {key}
                    if count + len(others) < most or (
                        opening.session_id and await self.history.session(key) is not None
                    ):
                        return
            except (TimeoutError, Unavailable):
                return
            left = until - time.monotonic()
            if count >= most or left <= 0:
                raise TooMany(f"there are {most} sessions already: delete some first")
            pending = [place for place in places if not place.done()]
            if pending:
                await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)

    def _replaced(self, opening: Opening) -> int | None:
        """The epoch of the turn that is to be replaced, when it is known without being asked."""
        if opening.replaces is None or opening.replaces_from is not None:
            return opening.replaces_from
        stream = self.find(opening.replaces, opening.owner)
        if stream is None or stream.session_id != opening.session_id:
            return None
        return stream.epoch

    async def why_missing(self, stream_id: str, owner: str = "") -> Refused:
        """What to answer when `find` has nothing: Gone if the history knows it, else NotFound."""
        if await self._recall(key_of(owner, stream_id)) is not None:
            return _gone(stream_id)
        return NotFound(f"no stream {stream_id} is known here")

    async def _recall(self, key: str) -> TurnRecord | None:
        """What the history knows of a stream; nothing when it cannot tell in time.

        Bounded tightly: a socket reads no stop while it waits for this.
        """
        with suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(LOOKUP_TIMEOUT):
                return await self.history.turn(key)
        return None

    async def reach(self, stream_id: str, owner: str = "", after: int = 0) -> Stream | Mirror:
        """The stream to follow from `after` on, wherever it is.

        Raises Gone, NotFound, Unavailable.
        """
        stream = self.find(stream_id, owner)
        if stream is not None and not await self._is_removed_elsewhere(stream):
            return stream
        if self.node is not None:
            with _asking():
                mirror = await self.node.reach(key_of(owner, stream_id), after)
            if mirror is not None:
                return mirror
        missing = await self.why_missing(stream_id, owner)
        stream = self.find(stream_id, owner)  # it may have come meanwhile
        if stream is None:
            raise missing
        return stream

    async def _is_removed_elsewhere(self, stream: Stream) -> bool:
        """Whether another node has removed a stream that has ended here.

        The notification may be lost; of a stream that lives, the heartbeat learns it. Raises
        Unavailable.
        """
        if self.node is None or stream.state is not State.ENDED:
            return False
        with _asking():
            if not await self.node.is_removed(stream.session_key, stream.epoch):
                return False
        self._hide(stream.session_key, stream.epoch, stream.epoch + 1)
        return True

    # The verbs: start (look_up and open), cancel

    async def start(self, opening: Opening) -> Stream | Mirror:
        """Start an answer, or find the one that this very request started before.

        Raises what `look_up` and `open` raise; then nothing has happened.
        """
        known = self.find(opening.stream_id, opening.owner) if opening.may_be_known else None
        if self.node is None or (known and not await self._is_removed_elsewhere(known)):
            opening = await self.look_up(opening)
            async with self._room_for(opening):
                return self.open(opening)
        with _asking():
            for _ in range(MAX_ATTEMPTS):
                with suppress(Vacated):
                    return await self._start_among_others(self.node, opening)
            raise StoreLost("other starts with this stream_id fail repeatedly")

    async def _start_among_others(self, node: Node, opening: Opening) -> Stream | Mirror:
        """Raises Vacated when a start that had the stream_id came to nothing: to be repeated."""
        session_id = opening.session_id or new_session_id()
        taken = await self._reserve(node, opening, key_of(opening.owner, session_id))
        if isinstance(taken, Stream):
            return self.open(opening)
        if isinstance(taken, Name):
            return await self._attach(node, taken, opening)
        try:
            opening = await self.look_up(replace(opening, session_id=session_id))
            async with self._room_for(opening):
                return await self._enter(node, taken, opening)
        except BaseException as error:
            node.give_back(taken)
            if isinstance(error, Refused | Vacated):  # which a client may repeat at once
                await node.given_back(taken)
            raise

    async def _reserve(
        self, node: Node, opening: Opening, session_key: str
    ) -> Entry | Name | Stream:
        while True:
            taken = await node.reserve(session_key, opening.key, opening.trace_id)
            known = self.find(opening.stream_id, opening.owner)
            if known is not None:
                return known
            if taken is not None:
                return taken

    async def _attach(self, node: Node, name: Name, opening: Opening) -> Mirror:
        mirror = await node.attach_to(name, opening.after)
        if opening.session_id not in (None, id_of(name.session)):
            raise _others(opening.stream_id)
        if mirror is None:
            raise _gone(opening.stream_id)
        self.starts[opening.transport, "attached"] += 1
        return mirror

    async def _enter(self, node: Node, entry: Entry, opening: Opening) -> Stream:
        assert opening.session_id is not None
        _check_beginning(opening)
        key = key_of(opening.owner, opening.session_id)
        known = await self._newest_epoch(key) if node.may_lack_epochs else 0
        async with node.line(key):
            # Before it supersedes anybody; and again, when it has.
            self._refuse(opening.session_id, self._session(key), opening)
            floor = max(self._session(key).last_epoch, opening.replaces_from or 0, known)
            try:
                await node.claim(entry, opening.on_conflict, floor)
            except Busy as busy:
                raise _busy(opening.session_id, id_of(busy.by)) from None
            if entry.busy is not None and opening.replaces is not None:
                raise _no_waiting(opening.session_id)
            return self.open(replace(opening, entry=entry))

    async def _newest_epoch(self, session_key: str) -> int:
        """The highest epoch of a session in the history; 0 when there is none, or it is away."""
        with suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(LOOKUP_TIMEOUT):
                newest = await self.history.turns(session_key, limit=1)
                return max((turn.epoch for turn in newest), default=0)
        return 0

    def open(self, opening: Opening) -> Stream:
        """Start an answer, or find the one that this very request started before.

        One step, no await. Raises Conflict, CursorAhead, NotFound, TooMany, Unavailable; then
        nothing has happened. Where other nodes have a say, only `start` may call it.
        """
        known = self._known(opening.key)
        if known is not None:
            if known.deleted:
                raise _gone(opening.stream_id)
            if opening.session_id not in (None, known.session_id):
                raise _others(opening.stream_id)
            self.starts[opening.transport, "attached"] += 1
            return known
        _check_beginning(opening)
        session_id = opening.session_id or new_session_id()
        session_key = key_of(opening.owner, session_id)
        session = self._session(session_key)
        self._refuse(session_id, session, opening)
        if opening.replaces is not None:
            first = self._replaced(opening)
            if first is None:
                raise _nothing_to_replace(opening)
            opening = replace(opening, replaces_from=first)
            # Another node's clock may be ahead of ours.
            session.last_epoch = max(session.last_epoch, first)
        stream = Stream(
            session_id=session_id,
            stream_id=opening.stream_id,
            trace_id=opening.trace_id,
            epoch=self._next_epoch(session, opening.entry),
            owner=opening.owner,
            on_disconnect=opening.on_disconnect,
            replaces=opening.replaces,
            max_bytes=self._max_answer_bytes,
            unwatched_timeout=self._unwatched_timeout,
            keep=self._keep,
            revoked=self._set_bound,
            delivery=self._delivery,
            parent=opening.parent,
        )
        self._sessions[session_key] = session
        self._streams[stream.key] = stream
        if name := opening.counts_as or opening.owner:
            self._counted_as[stream.key] = name
            self._of_owner[name] += 1
        try:
            if _waits(session, opening):
                self._enqueue(session, stream, opening)
            else:
                self._claim(session, stream, opening)
        except BaseException:
            self._retire(stream)
            raise
        if self.node is not None and opening.entry is not None:
            self.node.hold(stream, opening.entry)
            if opening.replaces_from is not None:
                self._notify_removal(stream, opening.replaces_from, stream.epoch)
        self.starts[opening.transport, "started"] += 1
        stream.tell(
            f"stream_started trace={stream.trace_id} session={session_id}"
            f" owner={stream.owner or '-'}"
        )
        for watcher in tuple(self._watchers.get(session_key, ())):
            watcher.see(stream)
        if self._is_stillborn(stream, opening.entry):
            self._retire(stream)
            return stream
        # The callback, not the task's own `finally`: a task cancelled before its first step never
        # gets there.
        task = stream.loop.create_task(self._run(stream, opening.prompt))
        stream.bind(task)
        task.add_done_callback(partial(self._retire, stream))
        return stream

    def cancel(self, stream_id: str, owner: str = "") -> Coroutine[Any, Any, Cancellation]:
        """Stop a stream now; the result, awaited, tells whether its agent has stopped in time.

        Idempotent, and never touches another stream. A stream that has not come yet is
        remembered and will end as cancelled when it comes, but is unknown now: raises NotFound,
        and only when it is awaited where another node may have the stream.
        """
        stream = self._known(key_of(owner, stream_id))
        if stream is None and self.node is not None:
            return self._stop_elsewhere(self.node, stream_id, owner)
        if stream is None:
            self._tombstones.add(key_of(owner, stream_id))
            raise _not_here_to_stop(stream_id)
        self._stop_for_client(stream)
        return self._stopped(stream)

    def _stop_for_client(self, stream: Stream) -> bool:
        """Stop a stream now; one that still waits in the queue leaves the history, too."""
        if stream in self._session(stream.session_key).queue:
            self._remove_turn(stream)
        return stream.revoke(Done("cancelled"), "client_stop")

    async def cancel_for_operator(self, stream: Stream) -> Cancellation:
        """Stop a stream of this node; an unresponsive agent is cancelled once more."""
        if not stream.revoke(Done("cancelled"), "operator"):
            stream.cancel_again()
        return await self._stopped(stream)

    async def _stop_elsewhere(self, node: Node, stream_id: str, owner: str) -> Cancellation:
        asked_at = time.monotonic()
        with _asking():
            stopped = await node.stop(key_of(owner, stream_id), self._cancel_timeout)
        if stopped is None:
            raise _not_here_to_stop(stream_id)
        return Cancellation(
            stream_id=stream_id,
            cancelled=stopped.cancelled,
            clean=stopped.clean,
            cleanup_ms=round((time.monotonic() - asked_at) * 1000),
        )

    def hear(self, word: Word) -> None:
        """Do what another node has decided about a stream of this one. Idempotent."""
        stream = self._streams.get(word.stream)
        if word.kind == "forgotten":
            self._on_removed(word)
        elif word.kind == "cancel":
            if stream is None:
                self._tombstones.add(word.stream)
            else:
                self._stop_for_client(stream)
        elif word.kind == "superseded" and stream is not None:
            done = _superseded_by(id_of(word.by))
            if stream.revoke(done, "registry_new_stream") and word.rollback:
                self._remove_turn(stream)

    def _remove_turn(self, stream: Stream) -> None:
        """Remove one turn from the history, and from what can be replayed here."""
        self._hide(stream.session_key, stream.epoch, stream.epoch + 1)
        self.history.remove(_span_of(stream.session_key, stream.epoch))

    def _on_removed(self, word: Word) -> None:
        """Do what another node's removal says; that node changes the history."""
        done = _superseded_by(id_of(word.by)) if word.by else Done("cancelled")
        reason = "registry_new_stream" if word.by else "client_stop"
        for stream in reversed(self._hide(word.session, word.first, word.before)):
            stream.revoke(done, reason)
        self.history.drop(Span(word.session, word.first, word.before))

    def _hide(self, session_key: str, first: int, before: int) -> list[Stream]:
        """Let nobody replay a session's streams with an epoch from `first` on, and under `before`.

        Readers that follow one already see its end. Return those that are not retired, oldest
        first. Idempotent.
        """
        self._shelf.drop(session_key, first, before)
        streams = [
            stream
            for stream in self._session(session_key).streams
            if first <= stream.epoch < before
        ]
        for stream in streams:
            stream.forgotten = stream.deleted = True
        return streams

    def _notify_removal(self, stream: Stream, first: int, before: int) -> None:
        """Have the other nodes remove what a stream takes the place of."""
        if self.node is not None:
            self.node.remove_soon(stream.session_key, first, before, stream.key)

    def disown(self, stream: Stream) -> None:
        """Other readers have seen another end of it: nobody may see this one's any more."""
        stream.deleted = True
        self._shelf.remove(stream)

    def drain(self) -> None:
        """Take no new stream from now on; those that live go on. Idempotent."""
        self._draining = True

    async def settled(self) -> None:
        """Until every stream has ended, and the history has told whether its answer is kept.

        Not for the undead: they may never stop. Cancelling this wait touches no stream.
        """
        while True:
            live = [stream for stream in self if not (stream.undead or stream.stopped.done())]
            waiting = {stream.stopped for stream in live} | self._unsaved
            if not waiting:
                return
            await asyncio.wait(waiting, timeout=LOOK_AGAIN)

    async def shutdown(self) -> None:
        """Take no new stream, end every live one as `shutdown`, and wait for the agents' cleanup.

        Returns when all have stopped or the bound has run out, and the history has told of every
        answer whether it is kept.
        """
        self.drain()
        if self.node is not None:
            self.node.lose_mirrors()
        streams = list(self)
        for stream in reversed(streams):  # so that no end calls the next one up
            stream.revoke(Done("shutdown"), "shutdown")
        await self._outlive([stream for stream in streams if not stream.undead])
        if self._unsaved:  # the history bounds this
            await asyncio.wait(tuple(self._unsaved))
        if self._deletions:
            await asyncio.wait(tuple(self._deletions), timeout=REMOVE_TIMEOUT)
            for task in (left := tuple(self._deletions)):
                task.cancel()
            if left:
                await asyncio.wait(left)
        self._shelf.clear()

    async def delete(self, session_id: str, owner: str = "") -> bool:
        """Stop what a session does, and remove all of it; return whether there was anything.

        A message that comes meanwhile begins it again. The deletion is finished even if the caller
        is cancelled. Raises Unavailable when the store or the history could not be told in time;
        what was told stays removed, and the deletion may be repeated. Raises Overloaded for more
        deletions at a time than MAX_DELETIONS.
        """
        if len(self._deletions) >= MAX_DELETIONS:
            raise Overloaded(
                f"the server has {MAX_DELETIONS} deletions under way; retry later", retry_after=1
            )
        key = key_of(owner, session_id)
        if self.node is None:
            before = max(self._session(key).last_epoch + 1, self._clock())
            deletion = self._remove(key, before)
        else:
            deletion = self._remove_everywhere(self.node, key)
        task = asyncio.create_task(deletion)
        self._deletions.add(task)
        task.add_done_callback(self._on_deletion_done)
        await asyncio.wait([task])
        return task.result()

    def _on_deletion_done(self, task: asyncio.Task[bool]) -> None:
        self._deletions.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # The caller, who may have left, has the same in its answer.
            logger.warning("delete_failed error={}", type(error).__name__)

    async def _remove_everywhere(self, node: Node, key: str) -> bool:
        floor = self._session(key).last_epoch
        with suppress(TimeoutError, Unavailable):  # a store that lost writes may be behind it
            async with asyncio.timeout(LOOKUP_TIMEOUT):
                newest = await self.history.turns(key, limit=1)
            floor = max([floor, *(turn.epoch for turn in newest)])
        with _asking():
            before = await node.bound(key, floor)
        return await self._remove(key, before)

    def _remove(self, key: str, before: int) -> Coroutine[Any, Any, bool]:
        """Remove a session's turns with a lower epoch.

        When this returns, nothing of them can be read here; the rest is done in the coroutine.
        """
        streams = self._hide(key, 0, before)
        for stream in reversed(streams):
            stream.revoke(Done("cancelled"), "client_stop")
        return self._finish_removal(key, before, streams, self.history.remove(Span(key, 0, before)))

    async def _finish_removal(
        self, key: str, before: int, streams: list[Stream], removing: asyncio.Future[Removed]
    ) -> bool:
        live = len(streams)
        try:
            if self.node is not None:
                with _asking():
                    await self.node.remove(key, 0, before, seconds=self._cancel_timeout)
                    live += await self.node.stop_all(key, before, self._cancel_timeout)
        finally:  # whatever becomes of the store
            removed = await removing
            await self._outlive(streams)
        if not removed.accepted:
            raise Unavailable(
                "too many deletions wait for the database; retry later", retry_after=5
            )
        if not removed.saved:
            raise Unavailable("the database cannot be written now; retry later", retry_after=1)
        return removed.existed or live > 0

    # Who looks on

    def watch(self, session_id: str, watcher: Watcher, owner: str = "") -> None:
        """Show a watcher every stream of a session: those that live now, and all that come."""
        key = key_of(owner, session_id)
        watchers = self._watchers.setdefault(key, [])
        if watcher not in watchers:
            watchers.append(watcher)
        session = self._sessions.get(key)
        for stream in session.streams if session else ():
            if stream.state is not State.ENDED and not stream.deleted:
                watcher.see(stream)
        if self.node is not None:
            self.node.watch(key, watcher)

    def unwatch(self, session_id: str, watcher: Watcher, owner: str = "") -> None:
        """Show it no further ones. Idempotent."""
        key = key_of(owner, session_id)
        watchers = self._watchers.get(key, [])
        if watcher in watchers:
            watchers.remove(watcher)
            if not watchers:
                del self._watchers[key]
        if self.node is not None:
            self.node.unwatch(key, watcher)

    # The protocol: claim, wait, activate, retire

    def _claim(self, session: _Session, stream: Stream, opening: Opening) -> None:
        interrupted = session.head if session.head is not None and session.head.is_open else None
        if opening.replaces_from is not None:
            self._hide(stream.session_key, opening.replaces_from, stream.epoch)
        for waiting in reversed(tuple(session.queue)):
            waiting.revoke(_superseded_by(stream.stream_id), "registry_new_stream")
        self._take_over(session, stream)
        if interrupted is not None and opening.on_conflict == "rollback":
            self._remove_turn(interrupted)
            self._notify_removal(stream, interrupted.epoch, interrupted.epoch + 1)
        stream.begun = self._begin(stream, opening.prompt, opening.replaces_from)

    def _enqueue(self, session: _Session, stream: Stream, opening: Opening) -> None:
        stream.called = stream.loop.create_future()
        # It has claimed nothing: its frames must not make those of the head stale.
        if opening.entry is not None and opening.entry.busy is not None:
            epoch, position = opening.entry.busy.epoch, opening.entry.busy.position
        else:
            epoch = (session.head or session.queue[0]).epoch
            position = len(session.queue) + 1
        stream.speak_as(epoch)
        session.queue.append(stream)
        stream.begun = self._begin(stream, opening.prompt)
        stream.wait_in_line(position)

    def _next_epoch(self, session: _Session, entry: Entry | None) -> int:
        next_one = max(session.last_epoch + 1, self._clock())
        if entry is not None and entry.claim is not None:
            next_one = entry.claim.epoch
        session.last_epoch = max(session.last_epoch, next_one)
        return next_one

    def _session(self, key: str) -> _Session:
        """A session's streams; a new one is nowhere yet."""
        return self._sessions.get(key) or _Session(last_epoch=self._epoch_floor)

    def _take_over(self, session: _Session, stream: Stream) -> None:
        previous, session.head = session.head, stream
        session.live.append(stream)
        if previous is not None:
            previous.revoke(_superseded_by(stream.stream_id), "registry_new_stream")

    def _begin(
        self, stream: Stream, prompt: str, replaces_from: int | None = None
    ) -> asyncio.Future[Begun]:
        return self.history.begin(
            TurnStart(
                session_id=stream.session_key,
                stream_id=stream.key,
                epoch=stream.epoch,
                prompt=prompt,
                created_at=time.time(),
                trace_id=stream.trace_id,
                replaces_from=replaces_from,
            ),
            stream,
        )

    def _refuse(self, session_id: str, session: _Session, opening: Opening) -> None:
        if self._draining:
            raise ShuttingDown("the server is shutting down", retry_after=1)
        # What it supersedes makes room for it.
        leaving = (
            0
            if opening.on_conflict == "enqueue"
            else sum(not stream.undead for stream in session.streams)
        )
        if len(self._streams) - leaving >= self._max_streams:
            raise Overloaded(
                f"the server is at capacity (max_streams={self._max_streams}); retry later",
                retry_after=1,
            )
        name = opening.counts_as or opening.owner
        if name and self._of_owner[name] - leaving >= self._max_streams_each:
            raise TooMany(
                f"{self._max_streams_each} answers of yours are already running (the limit);"
                " stop one, or retry later",
                retry_after=1,
            )
        if sum(stream.undead for stream in session.live) >= MAX_ZOMBIES:
            raise Unavailable(
                f"session {session_id} has {MAX_ZOMBIES} streams that do not stop",
                retry_after=self._cancel_timeout,
            )
        if opening.on_conflict == "reject" and session.is_busy:
            raise _busy(session_id, (session.head or session.queue[0]).stream_id)
        if opening.on_conflict == "enqueue" and session.is_busy and opening.replaces is not None:
            raise _no_waiting(session_id)
        if opening.on_conflict == "enqueue" and len(session.queue) >= self._max_queue:
            raise TooMany(
                f"session {session_id} has {self._max_queue} messages waiting already",
                retry_after=1,
            )

    def _call_up(self, session: _Session) -> None:
        """Let the first in the queue claim the session, when nobody has it."""
        if session.queue and not (session.head is not None and session.head.is_open):
            stream = session.queue.popleft()
            stream.speak_as(stream.epoch)
            self._take_over(session, stream)
            if stream.called is not None and not stream.called.done():
                stream.called.set_result(None)
            self._move_up(session, 0)

    @staticmethod
    def _move_up(session: _Session, place: int) -> None:
        """Tell those from `place` on that one before them has left the queue."""
        for position, stream in enumerate(tuple(session.queue)[place:], start=place + 1):
            if session.head is not None:
                stream.speak_as(session.head.epoch)  # an older epoch would be stale by now
            stream.wait_in_line(position)

    async def _stand_in_line(self, stream: Stream, node: Node) -> None:
        """Wait for its turn in a queue that all nodes share, and take over."""
        position = 0
        while True:
            await node.stirred(stream.session_key, QUEUE_POLL)
            try:
                await node.claim_again(stream)
                break
            except Busy as busy:
                if busy.position != position:
                    position = busy.position
                    stream.speak_as(busy.epoch)  # an older epoch would be stale by now
                    stream.wait_in_line(position)
            except StoreLost:
                pass
            except Outrun as outrun:
                stream.revoke(_superseded_by(id_of(outrun.by)), "registry_new_stream")
                raise StreamRevoked from None
            except Outdated:
                self._on_late_turn(stream)
        if not stream.is_open:
            raise StreamRevoked
        session = self._sessions[stream.session_key]
        session.queue.remove(stream)
        stream.speak_as(stream.epoch)
        self._take_over(session, stream)
        assert stream.called is not None
        stream.called.set_result(None)

    async def _wait(self, stream: Stream) -> bool:
        """Outlast all older streams of the session: until they have stopped, at most the bound.

        Whether there were any of other nodes.
        """
        older = self._older(stream)
        abroad = self.node is not None and self.node.has_older(stream)
        if not older and not abroad:
            return False
        claimed_at = time.monotonic()
        undead_ones = await self._outlive(older)
        if self.node is not None and not await self.node.outlast(
            stream, claimed_at + self._cancel_timeout
        ):
            self.timeouts += 1
        self.times.supersede_wait.add(time.monotonic() - claimed_at)
        for undead in undead_ones:
            stream.logger.warning(
                "prev_stream_timeout_on_cancel session={} trace={} timeout_ms={}",
                stream.session_id,
                undead.trace_id,
                round(self._cancel_timeout * 1000),
            )
        for previous in older:
            if previous.stopped.done():
                stream.tell(
                    f"prev_stream_finished_cleanly session={stream.session_id}"
                    f" trace={previous.trace_id}"
                )
        return abroad

    def _older(self, stream: Stream) -> list[Stream]:
        """All of them, not only the head's predecessor: that one may itself still be waiting."""
        session = self._sessions[stream.session_key]
        return [other for other in session.live if other.epoch < stream.epoch]

    async def _outlive(self, streams: list[Stream]) -> list[Stream]:
        """Wait until all have stopped, at most the bound; return those that have not: the undead.

        `asyncio.wait` on their futures neither raises what they raised, nor cancels them, nor
        overruns; and cancelling this wait touches none of them.
        """
        waiting = [stream.stopped for stream in streams if not stream.stopped.done()]
        if waiting:
            await asyncio.wait(waiting, timeout=self._cancel_timeout)
        late = [stream for stream in streams if not stream.stopped.done()]
        for stream in late:
            self._give_up(stream)
        return late

    def _set_bound(self, stream: Stream) -> None:
        """See to it that a revoked stream stops, or is told of: nobody may be waiting for it."""
        self._bounds[stream] = stream.loop.call_later(self._cancel_timeout, self._give_up, stream)

    def _give_up(self, stream: Stream) -> None:
        if stream.give_up():
            self.timeouts += 1
            stream.logger.warning(
                "stream_timeout_on_cancel trace={} reason={} session={} timeout_ms={}",
                stream.trace_id,
                stream.revoked_for,
                stream.session_id,
                round(self._cancel_timeout * 1000),
            )

    def _retire(self, stream: Stream, task: asyncio.Task[None] | None = None) -> None:
        """Forget a stream whose task has ended. Synchronous and idempotent."""
        if stream.stopped.done():
            return
        if task is not None and not task.cancelled() and (error := task.exception()) is not None:
            stream.end(Failed.of(AgentFailure()))
            stream.logger.opt(exception=error).error("stream_task_failed trace={}", stream.trace_id)
        if stream.end(Done("shutdown")):
            # The loop is going down around us: whoever cancelled the task was not the registry.
            stream.revoked_for = "shutdown"
        stream.undead = False
        stream.stopped.set_result(None)
        stream.release()
        self._forget(stream)
        if not stream.deleted:
            self._shelf.put(stream)
        ending = stream.ending
        assert ending is not None
        self.endings[ending.code if isinstance(ending, Failed) else ending.finish_reason] += 1
        if stream.first_token_at:
            self.times.first_token.add(stream.first_token_at - stream.started_at)
        if stream.revoked_at:
            self._bounds.pop(stream).cancel()
            self.times.stop.add(time.monotonic() - stream.revoked_at)
        lasted = round((time.monotonic() - stream.started_at) * 1000)
        stream.tell(f"stream_end trace={stream.trace_id} duration_ms={lasted}")
        if self._trace is not None:
            try:
                self._trace(stream)
            except Exception:
                stream.logger.exception("stream_not_traced trace={}", stream.trace_id)

    def _forget(self, stream: Stream) -> None:
        """Remove each map entry, but only if it is still this stream's."""
        if self._streams.get(stream.key) is stream:
            del self._streams[stream.key]
            if name := self._counted_as.pop(stream.key, ""):
                self._of_owner[name] -= 1
                if not self._of_owner[name]:
                    del self._of_owner[name]
        session = self._sessions.get(stream.session_key)
        if session is None:
            return
        if stream in session.live:
            session.live.remove(stream)
        if session.head is stream:
            session.head = None
        if not session.streams:
            # Claims faster than the clock leave an epoch in the future: none may go back below it.
            if session.last_epoch >= self._clock():
                self._epoch_floor = max(self._epoch_floor, session.last_epoch)
            del self._sessions[stream.session_key]

    # One stream's task

    async def _run(self, stream: Stream, prompt: str) -> None:
        own_task = asyncio.current_task()
        ids = {
            "trace": stream.trace_id,
            "session": stream.session_id,
            "stream": stream.stream_id,
        }
        CURRENT_STREAM.set(ids)
        # What the agent logs carries the ids too.
        with logger.contextualize(**ids):
            try:
                if self.node is not None:
                    begun = await self._begin_among_others(stream, prompt, self.node)
                else:
                    if stream.called is not None:
                        await asyncio.shield(stream.called)
                    await self._wait(stream)
                    stream.activate()
                    begun = await self._told(stream, prompt, again=stream.called is not None)
                if begun.removed:
                    self._on_late_turn(stream)
                if begun.taken:
                    raise Answered
                turn = Turn(
                    prompt=prompt,
                    messages=begun.messages,
                    session_id=stream.session_id,
                    stream_id=stream.stream_id,
                    trace_id=stream.trace_id,
                    traceparent=str(stream.place),
                    owner=stream.owner,
                )
                too_long = stream.loop.call_later(self._max_seconds, self._overrun, stream)
                try:
                    stream.end(await stream.produce(self._agent(turn)))
                finally:
                    too_long.cancel()
            except asyncio.CancelledError as error:
                if stream.is_open and own_task is not None and not own_task.cancelling():
                    # Nobody cancelled this task: the agent let a cancellation of its own escape.
                    self._fail(stream, AgentFailure(), error)
                    return
                stream.tell(f"stream_generator_cancelled trace={stream.trace_id}")
                raise
            except StreamFailure as error:
                self._fail(stream, error, error)
            except BaseException as error:
                # A task passes KeyboardInterrupt and SystemExit on to the event loop, which would
                # end the server. A GeneratorExit outside of the task's own steps is not the
                # agent's: the coroutine is being closed.
                if isinstance(error, GeneratorExit) and _current_task() is not own_task:
                    raise
                self._fail(stream, AgentFailure(), error)
            finally:
                stream.tell(f"stream_cleanup trace={stream.trace_id}")

    def _on_late_turn(self, stream: Stream) -> None:
        """End a stream whose turn comes after its removal. Raises StreamRevoked."""
        self._hide(stream.session_key, stream.epoch, stream.epoch + 1)
        stream.revoke(Done("cancelled"), "client_stop")
        raise StreamRevoked

    async def _begin_among_others(self, stream: Stream, prompt: str, node: Node) -> Begun:
        """Where others go on when this process dies, frame 1 says that the question is kept."""
        if stream.called is not None:
            await self._stand_in_line(stream, node)
        abroad = await self._wait(stream)
        for one in await node.rolled_back(stream):
            self.history.remove(_span_of(one.name.session, one.epoch))
            self._notify_removal(stream, one.epoch, one.epoch + 1)
        begun = await self._told(stream, prompt, again=abroad or stream.called is not None)
        if begun.removed:
            self._on_late_turn(stream)
        stream.activate()
        return begun

    async def _told(self, stream: Stream, prompt: str, *, again: bool) -> Begun:
        """What the agent may know; `again`, when answers before it have ended meanwhile."""
        assert stream.begun is not None
        # The history and the registry wait for these too: the stream's end must not cancel them.
        begun = await asyncio.shield(stream.begun)
        if again and not begun.taken:
            begun = await asyncio.shield(self._begin(stream, prompt))
        return begun

    @staticmethod
    def _overrun(stream: Stream) -> None:
        failure = AnswerTooLong("The answer exceeded the time limit of this server.")
        stream.revoke(Failed.of(failure), "too_long")

    def _fail(self, stream: Stream, failure: StreamFailure, cause: BaseException) -> None:
        ending = Failed.of(failure)
        try:
            stream.logger.opt(exception=cause).error(
                "stream_generator_exception trace={} code={}", stream.trace_id, ending.code
            )
        finally:
            stream.end(ending)

    def _keep(self, stream: Stream, ending: Ending) -> asyncio.Future[bool]:
        self._make_way(stream)
        kept = self.history.finish(stream.key, turn_end(ending, stream.ended_at))
        if not kept.done():
            self._unsaved.add(stream.ended)
            stream.ended.add_done_callback(self._unsaved.discard)
        return kept

    def _make_way(self, stream: Stream) -> None:
        session = self._sessions.get(stream.session_key)
        if session is None or not session.queue:
            return
        if stream in session.queue:
            place = session.queue.index(stream)
            del session.queue[place]
            if self.node is None:
                self._move_up(session, place)
        elif self.node is None:
            # Not in this step: whoever ends this stream may be about to claim the session.
            asyncio.get_running_loop().call_soon(self._call_up, session)

    async def _stopped(self, stream: Stream) -> Cancellation:
        asked_at = time.monotonic()
        late = await self._outlive([stream])
        cleanup_ms = round((time.monotonic() - asked_at) * 1000)
        if not stream.ended.done():  # the history bounds this
            await asyncio.wait([stream.ended])
        ending = stream.ending
        return Cancellation(
            stream_id=stream.stream_id,
            cancelled=isinstance(ending, Done) and ending.finish_reason == "cancelled",
            clean=not late,
            cleanup_ms=cleanup_ms,
        )

    # Stops that came before their stream

    def _is_stillborn(self, stream: Stream, entry: Entry | None) -> bool:
        """Whether it was over before it came: stopped, or outrun by another node's newer one."""
        if self._is_buried(stream.key) or (entry is not None and entry.stopped):
            return self._stop_for_client(stream)
        if entry is not None and entry.outrun_by is not None:
            return stream.revoke(_superseded_by(id_of(entry.outrun_by)), "registry_new_stream")
        return False

    def _is_buried(self, key: str) -> bool:
        return self._tombstones.discard(key)


def turn_end(ending: Ending, ended_at: float | None) -> TurnEnd:
    """An ending as the history tells it."""
    if isinstance(ending, Failed):
        return TurnEnd(
            status="error",
            error_code=ending.code,
            error=ending.error,
            retryable=ending.retryable,
            ended_at=ended_at,
        )
    return TurnEnd(
        status=_STATUS_OF_REASON.get(ending.finish_reason, "complete"),
        finish_reason=ending.finish_reason,
        usage=ending.usage,
        ended_at=ended_at,
    )


def _current_task() -> asyncio.Task[Any] | None:
    """Return the running task; None outside of an event loop."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _waits(session: _Session, opening: Opening) -> bool:
    if opening.entry is not None:
        return opening.entry.busy is not None
    return opening.on_conflict == "enqueue" and session.is_busy


_store_failures = RecurringLog()


@contextmanager
def _asking() -> Iterator[None]:
    """Where the store that the nodes share is asked for a client."""
    try:
        yield
    except StoreLost as error:
        _store_failures.log("WARNING", "store_lost error={}", error)
        raise Unavailable(
            "the server cannot reach the shared Redis; retry later", retry_after=1
        ) from error


def _span_of(session_key: str, epoch: int) -> Span:
    return Span(session_key, epoch, epoch + 1)


def _superseded_by(stream_id: str) -> Done:
    return Done("superseded", superseded_by=stream_id or None)


def _check_beginning(opening: Opening) -> None:
    if opening.after:
        raise CursorAhead(
            f"after={opening.after} is past the end of stream {opening.stream_id},"
            " which has not begun"
        )


def _busy(session_id: str, stream_id: str) -> Conflict:
    return Conflict(f"session {session_id} is busy with stream {stream_id}")


def _no_waiting(session_id: str) -> Conflict:
    return Conflict(
        f"session {session_id} is busy, and what replaces a turn cannot wait behind it:"
        " send it with another on_conflict, or later"
    )


def _not_here_to_stop(stream_id: str) -> NotFound:
    return NotFound(
        f"no stream {stream_id} is known here; should it still come, it ends as cancelled"
    )


def _others(stream_id: str) -> Conflict:
    return Conflict(f"stream_id {stream_id} belongs to another session")


def _nothing_to_replace(opening: Opening) -> NotFound:
    return NotFound(f"replaces: the session has no stream {opening.replaces}")


def _gone(stream_id: str) -> Gone:
    return Gone(f"stream {stream_id} has ended and can no longer be replayed")


def _steady_clock() -> Callable[[], int]:
    """Wall-clock milliseconds, carried on by the monotonic clock: no NTP step turns them back."""
    offset = time.time_ns() - time.monotonic_ns()
    return lambda: (time.monotonic_ns() + offset) // 1_000_000
