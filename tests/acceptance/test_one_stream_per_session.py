"""A newer message of a session supersedes the older one: in order, in time, and without a trace."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import orjson
import pytest
from processes import Server

from .clients import Api, Frame, check_stream, lines, new_id, outcome, talking_to, text_of
from .conftest import start

TRIES = 5
MOST_TRIES = 50
"""What a server can do at all it does in one of these, however busy the machine is now and then."""

NO_STREAMS = {
    f'jarvis_streams{{state="{state}"}}': 0.0
    for state in ("pending", "active", "sealed", "ended", "undead")
}


def is_idle(metrics: dict[str, float]) -> bool:
    """Whether the registry's maps are empty."""
    return metrics.items() >= NO_STREAMS.items() and metrics["jarvis_readers"] == 0


@dataclass
class Arrivals:
    """An HTTP answer, and when each of its frames came."""

    asked_at: float = 0.0
    frames: list[Frame] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    speaks: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def first_token(self) -> float:
        """Seconds from the request to the first token."""
        first = next(i for i, frame in enumerate(self.frames) if frame["type"] == "token")
        return self.times[first] - self.asked_at

    async def read(self, api: Api, prompt: str, session: str) -> Arrivals:
        self.asked_at = time.monotonic()
        async with api.posting(prompt, session_id=session) as response:
            async for line in response.content:
                if line.strip():
                    self.frames.append(orjson.loads(line))
                    self.times.append(time.monotonic())
                    if self.frames[-1]["type"] == "token":
                        self.speaks.set()
        return self


async def supersede(api: Api, old_prompt: str) -> tuple[Arrivals, Arrivals]:
    """An answer that is being given, and the one that takes its place."""
    session, old, new = new_id(), Arrivals(), Arrivals()
    reading = asyncio.create_task(old.read(api, old_prompt, session))
    await old.speaks.wait()
    await new.read(api, "say hello", session)
    await reading
    check_stream(old.frames)
    check_stream(new.frames)
    assert outcome(old.frames) == "superseded"
    assert old.frames[-1]["superseded_by"] == new.frames[0]["stream_id"]
    assert outcome(new.frames) == "stop"
    # A grain for what was under way on the wire when the newer one was accepted.
    late = [f for f, at in zip(old.frames, old.times, strict=True) if at > new.times[0] + 0.05]
    assert late == old.frames[len(old.frames) - len(late) :]
    assert [f["type"] for f in late] in ([], ["done"])
    return old, new


async def in_time(api: Api, old_prompt: str, bound: float) -> bool:
    """Whether a successor can have its first token so soon."""
    for _ in range(MOST_TRIES):
        if (await supersede(api, old_prompt))[1].first_token < bound:
            return True
    return False


def superseded(metrics: dict[str, float]) -> float:
    """How many streams have ended so."""
    return metrics.get('jarvis_streams_ended_total{outcome="superseded"}', 0)


async def test_of_a_thousand_messages_on_both_transports_the_newest_answers(api: Api) -> None:
    session = new_id()
    before = superseded(await api.metrics())
    over_http, sockets, each = 500, 10, 50
    async with AsyncExitStack() as stack:
        ws = [await stack.enter_async_context(api.socket()) for _ in range(sockets)]
        ids = [[new_id() for _ in range(each)] for _ in ws]

        async def over_ws(number: int) -> list[list[Frame]]:
            for stream_id in ids[number]:
                await ws[number].send(
                    type="start",
                    prompt=f"hold {session}",
                    session_id=session,
                    stream_id=stream_id,
                )
            return [await ws[number].ended(stream_id) for stream_id in ids[number]]

        posts = (api.chat(f"hold {session}", session_id=session) for _ in range(over_http))
        http, sent = asyncio.gather(*posts), asyncio.gather(*map(over_ws, range(sockets)))
        await api.until(lambda now: superseded(now) == before + 999)
        await api.chat(f"open {session}")
        streams, by_socket = await http, await sent
    for answers in by_socket:
        epochs = [frames[0]["epoch"] for frames in answers]
        assert epochs == sorted(epochs)
        streams += answers
    assert len(streams) == 1000
    for frames in streams:
        check_stream(frames)
    epoch_of = {frames[0]["stream_id"]: frames[0]["epoch"] for frames in streams}
    assert len(set(epoch_of.values())) == 1000
    by_outcome: dict[str, list[list[Frame]]] = {}
    for frames in streams:
        by_outcome.setdefault(outcome(frames), []).append(frames)
    assert {name: len(of_it) for name, of_it in by_outcome.items()} == {
        "stop": 1,
        "superseded": 999,
    }
    (winner,) = by_outcome["stop"]
    assert winner[0]["epoch"] == max(epoch_of.values())
    assert text_of(winner) == "on we go"
    for frames in by_outcome["superseded"]:
        assert epoch_of[frames[-1]["superseded_by"]] > frames[0]["epoch"]
    await api.until(is_idle)


