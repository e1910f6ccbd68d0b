"""The exceptions of the package.

    JarvisError
    ├── BadSettings            invalid flags or variables: the server does not start
    ├── AgentNotFound          the selected agent cannot be loaded: the server does not start
    ├── Refused                a request rejected before a stream exists: status, code, sentence
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
    └── StreamRevoked          a frame was appended after its stream had been revoked (the fence)

Clients receive `sentence`. The cause of the exception goes to the log only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar


class JarvisError(Exception):
    """Base class of the errors of this package, except cancellations."""


class BadSettings(JarvisError):
    """Invalid flags or variables; `problems` has one sentence for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class AgentNotFound(JarvisError):
    """The agent of the settings cannot be loaded; the text names the agent and the cause."""


class Refused(JarvisError):
    """A request that is rejected before a stream exists: an HTTP status and `{code, error}`.

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
    """The body or message is not a JSON object."""


class Unauthorized(Refused):
    """The request has no valid token.

    The response is the same for a missing, a wrong and an expired token.
    """

    status = 401
    code = "unauthorized"

    def __init__(self) -> None:
        super().__init__("sign in first: a valid token is needed")


class ForeignOrigin(Refused):
    """The request comes from a page of an origin that is not allowed."""

    status = 403
    code = "forbidden_origin"


class NotFound(Refused):
    """The id is unknown, or belongs to another principal; the response is the same."""

    status = 404
    code = "not_found"


class TooSlow(Refused):
    """The request did not arrive in time."""

    status = 408
    code = "timeout"


class Conflict(Refused):
    """The session is busy, or the stream belongs to another session."""

    status = 409
    code = "conflict"


class Gone(Refused):
    """The stream has ended and can no longer be replayed."""

    status = 410
    code = "gone"


class TooLarge(Refused):
    """The body is larger than the limit."""

    status = 413
    code = "too_large"


class UnsupportedMedia(Refused):
    """The body is not declared as JSON, or is compressed."""

    status = 415
    code = "unsupported_media_type"


class CursorAhead(Refused):
    """The position `after` is past the end of the stream."""

    status = 416
    code = "cursor_ahead"


class Misdirected(Refused):
    """The request names a host that this server does not serve."""

    status = 421
    code = "misdirected"


class Invalid(Refused):
    """A field is wrong; the sentence names it, its value, and what is allowed."""

    status = 422
    code = "invalid"


class TooMany(Refused):
    """The client has reached a limit, and can get below it by itself."""

    status = 429
    code = "too_many"


class TooFast(TooMany):
    """The client has reached a rate limit; it can retry later."""

    code = "too_fast"


class HeadersTooLarge(Refused):
    """The request line or a header is longer than the limit."""

    status = 431
    code = "headers_too_large"


class Unavailable(Refused):
    """The server cannot process the request now."""

    status = 503
    code = "unavailable"


class ShuttingDown(Unavailable):
    """The server shuts down: running answers continue for a while, new ones are rejected."""

    code = "shutting_down"


class Overloaded(Unavailable):
    """The server is at capacity."""

    code = "overloaded"


class StreamFailure(JarvisError):
    """A failure that ends a stream with an `error` frame.

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
    """The agent raised an exception."""


class UpstreamError(StreamFailure):
    """The model server rejected the request, broke off, or sent an invalid response."""

    code = "upstream_error"
    sentence = "The model server could not answer."


class UpstreamTimeout(StreamFailure):
    """The model server was silent for too long."""

    code = "upstream_timeout"
    sentence = "The model server took too long to answer."


class AnswerTooLong(StreamFailure):
    """The answer exceeded its size or time limit."""

    code = "too_long"
    sentence = "The answer exceeded the size limit of this server."
    retryable = False


class Interrupted(StreamFailure):
    """The process that generated the answer ended before the answer was complete."""

    code = "interrupted"
    sentence = "The server stopped before the answer was complete."


class CoordinationLost(StreamFailure):
    """The server lost its connection to the other servers; one of them may own the session now."""

    code = "coordination_lost"
    sentence = "The server lost its connection to the other servers before the answer was complete."


class Answered(StreamFailure):
    """The stream_id was used before, and its stream can no longer be replayed."""

    code = "interrupted"
    sentence = "This request was answered before, and its answer can no longer be replayed."
    retryable = False


class StreamRevoked(asyncio.CancelledError):
    """A frame was appended after its stream had been revoked.

    A CancelledError, so that no `except Exception` in an agent can swallow the fence.
    """
