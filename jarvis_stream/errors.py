"""The ways it goes wrong.

    JarvisError
    ├── BadSettings            flags or variables that cannot be used: no start
    ├── AgentNotFound          the agent they ask for cannot be had: no start
    ├── Refused                a request refused before a stream exists: status, code, sentence
    │   ├── Malformed          400 malformed
    │   ├── Unauthorized       401 unauthorized
    │   ├── ForeignOrigin      403 forbidden_origin
    │   ├── NotFound           404 not_found
    │   ├── TooSlow            408 timeout
    │   ├── Conflict           409 conflict
    │   ├── Gone               410 gone
    │   ├── TooLarge           413 too_large
    │   ├── UnsupportedMedia   415 unsupported_media_type
    │   ├── CursorAhead        416 cursor_ahead
    │   ├── Misdirected        421 misdirected
    │   ├── Invalid            422 invalid (and which field)
    │   ├── TooMany            429 too_many
    │   │   └── TooFast        429 too_fast
    │   ├── HeadersTooLarge    431 headers_too_large
    │   └── Unavailable        503 unavailable
    │       ├── ShuttingDown   503 shutting_down
    │       └── Overloaded     503 overloaded
    └── StreamFailure          the error frame that ends a stream: code, sentence, retryable
        ├── AgentFailure       agent_error
        ├── UpstreamError      upstream_error
        ├── UpstreamTimeout    upstream_timeout
        ├── AnswerTooLong      too_long
        ├── Interrupted        interrupted
        ├── CoordinationLost   coordination_lost
        └── Answered           interrupted
    asyncio.CancelledError
    └── StreamRevoked          a frame came after its stream had been revoked (the fence)

What a client may read stands in `sentence`. What only the log may see is the exception's cause.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar


class JarvisError(Exception):
    """The root of every error of this package that is no cancellation."""


class BadSettings(JarvisError):
    """Flags or variables that cannot be used; `problems` holds one sentence for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class AgentNotFound(JarvisError):
    """The agent that the settings ask for cannot be had; the text names it, and what is wrong."""


class Refused(JarvisError):
    """A request that is refused before a stream exists: an HTTP status and `{code, error}`.

    `sentence` is written for people and goes to the client; `retry_after` (seconds) becomes the
    `Retry-After` header.
    """

    status: ClassVar[int] = 400
    code: ClassVar[str] = "malformed"

    def __init__(self, sentence: str, *, retry_after: float | None = None) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.retry_after = retry_after


class Malformed(Refused):
    """The body or message is no JSON object."""


class Unauthorized(Refused):
    """Nobody asks that is known here: no token, a wrong one or an old one are told apart by nobody.

    So the sentence is always the same.
    """

    status = 401
    code = "unauthorized"

    def __init__(self) -> None:
        super().__init__("sign in first: a valid token is needed")


class ForeignOrigin(Refused):
    """A browser on somebody else's page asks."""

    status = 403
    code = "forbidden_origin"


class NotFound(Refused):
    """Unknown, or not yours: the two are told apart by nobody."""

    status = 404
    code = "not_found"


class TooSlow(Refused):
    """The request did not come in time."""

    status = 408
    code = "timeout"


class Conflict(Refused):
    """The session is busy and may not be interrupted, or the stream is another session's."""

    status = 409
    code = "conflict"


class Gone(Refused):
    """The stream was here, and can no longer be replayed."""

    status = 410
    code = "gone"


class TooLarge(Refused):
    """The body is over the limit."""

    status = 413
    code = "too_large"


class UnsupportedMedia(Refused):
    """The body is not declared as JSON."""

    status = 415
    code = "unsupported_media_type"


class CursorAhead(Refused):
    """The cursor points past the end of the stream."""

    status = 416
    code = "cursor_ahead"


class Misdirected(Refused):
    """The request names a host that this server is not."""

    status = 421
    code = "misdirected"


class Invalid(Refused):
    """A field is wrong; the sentence names it, its value, and what is allowed."""

    status = 422
    code = "invalid"


class TooMany(Refused):
    """A limit is reached that the client itself can come below again."""

    status = 429
    code = "too_many"


class TooFast(TooMany):
    """It happens too often; after a while it may again."""

    code = "too_fast"


class HeadersTooLarge(Refused):
    """The request line or a header is over the limit."""

    status = 431
    code = "headers_too_large"


class Unavailable(Refused):
    """The server takes no new stream now."""

    status = 503
    code = "unavailable"


class ShuttingDown(Unavailable):
    """The server has been told to stop: it finishes what it has, and takes nothing new."""

    code = "shutting_down"


class Overloaded(Unavailable):
    """The server has no room for one more."""

    code = "overloaded"


class StreamFailure(JarvisError):
    """What ends a stream with an `error` frame.

    Raise it `from` its cause: `sentence` goes to the client, the cause only to the log.
    """

    code: ClassVar[str] = "agent_error"
    sentence: str = "The agent failed while it was answering."
    retryable: bool = True

    def __init__(self, sentence: str | None = None, *, retryable: bool | None = None) -> None:
        if sentence is not None:
            self.sentence = sentence
        if retryable is not None:
            self.retryable = retryable
        super().__init__(self.sentence)


class AgentFailure(StreamFailure):
    """The agent raised something of its own."""


class UpstreamError(StreamFailure):
    """The model's server refused, broke off, or spoke nonsense."""

    code = "upstream_error"
    sentence = "The model server could not answer."


class UpstreamTimeout(StreamFailure):
    """The model's server was silent for too long."""

    code = "upstream_timeout"
    sentence = "The model server took too long to answer."


class AnswerTooLong(StreamFailure):
    """The answer grew past its bound."""

    code = "too_long"
    sentence = "The answer exceeded the size limit of this server."
    retryable = False


class Interrupted(StreamFailure):
    """The process that made the answer ended before the answer did."""

    code = "interrupted"
    sentence = "The server stopped before the answer was complete."


class CoordinationLost(StreamFailure):
    """Its process lost touch with the others: one of them may have the session by now."""

    code = "coordination_lost"
    sentence = "The server lost its connection to the other servers before the answer was complete."


class Answered(StreamFailure):
    """The stream_id was used before, and what it named is not here any more."""

    code = "interrupted"
    sentence = "This request was answered before, and its answer can no longer be replayed."
    retryable = False


class StreamRevoked(asyncio.CancelledError):
    """A frame came after its stream had been revoked.

    A CancelledError, so that no `except Exception` in an agent can swallow the fence.
    """