async def test_frames_of_a_session_never_go_back_to_an_older_epoch(api: Api) -> None:
    session = new_id()
    async with api.socket() as ws:
        ids = [new_id() for _ in range(60)]
        for stream_id in ids:
            await ws.send(type="start", prompt="tick 3 0", session_id=session, stream_id=stream_id)
            await asyncio.sleep(0.002)
        await ws.ended(ids[-1])
        spoken = [f["epoch"] for f in ws.frames if f["type"] != "done"]
        assert spoken == sorted(spoken)


async def test_an_agent_that_ignores_cancellation_holds_its_successor_for_the_bound(
    server: Server, api: Api
) -> None:
    before = server.log.count("prev_stream_timeout_on_cancel")
    tries = await asyncio.gather(*(supersede(api, "stubborn 10") for _ in range(TRIES)))
    waits = [new.first_token for _, new in tries]
    assert min(waits) >= 2.0
    assert await in_time(api, "stubborn 10", 2.3)
    assert server.log.count("prev_stream_timeout_on_cancel") > before + TRIES


async def test_an_agent_that_tidies_up_for_a_second_is_waited_for(api: Api) -> None:
    tries = await asyncio.gather(*(supersede(api, "tidy 1") for _ in range(TRIES)))
    waits = [new.first_token for _, new in tries]
    for old, new in tries:
        done = await api.cleanup(old.frames[0]["stream_id"], "cleanup_done")
        assert done - new.asked_at >= 1.0
        assert done <= new.asked_at + new.first_token
    assert min(waits) >= 1.0
    assert await in_time(api, "tidy 1", 1.3)


async def test_an_agent_that_obeys_costs_its_successor_less_than_50_ms(api: Api) -> None:
    assert await in_time(api, "tidy 0", 0.05)


@pytest.mark.parametrize("count", [5, 50])
@pytest.mark.parametrize("gap", [0.0, 0.003])
async def test_of_rapid_requests_over_http_only_the_last_answers(
    api: Api, count: int, gap: float
) -> None:
    session = new_id()
    async with AsyncExitStack() as stack:
        responses = []
        for _ in range(count):
            responses.append(
                await stack.enter_async_context(api.posting(f"hold {session}", session_id=session))
            )
            await asyncio.sleep(gap)
        await api.chat(f"open {session}")
        streams = [lines(await response.read()) for response in responses]
    assert [outcome(frames) for frames in streams] == ["superseded"] * (count - 1) + ["stop"]
    for frames in streams:
        check_stream(frames)


@pytest.mark.parametrize("count", [5, 60])
async def test_of_rapid_requests_over_websocket_only_the_last_answers(api: Api, count: int) -> None:
    session, ids = new_id(), [new_id() for _ in range(count)]
    async with api.socket() as ws:
        for stream_id in ids:
            await ws.send(
                type="start", prompt=f"hold {session}", session_id=session, stream_id=stream_id
            )
        await ws.until(lambda frame: frame["stream_id"] == ids[-1])
        await api.chat(f"open {session}")
        streams = [await ws.ended(stream_id) for stream_id in ids]
    assert [outcome(frames) for frames in streams] == ["superseded"] * (count - 1) + ["stop"]
    for frames in streams:
        check_stream(frames)


async def test_rapid_requests_never_run_into_the_bound() -> None:
    with start() as server:
        async with talking_to(server.url) as api:
            for _ in range(10):
                await test_of_rapid_requests_over_http_only_the_last_answers(api, 8, 0.0)
                await test_of_rapid_requests_over_websocket_only_the_last_answers(api, 8)
            await api.until(is_idle)
        assert "prev_stream_timeout_on_cancel" not in server.log


async def test_a_busy_session_can_refuse_instead(api: Api) -> None:
    session = new_id()
    async with api.socket() as ws:
        first = new_id()
        await ws.send(type="start", prompt="tidy 0", session_id=session, stream_id=first)
        await ws.spoke(first)
        body = {"prompt": "say no", "session_id": session, "on_conflict": "reject"}
        async with api.http.post(api.url + "/api/chat", json=body) as response:
            assert (response.status, (await response.json())["code"]) == (409, "conflict")
        await ws.send(type="start", **body, stream_id=new_id())
        refused = await ws.until(lambda frame: frame["type"] == "error")
        assert refused["code"] == "conflict"
        assert ws.of(first)[-1]["type"] == "token"


async def test_sessions_do_not_disturb_each_other(api: Api) -> None:
    answers = await asyncio.gather(
        *(api.chat("tick 5 0.005", session_id=f"session-{number}") for number in range(50))
    )
    assert {text_of(frames) for frames in answers} == {"0 1 2 3 4 "}
    assert {outcome(frames) for frames in answers} == {"stop"}
