"""Users at random on several servers with one database: everything at once, at a steady rate.

Other than in `chaos`, nothing fails here: so no request may either.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from contextlib import suppress
from typing import Any

import orjson
from acceptance.clients import new_id

from .servers import Node, call

SHARED = [f"shared-{number}" for number in range(6)]
"""Sessions that users of all servers talk in."""
MOST_AT_ONCE = 64
"""Requests that are under way together; past that, the rate falls."""


class MixedLoad:
    """Starts, replacements, renames, deletes, interrupts, lists and searches."""

    def __init__(self, nodes: list[Node], seed: int) -> None:
        self.nodes = nodes
        self.dice = random.Random(seed)
        self.done: Counter[tuple[str, int]] = Counter()
        """How many requests of each kind ended with each status."""
        self.wrong: list[str] = []
        """What must not happen."""
        self._unsaved: dict[str, str] = {}
        """Streams whose answer was said not to be saved, and their sessions."""

    async def run(self, seconds: float, *, rate: float) -> None:
        """Send so many requests a second, for so long."""
        began = time.monotonic()
        slots = asyncio.Semaphore(MOST_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for number in range(int(seconds * rate)):
                await asyncio.sleep(began + number / rate - time.monotonic())
                if time.monotonic() > began + seconds:
                    break  # a busy machine
                await slots.acquire()
                request = group.create_task(self._request(number))
                request.add_done_callback(lambda _: slots.release())

    async def check_saved(self) -> None:
        """An answer is not saved when its turn was removed meanwhile; then it is not there."""
        for stream_id, session_id in self._unsaved.items():
            messages = await self.nodes[0].api.messages(session_id)
            if any(message["stream_id"] == stream_id for message in messages):
                self.wrong.append(f"said not to be saved, and is: {stream_id}")

    async def _request(self, number: int) -> None:
        which = self.dice.randrange(len(self.nodes))
        node = self.nodes[which]
        if self.dice.random() < 0.5:
            session_id = self.dice.choice(SHARED)
        else:
            session_id = f"own-{which}-{self.dice.randrange(20)}"
        path = f"/api/sessions/{session_id}"
        kind = self.dice.choice(
            ["ask"] * 6 + ["stop", "replace", "rename", "delete", "list", "search", "messages"]
        )
        match kind:
            case "ask":
                await self._ask(node, session_id, number)
            case "stop":
                await self._ask(node, session_id, number, stopped=True)
            case "replace":
                status, found = await call(node, "GET", f"{path}/messages")
                self._note("messages", status)
                if status == 200:
                    turn = self.dice.choice(found["messages"])
                    await self._ask(node, session_id, number, replaces=turn["stream_id"])
            case "rename":
                await self._call(kind, node, "PATCH", path, json={"title": f"title {number}"})
            case "delete":
                await self._call(kind, node, "DELETE", path)
            case "list":
                await self._call(kind, node, "GET", "/api/sessions")
            case "search":
                await self._call(kind, node, "GET", "/api/sessions?q=0.02")
            case _:
                await self._call(kind, node, "GET", f"{path}/messages")

    async def _call(self, kind: str, node: Node, method: str, path: str, **more: Any) -> None:
        status, body = await call(node, method, path, **more)
        self._note(kind, status, body)

    async def _ask(
        self, node: Node, session_id: str, number: int, *, stopped: bool = False, **more: Any
    ) -> None:
        """Ask, in the middle of another answer perhaps, and read to the end or stop it."""
        stream_id = new_id()
        prompt = self.dice.choice(["3 0.01 0", "10 0.02 0", "500 0 0"])
        body = {"prompt": prompt, "session_id": session_id, "stream_id": stream_id, **more}
        async with node.api.http.post(f"{node.api.url}/api/chat", json=body) as response:
            kind = "replace" if more else "stop" if stopped else "ask"
            if response.status != 200:
                self._note(kind, response.status, await response.json())
                return
            self._note(kind, response.status)
            async for line in response.content:
                with suppress(orjson.JSONDecodeError):
                    frame = orjson.loads(line)
                    if frame.get("saved") is False:
                        self._unsaved[stream_id] = session_id
                    if stopped and frame["type"] == "token":
                        stopped = False
                        path = f"/api/streams/{stream_id}/cancel"
                        await self._call("interrupt", node, "POST", path)

    def _note(self, kind: str, status: int, body: Any = None) -> None:
        self.done[kind, status] += 1
        if status >= 500:
            self.wrong.append(f"{kind}: {status} {body}")
