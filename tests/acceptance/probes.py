"""Requests that no honest client sends: malformed ones, and ones that two servers read differently.

`SMUGGLED` hides in many of them: a second request, which must never be answered.
"""

from __future__ import annotations

from dataclasses import dataclass

SMUGGLED = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
"""Its answer says `alive`."""

BODY = b'{"prompt":"say hi"}'
JSON = b"Content-Type: application/json\r\n"


@dataclass(frozen=True)
class Probe:
    """What is sent, and the statuses one of which is the only answer; 0 is a close without one."""

    name: str
    data: bytes
    statuses: tuple[int, ...] = (400,)

    def __str__(self) -> str:
        return self.name


def post(headers: bytes, body: bytes = SMUGGLED, *, version: bytes = b"1.1") -> bytes:
    """A `POST /api/chat` with these headers beside the usual ones."""
    return b"POST /api/chat HTTP/%b\r\nHost: localhost\r\n%b%b\r\n%b" % (
        version,
        JSON,
        headers,
        body,
    )


def get(headers: bytes, *, line: bytes = b"GET /metrics HTTP/1.1", host: bool = True) -> bytes:
    """A request without a body."""
    return line + b"\r\n" + (b"Host: localhost\r\n" if host else b"") + headers + b"\r\n"


def chunked(body: bytes) -> bytes:
    """A `POST /api/chat` whose body, chunked, is this."""
    return post(b"Transfer-Encoding: chunked\r\n", body)


