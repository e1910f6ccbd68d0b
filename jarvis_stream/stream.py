"""One answer: an agent's task fills a numbered log, and any number of followers read it.

    agent --yields--> append --> FrameLog --> Follower --> a connection's Reader

The agent never waits for a reader, a reader never waits for another, and nobody polls: what was
appended during one turn of the event loop is handed, joined, to every follower at its end.

A stream is PENDING (claimed, waiting for its predecessors), ACTIVE (its agent may append), SEALED
(how it ends is decided, its text is final, the history is keeping it) or ENDED (its terminal frame
is in the log and nothing follows it). Its task may outlive all of them: that is the agent's
cleanup, and `stopped` tells when it is over.
"""

from __future__ import annotations

import asyncio
import enum
import math
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Final, Protocol

from loguru import logger

from jarvis_stream import journal
from jarvis_stream.agents.base import Piece
from jarvis_stream.errors import CoordinationLost, CursorAhead, StreamRevoked
from jarvis_stream.framelog import FrameLog
from jarvis_stream.frames import (
    AGENT_REASONS,
    Done,
    Ending,
    Failed,
    FrameEncoder,
    Status,
    check_structure,
    json_copy,
    well_formed,
)
from jarvis_stream.history.base import Begun
from jarvis_stream.ids import TraceParent, key_of, new_span_id
from jarvis_stream.stacks import Place, waiting_at
from jarvis_stream.tally import Tally

if TYPE_CHECKING:
    from loguru import Logger

TURN_BUDGET = 0.005
"""Seconds an agent that never waits may hold the event loop."""

DELAYS_EVERY = 16
"""Of so many turns of the loop one is timed: looking at the clock costs too."""

MAX_PIECE_CHARS = 64 * 1024
"""Characters of a token's frame; a longer piece is cut. As JSON they are at most six times as many
bytes, so every frame is shorter than 512 KiB."""

STREAM_BYTES = 3 * 1024
"""About what an ended stream takes in memory beside its log."""

LARGEST_OFFER = 128 * 1024
"""Bytes handed to a reader at once; of more it takes piece by piece from the log what it has room
for."""


RENEWAL_TIMEOUT: Final = 60.0
"""Seconds that a stream with on_disconnect "cancel" continues after the sign-in of its last reader
expired."""


class Reader(Protocol):
    """Where a follower's frames go. Nothing here may raise."""

    def take(self, frames: bytes) -> bool:
        """Take whole frames at once; False when there is no room, and nothing was taken."""
        ...

    def take_last(self, frames: bytes) -> bool:
        """The same; after these frames there are no more of this stream."""
        ...

    def fell_behind(self, follower: Follower) -> None:
        """The log holds more for the follower: call its `catch_up` as long as there is room."""
        ...

    def delivered(self, follower: Follower) -> None:
        """The terminal frame was taken; the follower has closed itself."""
        ...

    def lost(self, follower: Follower) -> None:
        """What it follows cannot be read here any more: its client shall try again, elsewhere."""
        ...


class State(enum.Enum):
    """Where a stream stands; it only ever moves forward."""

    PENDING = "pending"
    ACTIVE = "active"
    SEALED = "sealed"
    ENDED = "ended"


class Followed(Protocol):
    """What readers follow: a stream of this process, or the mirror of another one's."""

    session_id: str
    stream_id: str
    trace_id: str
    epoch: int
    state: State

    @property
    def seq(self) -> int:
        """The number of the last frame there is to read."""
        ...

    def follow(self, after: int, reader: Reader) -> Follower:
        """See Stream.follow."""
        ...

    def unfollow(self, follower: Follower) -> None:
        """Let a reader go. Idempotent."""
        ...

    def read(self, after: int) -> tuple[int, bytes]:
        """Some frames after `after`: the last one's seq, and the bytes."""
        ...


