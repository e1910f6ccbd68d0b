"""A server that speaks the OpenAI chat-completions protocol, as a program of its own.

    python tests/fake_openai.py --port 0 [--tls CERT KEY] [--models NAME …] [--key KEY] [--pace S]

It prints its base URL and serves until it is killed. Any model it lists echoes the last message,
word by word, `--pace` seconds apart. A test scripts other answers: `POST /scripts` takes a `Script`
and returns the name of a model that plays it; `GET /scripts/NAME?until=…` waits and tells what
happened. It runs on blocking sockets and threads, so what it sends does not depend on anybody's
event loop, and what it only writes it really only writes.

With `--strict` it rejects messages whose roles do not alternate, as many chat templates do, and the
first word of the last line decides: "hang", "flood", "break" (off after a token), "refuse", "fail".

`FakeServer` starts the program and is a test's handle on it.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

FLOOD = 10.0
"""Seconds after which a flood that nobody stops dries up: a test then fails, and does not hang."""

Until = Literal["now", "arrived", "gone"]


def sse(event: object) -> bytes:
    """One event of a stream; a str is sent as it is."""
    text = event if isinstance(event, str) else json.dumps(event, ensure_ascii=False)
    return f"data: {text}\n\n".encode()


def chunk(delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> dict[str, Any]:
    """A `chat.completion.chunk` with one choice."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "fake",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
        **more,
    }


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def answer(texts: Sequence[str], finish_reason: str = "stop") -> list[bytes]:
    """The events of a whole ordinary answer, as OpenAI sends them."""
    return [
        sse(chunk({"role": "assistant", "content": ""})),
        *(sse(chunk({"content": text})) for text in texts),
        sse(chunk({}, finish_reason)),
        sse({**chunk({}), "choices": [], "usage": usage(3, len(texts))}),
        sse("[DONE]"),
    ]


