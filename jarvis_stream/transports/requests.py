"""The one door for commands: what a client sent becomes plain, valid values, or a refusal.

Both transports come through here, so a field means the same on each of them.
"""

from __future__ import annotations

import ipaddress
import json
import re
import unicodedata
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any, Final, cast
from urllib.parse import urlsplit

import orjson

from jarvis_stream.cluster.base import OnConflict
from jarvis_stream.errors import ForeignOrigin, Invalid, Malformed, Misdirected, NotFound
from jarvis_stream.ids import (
    SESSION_ID,
    STREAM_ID,
    new_stream_id,
    new_trace_id,
    parse_traceparent,
)
from jarvis_stream.registry import Opening

ON_CONFLICT: Final = ("interrupt", "reject", "enqueue", "rollback")
ON_DISCONNECT: Final = ("cancel", "continue")
MAX_CURSOR: Final = 2**53 - 1
"""The largest integer that JSON's readers agree on."""
MAX_REPAIRS: Final = 100
"""Halves of surrogate pairs in one message that are replaced by U+FFFD."""
MAX_TITLE: Final = 200
MAX_QUERY: Final = 200
"""In characters."""


def parse_object(raw: bytes | str) -> dict[str, Any]:
    """The JSON object in `raw`; raises Malformed for anything else.

    An escaped surrogate without its other half (`\\ud83d`) becomes U+FFFD: a client that cuts text
    between the two UTF-16 units of an emoji sends one.
    """
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        text = raw.encode(errors="replace") if isinstance(raw, str) else raw
        try:
            value = orjson.loads(_without_lone_surrogates(text))
        except orjson.JSONDecodeError as error:
            # The first sentence of orjson's message; what follows may quote the input.
            raise Malformed(f"invalid JSON: {error.msg}") from None
    if not isinstance(value, dict):
        raise Malformed(f"a JSON object is required, not {_kind(value)}")
    return value


def _without_lone_surrogates(raw: bytes) -> bytes:
    """Replace escaped surrogates without their other half, MAX_REPAIRS of them at most."""
    parts, start = [], 0
    for _ in range(MAX_REPAIRS):
        sound = _SOUND.match(raw, start)
        end = sound.end() if sound else start
        lone = _LONE.match(raw, end)
        if lone is None:
            break
        parts += [raw[start:end], rb"\ufffd"]
        start = lone.end()
    return b"".join((*parts, raw[start:]))


_SOUND: Final = re.compile(
    rb"(?:[^\\]++|\\(?!u[dD][89a-fA-F])."
    rb"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})++",
    re.DOTALL,
)
"""Text without escapes, an escape that is no surrogate, or a pair of surrogates."""
_LONE: Final = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


def parse_opening(
    fields: Mapping[str, Any],
    *,
    transport: str,
    traceparent: str | None,
    max_prompt_chars: int,
    owner: str = "",
    counts_as: str = "",
) -> Opening:
    """A request for an answer; raises Invalid naming the field, its value and what is allowed.

    Ids that the client did not bring are minted. Unknown fields are ignored.
    """
    prompt = fields.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise _invalid("prompt", prompt, "text that is not empty")
    if len(prompt) > max_prompt_chars:
        raise Invalid(f"prompt: {len(prompt)} characters are too many; allowed: {max_prompt_chars}")
    session_id = fields.get("session_id")
    if session_id is not None:
        session_id = parse_session_id(session_id)
    stream_id = fields.get("stream_id")
    parent = parse_traceparent(traceparent)
    replaces = fields.get("replaces")
    return Opening(
        prompt=prompt,
        owner=owner,
        counts_as=counts_as,
        session_id=session_id,
        stream_id=new_stream_id() if stream_id is None else parse_stream_id(stream_id),
        trace_id=parent.trace_id if parent else new_trace_id(),
        parent=parent,
        may_be_known=stream_id is not None,
        replaces=None if replaces is None else parse_stream_id(replaces, "replaces"),
        after=parse_after(fields.get("after")),
        on_conflict=cast(OnConflict, _choice(fields, "on_conflict", ON_CONFLICT)),
        on_disconnect=_choice(fields, "on_disconnect", ON_DISCONNECT),
        transport=transport,
    )


def parse_title(fields: Mapping[str, Any]) -> str:
    """A session's new title: on one line, every run of white space a single blank.

    Raises Invalid when that is empty or too long, or holds another control character.
    """
    value = fields.get("title")
    allowed = f"1 to {MAX_TITLE} characters, none of them a control character"
    if not isinstance(value, str):
        raise _invalid("title", value, allowed)
    title = " ".join(value.split())
    if not 1 <= len(title) <= MAX_TITLE or any(unicodedata.category(c) == "Cc" for c in title):
        raise _invalid("title", value, allowed)
    return title


def parse_query(value: str | None) -> str | None:
    """What to search for, without the blanks around it; None for nothing."""
    query = value.strip() if value else ""
    if len(query) > MAX_QUERY:
        raise Invalid(f"q: {len(query)} characters are too many; allowed: {MAX_QUERY}")
    return query or None


def parse_stream_id(value: object, field: str = "stream_id") -> str:
    """A canonical UUID in lower case."""
    if isinstance(value, str) and STREAM_ID.fullmatch(value):
        return value
    raise _invalid(field, value, "a UUID in its canonical form, lower case")


def parse_session_id(value: object) -> str:
    """The name of a conversation."""
    if isinstance(value, str) and SESSION_ID.fullmatch(value):
        return value
    raise _invalid("session_id", value, f"a text that matches {SESSION_ID.pattern}")


def parse_after(value: object) -> int:
    """A cursor: the seq of the last frame the client has; 0 when it brought none."""
    if value is None:
        return 0
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_CURSOR:
        return value
    raise _invalid("after", value, f"a whole number from 0 to {MAX_CURSOR}")


