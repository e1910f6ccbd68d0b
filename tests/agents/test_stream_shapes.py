"""The streams of many servers, whole, byte by byte and cut at every boundary."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, cast

import aiohttp
import openai
import pytest
from fake_openai import FakeServer, Script
from stream_shapes import SHAPES, Shape

from jarvis_stream.agents.base import Piece, Turn
from jarvis_stream.agents.openai import OpenAIAgent, _Completion
from jarvis_stream.errors import StreamFailure
from jarvis_stream.frames import Done

TURN = Turn("Hi", [{"role": "user", "content": "Hi"}], "session", "stream", "0" * 32)
EACH_SHAPE = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with FakeServer.running() as running:
        yield running


class Body:
    """A response whose body arrives in given chunks; its own `content`, too."""

    url = "http://upstream/v1/chat/completions"

    def __init__(self, chunks: Sequence[bytes], content_type: str) -> None:
        self._chunks = iter(chunks)
        self.content = self
        self.content_type = content_type.partition(";")[0]

    async def readany(self) -> bytes:
        return next(self._chunks, b"")

    def close(self) -> None:
        pass


async def read(shape: Shape, chunks: Sequence[bytes]) -> tuple[list[Piece], str | None]:
    """Return the pieces of an answer, and the sentence with which it fails."""
    body = cast(aiohttp.ClientResponse, Body(chunks, shape.content_type))
    completion = _Completion(body, "")
    pieces: list[Piece] = []
    try:
        while more := await completion.next():
            pieces += more
    except StreamFailure as failed:
        return pieces, failed.sentence
    finally:
        completion.close()
    return pieces, None


def check(shape: Shape, pieces: list[Piece], failure: str | None) -> None:
    """Assert that an answer is what the shape says."""
    assert "".join(piece for piece in pieces if isinstance(piece, str)) == shape.text
    statuses = [
        piece.status if piece.status != "tool" else f"tool:{piece.fields['name']}"
        for piece in pieces
        if not isinstance(piece, str | Done)
    ]
    assert tuple(statuses) == shape.statuses
    if shape.failure is not None:
        assert failure is not None
        assert shape.failure in failure
        assert not any(isinstance(piece, Done) for piece in pieces)
    else:
        assert failure is None
        assert pieces[-1] == Done(shape.finish_reason, shape.usage)


@EACH_SHAPE
async def test_a_stream_is_understood_byte_by_byte(shape: Shape) -> None:
    chunks = [bytes([byte]) for byte in shape.body]
    check(shape, *await read(shape, chunks))


@EACH_SHAPE
async def test_a_stream_is_understood_wherever_it_is_cut(shape: Shape) -> None:
    for at in range(1, len(shape.body)):
        pieces, failure = await read(shape, [shape.body[:at], shape.body[at:]])
        check(shape, pieces, failure)


@EACH_SHAPE
async def test_a_stream_is_understood_whole_over_http(server: FakeServer, shape: Shape) -> None:
    model = await server.play(Script([shape.body], content_type=shape.content_type))
    pieces: list[Piece] = []
    failure = None
    async with OpenAIAgent(base_url=server.url, model=model, max_retries=0) as agent:
        try:
            async for piece in agent(TURN):
                pieces.append(piece)
        except StreamFailure as failed:
            failure = failed.sentence
    check(shape, pieces, failure)


@pytest.mark.parametrize(
    "shape",
    [shape for shape in SHAPES if shape.is_standard and shape.failure is None],
    ids=lambda shape: shape.name,
)
async def test_the_official_client_reads_the_same(server: FakeServer, shape: Shape) -> None:
    model = await server.play(Script([shape.body], content_type=shape.content_type))
    text, tools = "", []
    reason: str | None = None
    used: dict[str, Any] | None = None
    async with openai.AsyncOpenAI(base_url=server.url, api_key="k", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "Hi"}], stream=True
        )
        async for event in stream:
            if event.usage:
                used = event.usage.model_dump(exclude_unset=True)
            for choice in event.choices:
                text += (choice.delta.content or "") + (choice.delta.refusal or "")
                calls = choice.delta.tool_calls or []
                tools += [call.function.name for call in calls if call.function]
                reason = choice.finish_reason or reason
    assert (text, reason, used) == (shape.text, shape.finish_reason, shape.usage)
    names = [name for name in shape.statuses if name.startswith("tool:")]
    assert [f"tool:{name}" for name in tools if name] == names


@pytest.mark.parametrize("shape", [s for s in SHAPES if s.failure], ids=lambda shape: shape.name)
async def test_the_official_client_fails_too(server: FakeServer, shape: Shape) -> None:
    model = await server.play(Script([shape.body], content_type=shape.content_type))
    async with openai.AsyncOpenAI(base_url=server.url, api_key="k", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "Hi"}], stream=True
        )
        text, failed = "", False
        try:
            async with asyncio.timeout(20):
                async for event in stream:
                    for choice in event.choices or ():
                        text += choice.delta.content or ""
        except openai.APIError:
            failed = True
    assert failed or shape.content_type.startswith("application/json")
    assert text == shape.text