@dataclass(frozen=True)
class Refusal:
    """The answer to one request before the script's own; status 0 only hangs up."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""


@dataclass(frozen=True)
class Script:
    """What a model does when it is asked."""

    chunks: Sequence[bytes] = ()
    ending: Literal["end", "cut", "hang", "flood"] = "end"
    """After the chunks: end the body, hang up, wait for the client to leave, or repeat the last
    chunk until writing fails (for at most `FLOOD` seconds)."""
    every: float = 0.0
    """Seconds between two chunks."""
    mute: bool = False
    """Not even headers."""
    content_type: str = "text/event-stream; charset=utf-8"
    refusals: Sequence[Refusal] = ()

    def to_json(self) -> bytes:
        chunks = [base64.b64encode(chunk).decode() for chunk in self.chunks]
        return json.dumps({**asdict(self), "chunks": chunks}).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Script:
        fields = json.loads(text)
        fields["chunks"] = [base64.b64decode(chunk) for chunk in fields["chunks"]]
        fields["refusals"] = [Refusal(**refusal) for refusal in fields["refusals"]]
        return cls(**fields)


@dataclass
class Seen:
    """What has happened to a script."""

    requests: list[dict[str, Any]] = field(default_factory=list)
    """`{"headers": {lower-case name: value}, "body": …, "port": the client's}` of each."""
    sent: int = 0
    """Chunks written, all requests together."""
    gone: bool = False
    """A client has been noticed to have left before the end."""
    listings: int = 0
    """How often the models have been listed, for whomever."""


class FakeServer:
    """A test's handle on a running program."""

    def __init__(self, url: str, trust: ssl.SSLContext | None = None) -> None:
        self.url = url
        self._control = url.removesuffix("/v1") + "/scripts"
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust)
        )

    @classmethod
    @contextmanager
    def running(cls, *options: str, ca_file: str | None = None) -> Iterator[FakeServer]:
        """Start the program; it has ended when the block ends."""
        command = [sys.executable, str(Path(__file__)), "--port", "0", *options]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                trust = ssl.create_default_context(cafile=ca_file) if ca_file else None
                yield cls(process.stdout.readline().strip(), trust)
            finally:
                process.kill()

    async def play(self, script: Script) -> str:
        """The name of a model that plays `script`."""
        return str(await asyncio.to_thread(self._call, "", script.to_json()))

    async def seen(self, model: str, until: Until = "now") -> Seen:
        """What has happened, once a request has arrived or its client has gone (at most 20 s)."""
        return Seen(**await asyncio.to_thread(self._call, f"/{model}?until={until}"))

    def _call(self, path: str, body: bytes | None = None) -> Any:
        with self._opener.open(self._control + path, data=body, timeout=30) as response:
            return json.load(response)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__((options.host, options.port), _Handler)
        self.options = options
        self.scripts: dict[str, Script] = {}
        self.seen: dict[str, Seen] = {}
        self.listings = 0
        self.changed = threading.Condition()
        if options.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*options.tls)
            # The handshake happens in the connection's own thread, with its first read.
            self.socket = context.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )

    @property
    def url(self) -> str:
        scheme = "https" if self.options.tls else "http"
        return f"{scheme}://{self.options.host}:{self.server_port}/v1"

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that leaves is no event here


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path == "/v1/models":
            with self.server.changed:
                self.server.listings += 1
            models = [{"id": name, "object": "model"} for name in self.server.options.models]
            self._reply(200, {"object": "list", "data": models})
        elif parts.path.startswith("/scripts/"):
            until = parse_qs(parts.query)["until"][0]
            self._reply(200, asdict(self._wait(parts.path.removeprefix("/scripts/"), until)))
        else:
            self._reply(404, {"error": {"message": "no such path"}})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self.path == "/scripts":
            with self.server.changed:
                name = f"script-{len(self.server.scripts) + 1}"
                self.server.scripts[name] = Script.from_json(body)
                self.server.seen[name] = Seen()
            self._reply(200, name)
        elif self.path == "/v1/chat/completions":
            self._complete(json.loads(body))
        else:
            self._reply(404, {"error": {"message": "no such path"}})

    def _wait(self, name: str, until: str) -> Seen:
        seen = self.server.seen[name]
        with self.server.changed:
            if until != "now":
                self.server.changed.wait_for(
                    lambda: bool(seen.requests) if until == "arrived" else seen.gone, timeout=20
                )
            seen.listings = self.server.listings
        return seen

    def _complete(self, body: dict[str, Any]) -> None:
        model = body["model"]
        key = self.server.options.key
        if key and self.headers.get("Authorization") != f"Bearer {key}":
            self._reply(401, {"error": {"message": "Incorrect API key provided"}})
        elif model in self.server.scripts:
            self._play(model, body)
        elif model in self.server.options.models and self.server.options.strict:
            self._complete_strictly(body["messages"])
        elif model in self.server.options.models:
            words = body["messages"][-1]["content"].split(" ")
            texts = [words[0], *(f" {word}" for word in words[1:])]
            self._stream(Script(answer(texts), every=self.server.options.pace), Seen())
        else:
            self._reply(404, {"error": {"message": "no such model"}})

    def _complete_strictly(self, messages: list[dict[str, str]]) -> None:
        roles = [message["role"] for message in messages]
        if roles != (["user", "assistant"] * len(roles))[: len(roles)] or roles[-1] != "user":
            self._reply(400, {"error": {"message": "Conversation roles must alternate"}})
            return
        order = messages[-1]["content"].rpartition("\n")[2].split(" ")[0]
        if order == "refuse":
            self._reply(400, {"error": {"message": "no"}})
        elif order == "fail":
            self._stream(Script([sse({"error": {"message": "CUDA error"}})]), Seen())
        elif order == "hang":
            self._stream(Script(ending="hang"), Seen())
        elif order == "flood":
            self._stream(Script([sse(chunk({"content": "x"}))], ending="flood", every=0.01), Seen())
        elif order == "break":
            self._stream(Script(answer(["x"])[:2], ending="cut"), Seen())
        else:
            self._stream(Script(answer(["fine"])), Seen())

    def _play(self, model: str, body: dict[str, Any]) -> None:
        script, seen = self.server.scripts[model], self.server.seen[model]
        with self.server.changed:
            headers = {name.lower(): value for name, value in self.headers.items()}
            port = self.client_address[1]
            seen.requests.append({"headers": headers, "body": body, "port": port})
            turn = len(seen.requests) - 1
            self.server.changed.notify_all()
        if turn < len(script.refusals):
            refusal = script.refusals[turn]
            if refusal.status:
                # Said, or the next request may come on a connection that is being closed.
                told = {**refusal.headers, "Connection": "close"}
                self._reply(refusal.status, refusal.body.encode(), told)
            self.close_connection = True
        else:
            self._stream(script, seen)

    def _stream(self, script: Script, seen: Seen) -> None:
        try:
            if script.mute:
                self._hang()
            self.send_response(200)
            self.send_header("Content-Type", script.content_type)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in script.chunks:
                self._write(piece, seen)
                time.sleep(script.every)
            until = time.monotonic() + FLOOD
            while script.ending == "flood" and time.monotonic() < until:
                self._write(script.chunks[-1], seen)
                time.sleep(script.every)
            if script.ending == "hang":
                self._hang()
            elif script.ending == "cut":
                self.close_connection = True
            else:
                self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True
            with self.server.changed:
                seen.gone = True
                self.server.changed.notify_all()

    def _write(self, piece: bytes, seen: Seen) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        seen.sent += 1

    def _hang(self) -> None:
        if not self.connection.recv(1):
            raise ConnectionResetError("the client has left")

    def _reply(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


def main() -> None:
    parser = argparse.ArgumentParser(description="A fake OpenAI-compatible server.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"))
    parser.add_argument("--models", nargs="*", default=["fake-1"])
    parser.add_argument("--strict", action="store_true", help="roles must alternate")
    parser.add_argument("--key", help="the API key it wants")
    parser.add_argument("--pace", type=float, default=0.0, help="seconds between two words")
    server = _Server(parser.parse_args())
    print(server.url, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