class Delivery:
    """Hands what streams append during a turn of the event loop to their readers at its end.

    All streams of a loop share one, and one callback: to schedule and run one for each would cost
    a fifth of a frame's way.
    """

    __slots__ = ("_delays", "_since", "_turns", "streams")

    def __init__(self, delays: Tally | None = None) -> None:
        """`delays` counts how long frames take from the log to their readers' connections."""
        self.streams: list[Stream] = []
        """Those whose `deliver` is to be called at the end of this turn."""
        self._delays = delays
        self._turns = 0
        self._since = 0.0

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """The first stream of a turn is there."""
        if self._turns % DELAYS_EVERY == 0:
            self._since = time.monotonic()
        loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        streams, self.streams = self.streams, []
        for stream in streams:
            try:
                stream.deliver()
            except Exception:
                stream.logger.exception("stream_not_delivered trace={}", stream.trace_id)
        if self._delays is not None and self._turns % DELAYS_EVERY == 0:
            self._delays.add(time.monotonic() - self._since)
        self._turns += 1


# Python 3.11 finds a member by a call, which costs as much as all the rest of the fence.
_PENDING, _ACTIVE, _SEALED, _ENDED = State

_NEVER = math.inf
_STOP = Done()


class Stream:
    """One answer being generated. Made by the registry, and only by it."""

    __slots__ = (
        "_closing",
        "_delivery",
        "_encoder",
        "_followers",
        "_fresh",
        "_keep",
        "_log",
        "_progress_at",
        "_progress_seq",
        "_revoked",
        "_task",
        "_turn_noted",
        "_unwatched",
        "activated_at",
        "begun",
        "called",
        "deadline",
        "deleted",
        "deserted",
        "ended",
        "ended_at",
        "ending",
        "epoch",
        "first_token_at",
        "forgotten",
        "key",
        "loop",
        "on_disconnect",
        "owner",
        "parent",
        "place",
        "replaces",
        "revoked_at",
        "revoked_for",
        "session_id",
        "session_key",
        "started_at",
        "state",
        "stopped",
        "stream_id",
        "trace_id",
        "undead",
        "unwatched_timeout",
    )

    def __init__(
        self,
        *,
        session_id: str,
        stream_id: str,
        trace_id: str,
        epoch: int,
        owner: str = "",
        on_disconnect: str = "cancel",
        replaces: str | None = None,
        max_bytes: int = 4 * 1024 * 1024,
        unwatched_timeout: float = 600.0,
        keep: Callable[[Stream, Ending], asyncio.Future[bool]] | None = None,
        revoked: Callable[[Stream], None] | None = None,
        delivery: Delivery | None = None,
        parent: TraceParent | None = None,
    ) -> None:
        """`keep` is called once, when the text is final; the terminal frame waits for its future.

        The future never raises, and tells whether the answer is kept. `revoked` is called when it
        is, and has to see to it that its task ends. `delivery` is best shared with the other
        streams of the loop. `parent` is the place in the trace that asked for it.
        """
        self.session_id = session_id
        self.stream_id = stream_id
        self.owner = owner
        """Whose it is; empty where nobody has a name."""
        # The ids are the client's own, and may be another one's too. These are not.
        self.key = key_of(owner, stream_id)
        self.session_key = key_of(owner, session_id)
        self.trace_id = trace_id
        self.epoch = epoch
        self.on_disconnect = on_disconnect
        self.replaces = replaces
        """The stream whose place it takes in the session."""
        self.unwatched_timeout = unwatched_timeout
        self.state = _PENDING
        self.ending: Ending | None = None
        self.ended_at: float | None = None
        """When how it ends was decided, in seconds since the epoch."""
        self.revoked_for: str | None = None
        self.undead = False
        self.forgotten = False
        """Whether the history is not to keep it (rolled back, replaced, or its session deleted)."""
        self.deleted = False
        """Whether nobody may replay it any more."""
        self.deadline = _NEVER
        """When it has its session no longer unless this is put off, on the monotonic clock."""
        self.deserted: Callable[[Stream], None] | None = None
        """Told, in the place of `abandon`, when nobody here reads it: others may, elsewhere."""
        # On the monotonic clock; 0.0 is "not yet".
        self.started_at = time.monotonic()
        self.activated_at = 0.0
        self.first_token_at = 0.0
        self._progress_seq = 0
        self._progress_at = self.started_at
        self.revoked_at = 0.0
        self.parent = parent
        self.place = TraceParent(trace_id, new_span_id(), parent is None or parent.sampled)
        self.loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self.loop.create_future()
        self.stopped: asyncio.Future[None] = self.loop.create_future()
        self.begun: asyncio.Future[Begun] | None = None
        self.called: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._encoder = FrameEncoder(stream_id, trace_id, epoch)
        self._log = FrameLog(self._encoder, max_bytes)
        self._followers: tuple[Follower, ...] = ()
        self._fresh: list[str | bytes] = []
        self._turn_noted = False
        self._unwatched: asyncio.TimerHandle | None = None
        self._keep = keep
        self._revoked = revoked
        self._delivery = delivery or Delivery()

    def __repr__(self) -> str:
        return (
            f"<Stream {self.stream_id} epoch={self.epoch} {self.state.value} seq={self.seq}"
            f" followers={len(self._followers)}{' undead' if self.undead else ''}>"
        )

    # What it is

    @property
    def seq(self) -> int:
        """The number of the last frame."""
        return self._log.seq

    @property
    def is_open(self) -> bool:
        """Whether how it ends is still undecided."""
        return self.state is _PENDING or self.state is _ACTIVE

    @property
    def text(self) -> str:
        """The answer so far."""
        return self._log.text

    @property
    def text_size(self) -> int:
        """The bytes (UTF-8) of the answer so far."""
        return self._log.text_size

    def text_from(self, start: int, /) -> str:
        """The text after byte `start`, which is 0 or something `text_size` once was."""
        return self._log.text_from(start)

    @property
    def size(self) -> int:
        """About the bytes it takes in memory."""
        return STREAM_BYTES + self._log.held

    @property
    def logger(self) -> Logger:
        """A logger that knows whose lines it writes."""
        return logger.bind(trace=self.trace_id, session=self.session_id, stream=self.stream_id)

    def tell(self, text: str) -> None:
        """Log a line of its life, with its ids."""
        journal.tell(text, self.trace_id, self.session_id, self.stream_id)

    def note_progress(self, now: float) -> None:
        """Note whether there are new frames since the last call (see ProgressSampler)."""
        if self._log.seq != self._progress_seq:
            self._progress_seq = self._log.seq
            self._progress_at = now

    def silence(self, now: float) -> float:
        """Seconds since its last frame, or since its start; as precise as the sampling is."""
        self.note_progress(now)
        return now - self._progress_at

    @property
    def stack(self) -> list[Place]:
        """The places at which its task waits, outermost first."""
        return [] if self._task is None else waiting_at(self._task)

    @property
    def followers(self) -> int:
        """How many readers it has."""
        return len(self._followers)

    # Its life: bind, activate, append, end

    def bind(self, task: asyncio.Task[None]) -> None:
        """Tell which task produces this stream; revoking cancels it."""
        self._task = task

    def speak_as(self, epoch: int) -> None:
        """Let the frames to come carry this epoch; only while there is no token."""
        self._encoder = FrameEncoder(self.stream_id, self.trace_id, epoch)
        self._log.encode_with(self._encoder)

    def wait_in_line(self, position: int) -> None:
        """Tell the readers how many are to go first, this one included."""
        self._think()
        self._add_frame(
            self._encoder.status(self.seq + 1, Status("queued", position=position)), always=True
        )

    def activate(self) -> None:
        """Let the agent speak: frame 1. Raises StreamRevoked when it has ended meanwhile."""
        if self.state is not _PENDING:
            raise StreamRevoked
        self.state = _ACTIVE
        self.activated_at = time.monotonic()
        waited = round(1000 * (self.activated_at - self.started_at))
        self.tell(f"stream_activated trace={self.trace_id} wait_ms={waited}")
        self._think()

    def append(self, piece: str | Status) -> None:
        """Number, encode and log one piece, and wake the followers at the end of this turn.

        This is the fence: the state is looked at in the same step that logs the frame. Raises
        StreamRevoked when the stream is not ACTIVE, AnswerTooLong past the bound, TypeError for
        what cannot be encoded. An empty text is no frame.
        """
        if self.state is not _ACTIVE:
            raise StreamRevoked
        if not self._turn_noted:
            self._note_turn()  # for an empty text too: whoever yields only those holds the loop
            if self.deadline is not _NEVER and time.monotonic() > self.deadline:
                self.lapse()
                raise StreamRevoked
        if type(piece) is str:
            if not 0 < len(piece) <= MAX_PIECE_CHARS:
                self._append_in_parts(piece)
                return
            try:
                self._log.add_token(piece)
            except UnicodeEncodeError:
                piece = well_formed(piece)
                self._log.add_token(piece)
            if not self.first_token_at:
                self._note_first_token()
            if self._followers:
                self._fresh.append(piece)
        elif isinstance(piece, Status):
            check_structure("a status", {"status": piece.status, **piece.fields})
            self._add_frame(self._encoder.status(self.seq + 1, piece))
        elif isinstance(piece, str):  # a subclass, which may show itself as something else
            self.append(str.__str__(piece))
        else:
            raise TypeError(f"an agent yields str, Status or Done, not {type(piece).__name__}")

    def _append_in_parts(self, piece: str) -> None:
        """Append an empty piece, or one that is too long for one frame: all of it or nothing."""
        piece = well_formed(piece)  # first: a cut may separate the halves of a surrogate pair
        self._log.check_room(piece)
        for start in range(0, len(piece), MAX_PIECE_CHARS):
            self.append(piece[start : start + MAX_PIECE_CHARS])

    def _note_first_token(self) -> None:
        self.first_token_at = time.monotonic()
        waited = round(1000 * (self.first_token_at - self.started_at))
        self.tell(f"stream_first_token trace={self.trace_id} wait_ms={waited}")

    async def produce(self, pieces: AsyncIterator[Piece]) -> Done:
        """Append what the agent yields, and return how it ended.

        The agent's iterator is closed and awaited in every case. On cancellation its cleanup runs
        to its end before CancelledError goes on.
        """
        done = _STOP
        until = 0.0
        try:
            async for piece in pieces:
                if type(piece) is not str and isinstance(piece, Done):
                    if piece.finish_reason not in AGENT_REASONS:
                        raise ValueError(f"no agent ends with {piece.finish_reason!r}")
                    if piece.superseded_by is not None:
                        raise ValueError("an agent cannot name a stream that supersedes it")
                    check_structure("usage", piece.usage)
                    # A copy: what the agent still holds of it may change until it is written.
                    done = Done(piece.finish_reason, json_copy(piece.usage))
                    break
                is_turns_first = not self._turn_noted
                self.append(piece)
                if is_turns_first:
                    until = 0.0  # whoever waits after each piece needs no clock
                elif not until:
                    until = time.monotonic() + TURN_BUDGET
                elif time.monotonic() > until:
                    await asyncio.sleep(0)
        except BaseException:
            try:
                await self._close(pieces)
            except (asyncio.CancelledError, GeneratorExit):
                raise
            except BaseException:
                # It does not hide what it was closed for.
                self.logger.exception("stream_cleanup_failed trace={}", self.trace_id)
            raise
        await self._close(pieces)
        return done

    async def _close(self, pieces: AsyncIterator[Piece]) -> None:
        self._closing = True
        aclose = getattr(pieces, "aclose", None)
        if aclose is not None:
            await aclose()

    def end(self, ending: Ending) -> bool:
        """Decide how it ends; nothing is admitted after it. False when that was decided before.

        The terminal frame is logged once the answer is kept: now, or when the history has done so.
        Raises TypeError, and has decided nothing, when `ending` cannot be encoded.
        """
        if not self.is_open:
            return False
        self._encoder.ending(self.seq + 1, ending)
        self.state = _SEALED
        self.ending = ending
        self.ended_at = time.time()
        if self.deadline is _NEVER:
            # Now: once a newer stream has spoken, it is stale. Among other nodes frame 1 says that
            # the question is kept, and has to wait for that.
            self._think()
        if self._unwatched is not None:
            self._unwatched.cancel()
        if self._keep is None:
            self._conclude(saved=True)
            return True
        try:
            kept = self._keep(self, ending)
        except Exception:
            self.logger.exception("stream_not_kept trace={}", self.trace_id)
            self._conclude(saved=False)
            return True
        if kept.done():
            self._conclude(saved=_is_kept(kept))
        else:
            kept.add_done_callback(lambda kept: self._conclude(saved=_is_kept(kept)))
        return True

    def _conclude(self, *, saved: bool) -> None:
        assert self.ending is not None
        self.state = _ENDED
        self._think()
        self._add_frame(
            self._encoder.ending(self.seq + 1, self.ending, saved=saved or self.forgotten),
            always=True,
        )
        self.ended.set_result(None)

    def revoke(self, ending: Ending, reason: str) -> bool:
        """End the stream at somebody's wish and cancel its task; False when that came too late.

        The fence falls first, then the task is cancelled, once, and never the one that asks.
        """
        if not self.end(ending):
            return False
        self.revoked_for = reason
        self.revoked_at = time.monotonic()
        self.tell(
            f"stream_cancelled trace={self.trace_id} reason={reason} session={self.session_id}"
        )
        if not self._closing:  # else the agent is tidying up already, and keeps its time for it
            self._cancel_task()
        if self._revoked is not None:
            self._revoked(self)
        return True

    def release(self) -> None:
        """Let go what only its task needed: it may be kept for a long time yet, to be replayed."""
        self._task = self._keep = self._revoked = self.begun = None

    def lapse(self) -> None:
        """Its node has heard nothing for so long that the session may be another node's by now."""
        failure = CoordinationLost()
        self.revoke(Failed.of(failure), failure.code)

    def give_up(self) -> bool:
        """Its cleanup has outrun the bound: it is undead now, and cancelled once more.

        False, and nothing has happened, when it was undead before, or when its own task asks: it
        could not be cancelled, and would never be again.
        """
        if self.undead or self._task is asyncio.current_task():
            return False
        self.undead = True
        self._cancel_task()
        return True

    def cancel_again(self) -> None:
        """Cancel its task once more, if it has ended and its agent has not stopped."""
        if not self.is_open and not self.stopped.done():
            self._cancel_task()

    def _cancel_task(self) -> None:
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    # Its readers: follow, unfollow

    def follow(self, after: int, reader: Reader) -> Follower:
        """Attach a reader at `after`; it starts when its `catch_up` is called.

        Raises CursorAhead for a position that is not in the log yet.
        """
        if after > self.seq:
            raise CursorAhead(
                f"after={after} is past the end of stream {self.stream_id}, which is at {self.seq}"
            )
        follower = Follower(self, after, reader)
        self._followers += (follower,)
        if self._unwatched is not None:
            self._unwatched.cancel()
            self._unwatched = None
        return follower

    def unfollow(self, follower: Follower) -> None:
        """Let a reader go; when it was the last one, `on_disconnect` decides. Idempotent."""
        if follower not in self._followers:
            return
        self._followers = tuple(other for other in self._followers if other is not follower)
        if self._followers:
            return
        self._fresh.clear()  # so that what is fresh is always the end of the log, without a hole
        if not self.is_open:
            return
        if self.on_disconnect == "continue":
            self._unwatched = self.loop.call_later(self.unwatched_timeout, self._desert)
        elif follower.renewable:
            timeout = min(RENEWAL_TIMEOUT, self.unwatched_timeout)
            self._unwatched = self.loop.call_later(timeout, self._desert)
        else:
            self._desert()

    def read(self, after: int) -> tuple[int, bytes]:
        """Some frames after `after`, from the log: the last one's seq, and the bytes."""
        return self._log.read(after)

    def _desert(self) -> None:
        if self.deserted is None:
            self.abandon()
        else:
            self.deserted(self)

    def abandon(self) -> None:
        """Nobody is left to read it."""
        self.tell(f"stream_client_disconnected trace={self.trace_id}")
        self.revoke(Done("cancelled"), "client_disconnected")

    # One turn of the loop

    def _think(self) -> None:
        if not self.seq:
            frame = self._encoder.thinking(1, self.session_id, replaces=self.replaces)
            self._add_frame(frame, always=True)

    def _add_frame(self, frame: bytes, *, always: bool = False) -> None:
        self._log.add_frame(frame, always=always)
        if self._followers:
            self._fresh.append(frame)
        if not self._turn_noted:
            self._note_turn()

    def _note_turn(self) -> None:
        self._turn_noted = True
        streams = self._delivery.streams
        if not streams:
            self._delivery.begin(self.loop)
        streams.append(self)

    def deliver(self) -> None:
        """Hand what was appended during this turn to the followers."""
        self._turn_noted = False
        fresh = self._fresh
        if not fresh:
            return
        self._fresh = []
        last = self._log.seq
        first = last - len(fresh)
        frames = b""
        for follower in self._followers:
            if follower.seq >= last:
                continue  # it has read them in the log
            if not frames:
                if len(fresh) == 1 and type(piece := fresh[0]) is str:
                    frames = self._encoder.token(last, piece)
                else:
                    frames = self._encoder.frames(first + 1, fresh)
            follower.offer(first, last, frames)