def parse_count(name: str, value: str | None, *, default: int, most: int) -> int:
    """A whole number of a query string."""
    if value is None:
        return default
    if re.fullmatch(r"[0-9]{1,9}", value) and 1 <= int(value) <= most:
        return int(value)
    raise _invalid(name, value, f"a whole number from 1 to {most}")


def parse_epoch(name: str, value: str | None) -> int | None:
    """Return the epoch in a query string, None where there is none; raises Invalid."""
    if value is None:
        return None
    if re.fullmatch(r"[0-9]{1,16}", value) and 1 <= int(value) <= MAX_CURSOR:
        return int(value)
    raise _invalid(name, value, f"a whole number from 1 to {MAX_CURSOR}")


def parse_position(stream_id: str, after: str | None, last_event_id: str | None) -> tuple[str, int]:
    """The position a URL and its header name; `after` counts before `Last-Event-ID`.

    A stream id that cannot be one is unknown (NotFound).
    """
    if not STREAM_ID.fullmatch(stream_id):
        raise NotFound(f"no stream {shorten(stream_id)} is known here")
    text = after if after is not None else last_event_id
    if text is None:
        return stream_id, 0
    if not re.fullmatch(r"[0-9]{1,16}", text):
        raise _invalid("after", text, f"a whole number from 0 to {MAX_CURSOR}")
    return stream_id, parse_after(int(text))


def check_origin(origin: str | None, host: str, allowed: Collection[str]) -> None:
    """Refuse a browser that shows somebody else's page (raises ForeignOrigin).

    No Origin header means no browser. The page's own host and `allowed` origins may ask; `null`
    (a sandboxed frame, a local file) may not.
    """
    if origin is None or origin in allowed or (origin != "null" and authority(origin) == host):
        return
    raise ForeignOrigin(
        f"pages of {shorten(origin)} may not use this server; --allowed-origins can add them"
    )


def check_fetch_site(path: str, headers: Mapping[str, str], allowed: Collection[str]) -> None:
    """Refuse what a browser requests for a page of another origin (raises ForeignOrigin).

    A request without an Origin header (an image, a script, a link) may come from any page, and the
    time that its response takes can be measured there. Browsers name its source in Sec-Fetch-Site:
    `none` is an address that a person typed. A request with an Origin is left to `check_origin`,
    which a WebSocket handshake always has; the page and its files are public.
    """
    site = headers.get("Sec-Fetch-Site")
    if site is None or site in _OWN_SITES or "Origin" in headers or is_public(path):
        return
    if _origin_of(headers.get("Referer", "")) in allowed:
        return
    raise ForeignOrigin(
        f"pages of other origins may not read this (Sec-Fetch-Site: {shorten(site)});"
        " --allowed-origins can add theirs"
    )


def is_public(path: str) -> bool:
    """Whether every page may load this: it holds nothing of any person or conversation."""
    return path in _PUBLIC or path.startswith("/static/")


_OWN_SITES: Final = frozenset(("same-origin", "none"))
_PUBLIC: Final = frozenset(("/", "/livez", "/readyz"))


def check_host(host: str, allowed: Collection[str]) -> None:
    """Refuse a name that is not this machine's own, nor an allowed origin's (raises Misdirected).

    A page whose name has been made to point here (DNS rebinding) is of the same origin as this
    server, and gives itself away only by that name.
    """
    name = _name_of(host)
    if name is None or not (
        is_loopback(name) or any(_name_of(authority(origin) or "") == name for origin in allowed)
    ):
        raise Misdirected(f"{shorten(host)} is not served here; --allowed-origins can add it")


def names_this_machine(host: str) -> bool:
    """Whether a Host header can only mean this machine."""
    name = _name_of(host)
    return name is not None and is_loopback(name)


@lru_cache(maxsize=1024)
def is_loopback(name: str) -> bool:
    """Whether a host name or IP address can only mean this machine."""
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return name.lower().rstrip(".") == "localhost"


def shorten(value: str, limit: int = 80) -> str:
    """A client's text as it may stand in a sentence: printable, and not long."""
    shown = value if value.isprintable() else ascii(value)[1:-1]
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


@lru_cache(maxsize=1024)
def _name_of(host: str) -> str | None:
    """The name in `name:port`, in lower case; None for what is neither."""
    try:
        parts = urlsplit(f"//{host}")
        parts.port  # noqa: B018  # raises ValueError for no number
    except ValueError:
        return None
    return parts.hostname if parts.netloc == host and "@" not in host else None


def authority(url: str) -> str | None:
    """`host:port` of an absolute URL; None for what is none."""
    try:
        return urlsplit(url).netloc
    except ValueError:
        return None


def _origin_of(url: str) -> str | None:
    """Return the origin of an absolute URL, as browsers write it; None for anything else."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else None


def _choice(fields: Mapping[str, Any], name: str, allowed: tuple[str, ...]) -> str:
    value = fields.get(name)
    if value is None:
        return allowed[0]
    if isinstance(value, str) and value in allowed:
        return value
    raise _invalid(name, value, " or ".join(allowed))


def _invalid(field: str, value: object, allowed: str) -> Invalid:
    if value is None:
        return Invalid(f"{field}: is missing; required: {allowed}")
    if isinstance(value, (dict, list)):
        shown = _kind(value)
    else:
        shown = shorten(json.dumps(value, ensure_ascii=False))  # a header may hold a lone surrogate
    return Invalid(f"{field}: {shown} is not allowed; allowed: {allowed}")


def _kind(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "a text", type(None): "null"}
    names |= {bool: "true or false", int: "a number", float: "a number"}
    return names[type(value)]