PROBES = [
    # Where does the body end? Two headers that say it, or one that says it oddly.
    Probe(
        "both lengths, chunked last",
        post(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n" + SMUGGLED),
    ),
    Probe(
        "both lengths, chunked first",
        post(b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n" + SMUGGLED),
    ),
    Probe("two lengths that differ", post(b"Content-Length: 0\r\nContent-Length: 42\r\n")),
    Probe("two lengths that agree", post(b"Content-Length: 0\r\nContent-Length: 0\r\n")),
    Probe("a list of lengths", post(b"Content-Length: 0, 0\r\n")),
    Probe("a length with a sign", post(b"Content-Length: +0\r\n")),
    Probe("a negative length", post(b"Content-Length: -1\r\n")),
    Probe("a hexadecimal length", post(b"Content-Length: 0x0\r\n")),
    Probe("a length with an underscore", post(b"Content-Length: 0_0\r\n")),
    Probe("a length with a space inside", post(b"Content-Length: 0 0\r\n")),
    Probe("an empty length", post(b"Content-Length: \r\n")),
    Probe("a length beyond 64 bits", post(b"Content-Length: 18446744073709551616\r\n")),
    Probe("a length in other digits", post("Content-Length: \u0660\r\n".encode())),
    Probe("an unknown coding", post(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n" + SMUGGLED)),
    Probe(
        "chunked is not the last coding",
        post(b"Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n" + SMUGGLED),
    ),
    Probe(
        "chunked twice",
        post(b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n" + SMUGGLED),
    ),
    Probe(
        "chunked in two headers",
        post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", b"0\r\n\r\n"),
    ),
    Probe("a space before the colon", post(b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n")),
    Probe("a vertical tab", post(b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n" + SMUGGLED)),
    Probe(
        "chunked before HTTP/1.1",
        post(b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n" + SMUGGLED, version=b"1.0"),
    ),
    # Where does a chunk end?
    Probe("a chunk size with 0x", chunked(b"0x0\r\n\r\n" + SMUGGLED)),
    Probe("a negative chunk size", chunked(b"-1\r\n\r\n" + SMUGGLED)),
    Probe("a chunk size with an underscore", chunked(b"0_0\r\n\r\n" + SMUGGLED)),
    Probe("a chunk size beyond 64 bits", chunked(b"1" + b"0" * 16 + b"\r\n\r\n" + SMUGGLED)),
    Probe("a chunk size that is empty", chunked(b"\r\n\r\n" + SMUGGLED)),
    Probe("a chunk extension with a line feed", chunked(b"0;a\nb\r\n\r\n" + SMUGGLED)),
    Probe("a chunk longer than it says", chunked(b"3\r\nabcdef\r\n0\r\n\r\n" + SMUGGLED)),
    Probe("a chunk ended by line feeds", chunked(b"1\na\n0\n\n" + SMUGGLED)),
    # Where does a header end?
    Probe("line feeds alone", get(b"").replace(b"\r\n", b"\n")),
    Probe("a carriage return in a value", get(b"X-A: b\rX-C: d\r\n")),
    Probe("a NUL in a value", get(b"X-A: b\x00c\r\n")),
    Probe("a NUL in a name", get(b"X-\x00A: b\r\n")),
    Probe("a header without a colon", get(b"X-A\r\n")),
    Probe("a header without a name", get(b": b\r\n")),
    Probe("a space in a name", get(b"X A: b\r\n")),
    Probe("a folded header", get(b"X-A: b\r\n Transfer-Encoding: chunked\r\n")),
    Probe("a folded first header", get(b" X-A: b\r\n", host=False)),
    Probe("a header of 64 kB", get(b"X-A: " + b"b" * 65536 + b"\r\n"), (400, 431)),
    Probe("a name of 64 kB", get(b"X" * 65536 + b": b\r\n"), (400, 431)),
    Probe("a thousand headers", get(b"X-A: b\r\n" * 1000), (400, 431)),
    # What is asked for, and of whom?
    Probe("a target of 64 kB", get(b"", line=b"GET /" + b"a" * 65536 + b" HTTP/1.1"), (400, 431)),
    Probe("no host", get(b"", host=False)),
    Probe("two hosts", get(b"Host: localhost\r\n")),
    Probe("a host of somebody else's", get(b"Host: evil.example\r\n", host=False), (421,)),
    Probe("a host with a user name", get(b"Host: localhost@evil.example\r\n", host=False), (421,)),
    Probe("a host with a path", get(b"Host: localhost/evil.example\r\n", host=False), (421,)),
    Probe("a host that is empty", get(b"Host: \r\n", host=False), (400, 421)),
    Probe("a target with another host", get(b"", line=b"GET http://evil.example/metrics HTTP/1.1")),
    Probe("a word too many", get(b"", line=b"GET /metrics HTTP/1.1 HTTP/1.1")),
    Probe("a word too few", get(b"", line=b"GET /metrics")),
    Probe("a control character in the target", get(b"", line=b"GET /a\x01b HTTP/1.1")),
    Probe("a line break in the target", get(b"", line=b"GET /%0d%0aX-A:b HTTP/1.1"), (404,)),
    Probe(
        "a way out of the static files", get(b"", line=b"GET /static/../setup.cfg HTTP/1.1"), (404,)
    ),
    Probe(
        "an encoded way out",
        get(b"", line=b"GET /static/%2e%2e%2f%2e%2e/etc/passwd HTTP/1.1"),
        (404,),
    ),
    Probe("version 2 of HTTP", get(b"", line=b"GET /metrics HTTP/2.0")),
    Probe("version 0.9 of HTTP", get(b"", line=b"GET /metrics HTTP/0.9")),
    Probe("version 1.11 of HTTP", get(b"", line=b"GET /metrics HTTP/1.11")),
    Probe("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SMUGGLED),
    Probe(
        "the first bytes of TLS", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + b"\x00" * 160
    ),
    Probe("a tunnel", get(b"", line=b"CONNECT evil.example:443 HTTP/1.1"), (400, 404, 405)),
    Probe("an echo of the request", get(b"", line=b"TRACE /metrics HTTP/1.1"), (405,)),
    Probe("a method nobody knows", get(b"", line=b"BREW /metrics HTTP/1.1"), (400, 405)),
    Probe(
        "an expectation nobody can meet",
        post(b"Expect: a-miracle\r\nContent-Length: 0\r\n", b""),
        (417,),
    ),
    Probe(
        "a handshake with half its headers",
        get(b"Connection: Upgrade\r\nUpgrade: websocket\r\n", line=b"GET /ws HTTP/1.1"),
    ),
]