def _is_kept(kept: asyncio.Future[bool]) -> bool:
    # Whatever has become of the future, the stream's readers get its end.
    return not kept.cancelled() and kept.exception() is None and kept.result()


class Follower:
    """One reader's cursor into one stream's log."""

    __slots__ = ("_reader", "closed", "renewable", "seq", "stream")

    def __init__(self, stream: Followed, after: int, reader: Reader) -> None:
        self.stream = stream
        self.seq = after
        self.closed = False
        self.renewable = False
        """The reader leaves because its sign-in expired, and may return with a new one."""
        self._reader = reader

    @property
    def behind(self) -> bool:
        """Whether the log holds frames that this reader has not been given and still wants."""
        return not self.closed and self.seq < self.stream.seq

    def offer(self, first: int, last: int, frames: bytes) -> None:
        """Give what was appended this turn: the frames after `first`, up to `last`.

        Only to a reader that has not read all of them in the log.
        """
        if self.closed:  # by another reader, in this very turn
            return
        if self.seq != first or len(frames) > LARGEST_OFFER:
            self._reader.fell_behind(self)
        elif self.stream.state is _ENDED:
            self._give(last, frames)
        elif self._reader.take(frames):
            self.seq = last

    def catch_up(self) -> bool:
        """Give a piece of what the log holds after the cursor; False when there was no room."""
        if self.behind:
            return self._give(*self.stream.read(self.seq))
        self._look_for_end()
        return True

    def _give(self, last: int, frames: bytes) -> bool:
        is_end = self.stream.state is _ENDED and last == self.stream.seq
        take = self._reader.take_last if is_end else self._reader.take
        if not take(frames):
            return False
        self.seq = last
        self._look_for_end()
        return True

    def lose(self) -> None:
        """Close it, and tell its reader that there is nothing to be read here any more."""
        if not self.closed:
            self.close()
            self._reader.lost(self)

    def close(self) -> None:
        """Stop reading: nothing more is given or told. Idempotent."""
        self.closed = True
        self.stream.unfollow(self)

    def _look_for_end(self) -> None:
        if self.stream.state is _ENDED and not self.closed and not self.behind:
            self.close()
            self._reader.delivered(self)
