"""Why a model's server refuses a request, read from its status and its wording.

The vendors agree on few codes, so the text decides where the code does not.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final


class Reason(Enum):
    """Why a request was refused."""

    TOO_LONG = auto()
    """The messages do not fit into the model's context window."""
    NO_CREDIT = auto()
    """The account has no credit left; waiting does not help."""
    POLICY = auto()
    """A content filter rejected the question."""
    CREDENTIALS = auto()
    """The key is missing, wrong or not permitted to use the model."""
    UNKNOWN_MODEL = auto()
    """The server has no such model, or nothing at this address."""
    NO_CHAT = auto()
    """The model cannot chat: an embedding model, for example."""
    STREAM_OPTIONS = auto()
    """The server does not know the field `stream_options`."""
    STREAM = auto()
    """The server does not stream this model's answers to this account."""
    SYSTEM_ROLE = auto()
    """The model's template has no system role."""
    BUSY = auto()
    """A failure that another attempt may resolve."""
    OTHER = auto()
    """Anything else; the same request would be refused again."""


_TRANSIENT: Final = frozenset({408, 409, 425, 429})  # and every 5xx

_NO_CREDIT: Final = re.compile(
    r"insufficient[ _](quota|balance|credit|funds)|billing_(hard_limit|not_active)"
    r"|credit balance is too low|out of credits|requires more credits|payment required"
)
_POLICY: Final = re.compile(
    r"content[_ ](policy|management policy|filter)|responsibleaipolicy|data_inspection_failed"
    r"|content exists risk|(input|prompt) was flagged|content_moderation"
)
_TOO_LONG: Final = re.compile(
    r"context[_ ](length|window|size|limit)|maximum (context|prompt|input|token)|prompt is too long"
    r"|(input|prompt|request|messages?|conversation|query)( \w+)? (is |are )?too (long|large)"
    r"|too many (input |prompt )?tokens|reduce the length of"
    r"|(exceeds?|exceeding|larger than|greater than) the (maximum|model's|available|limit|max)"
    r"[\w ]*(token|context|length)"
    r"|token count[^.]*exceeds|model_max_prompt_tokens_exceeded|string_above_max_length"
)
_STREAM_OPTIONS: Final = re.compile("stream_options|include_usage")
_EXTRA_FIELD: Final = re.compile(
    r"extra_forbidden"
    r"|(extra|additional) (inputs?|fields?|properties|parameters?)\b"
    r"|(unknown|unrecognized|unexpected|unsupported|invalid) (request )?"
    r"(field|parameter|argument|key|keyword|property|name)"
)
_STREAM: Final = re.compile(
    r"verified to stream|not support stream|streaming is not (supported|available|enabled)"
    r"|\"param\":\s*\"stream\"|'stream' does not support"
)
_SYSTEM_ROLE: Final = re.compile(
    r"system (role|message|prompt|instruction)s?\W+(is |are )?(not |un)(supported|allowed|enabled)"
    r"|developer instruction is not enabled|roles? must (be )?alternat"
    r"|not support\W+system\b|unexpected role|only user and assistant roles"
)
_NO_CHAT: Final = re.compile(
    r"not support (chat|generate|generation|text generation)|not a chat model"
    r"|(is an?|only supports?) (text )?(embedding|rerank|transcription|speech)"
    r"|not support[\w ]*(chat[ /._]?completions?)|not supported in the v1/chat/completions"
    r"|operation unsupported"
)
_CREDENTIALS: Final = re.compile(
    r"(invalid|incorrect|missing) api[ _]key|api[ _]key (is )?(not valid|invalid|missing)"
    r"|authentication[ _](error|failed)|no_db_connection|no connected db"
)
_UNKNOWN_MODEL: Final = re.compile(
    r"invalid model|no such model|unknown model|model_not_found|model not exist"
    r"|model\b.{0,120}\b(not found|does not exist|is not available)"
)
_BUSY: Final = re.compile(
    r"overloaded|rate[_ ]limit|too many requests|unavailable|try again|resource_exhausted"
    r"|\"code\":\s*\"?(429|502|503|504|529)\b"
)


def classify(status: int, body: bytes) -> Reason:
    """Return why a request was refused: the HTTP status, and (the beginning of) the body."""
    text = body.decode(errors="replace").lower()
    if status == 402 or _NO_CREDIT.search(text):
        return Reason.NO_CREDIT
    if status in (400, 403, 422) and _POLICY.search(text):
        return Reason.POLICY
    if status in (401, 403) or (status == 400 and _CREDENTIALS.search(text)):
        return Reason.CREDENTIALS
    if status == 413 or (status != 404 and _is_too_long(status, text)):
        return Reason.TOO_LONG
    # Some servers answer 500 to what their own template or validator rejects.
    if status in (400, 404, 405, 422, 500, 501):
        for reason, wording in (
            (Reason.STREAM_OPTIONS, _STREAM_OPTIONS),
            (Reason.SYSTEM_ROLE, _SYSTEM_ROLE),
            (Reason.STREAM, _STREAM),
            (Reason.NO_CHAT, _NO_CHAT),
            (Reason.STREAM_OPTIONS, _EXTRA_FIELD),  # the only one that is sent
        ):
            if wording.search(text):
                return reason
    if status in _TRANSIENT or status >= 500:
        return Reason.BUSY
    is_unknown = status == 404 or (status in (400, 422) and _UNKNOWN_MODEL.search(text))
    return Reason.UNKNOWN_MODEL if is_unknown else Reason.OTHER


def classify_event(event: bytes) -> Reason:
    """Return why an answer failed: an error that came as an event, with status 200."""
    text = event.decode(errors="replace").lower()
    for reason, wording in (
        (Reason.NO_CREDIT, _NO_CREDIT),
        (Reason.POLICY, _POLICY),
        (Reason.TOO_LONG, _TOO_LONG),
        (Reason.BUSY, _BUSY),
    ):
        if wording.search(text):
            return reason
    return Reason.OTHER


def _is_too_long(status: int, text: str) -> bool:
    if status == 429:  # "tokens per minute" of one request: waiting does not help
        return "request too large" in text
    if status > 501:  # the limit is one of the server, the length of its queue for example
        return False
    return _TOO_LONG.search(text) is not None
