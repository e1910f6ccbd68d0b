"""Watching a session: every stream of it, whoever started it, from its beginning."""

from __future__ import annotations

import asyncio

import pytest
from explorer import in_virtual_time
from fake_history import SlowHistory
from fakes import FakeReader, Tidy, read_all, says, talks
from house import House, settle

from jarvis_stream.errors import Conflict, NotFound
from jarvis_stream.registry import StreamRegistry
from jarvis_stream.stream import Followed, State


class Tab:
    """A watcher that reads whatever it is shown."""

    def __init__(self, registry: StreamRegistry, session_id: str = "s") -> None:
        self.readers: list[FakeReader] = []
        self._registry = registry
        self._session_id = session_id
        registry.watch(session_id, self)

    def see(self, stream: Followed) -> None:
        """See node.Watcher."""
        self.readers.append(FakeReader(stream))

    @property
    def seen(self) -> list[str]:
        """The streams it was shown, in their order."""
        return [reader.stream.stream_id for reader in self.readers]

    def close(self) -> None:
        """As a tab that is closed."""
        self._registry.unwatch(self._session_id, self)
        for reader in self.readers:
            reader.leave()


@in_virtual_time
async def test_a_watcher_is_shown_the_live_stream_from_its_beginning() -> None:
    house = House(talks=talks("a", "b"))
    a = FakeReader(house.open("A", "talks"))
    await a.sees("ab")
    tab = Tab(house.registry)
    assert tab.seen == ["A"]
    assert tab.readers[0].data == a.data == read_all(a.stream)


@in_virtual_time
async def test_a_watcher_is_shown_every_new_stream_of_its_session_and_of_no_other() -> None:
    house = House(hello=says("a"))
    tab = Tab(house.registry)
    assert tab.seen == []
    await house.open("A", "hello").stopped
    await house.open("X", "hello", session_id="t").stopped
    await house.open("Y", "hello", session_id=None).stopped
    await house.open("B", "hello").stopped
    await settle()
    assert tab.seen == ["A", "B"]
    assert [reader.ends for reader in tab.readers] == [1, 1]


@in_virtual_time
async def test_a_watcher_sees_what_supersedes_what() -> None:
    house = House(talks=talks("a"), hello=says("b"))
    tab = Tab(house.registry)
    house.open("A", "talks")
    await tab.readers[0].sees("a")
    await house.open("B", "hello").stopped
    await settle()
    first, second = (reader.frames for reader in tab.readers)
    assert (first[-1]["finish_reason"], first[-1]["superseded_by"]) == ("superseded", "B")
    assert second[-1]["finish_reason"] == "stop"
    assert second[0]["epoch"] > first[0]["epoch"]


@in_virtual_time
async def test_a_watcher_is_shown_what_waits_its_turn() -> None:
    house = House(talks=talks("a"), hello=says("b"))
    house.open("A", "talks")
    early = Tab(house.registry)
    house.open("B", "hello", on_conflict="enqueue")
    late = Tab(house.registry)
    assert early.seen == late.seen == ["A", "B"]
    await house.registry.cancel("A")
    await early.readers[1].end()
    await late.readers[1].end()
    assert early.readers[1].data == late.readers[1].data


@in_virtual_time
async def test_a_watcher_is_shown_a_stopped_stream_only_until_its_end() -> None:
    house = House(SlowHistory(finish_after=1.0), tidy=Tidy(3.0, "a"))
    a = FakeReader(house.open("A", "tidy"))
    await a.sees("a")
    stopping = asyncio.ensure_future(house.registry.cancel("A"))
    await settle()
    assert a.stream.state is State.SEALED
    tab = Tab(house.registry)
    assert tab.seen == ["A"]
    await a.end()
    assert Tab(house.registry).seen == []
    await stopping
    assert tab.readers[0].data == a.data


@in_virtual_time
async def test_a_message_whose_stop_came_first_is_shown_too() -> None:
    house = House(hello=says("a"))
    tab = Tab(house.registry)
    with pytest.raises(NotFound):
        _ = house.registry.cancel("A")
    house.open("A", "hello")
    assert tab.seen == ["A"]
    assert (await tab.readers[0].end())["finish_reason"] == "cancelled"


@in_virtual_time
async def test_the_same_request_again_is_shown_once() -> None:
    house = House(talks=talks("a"))
    tab = Tab(house.registry)
    house.open("A", "talks")
    house.open("A", "talks")
    assert tab.seen == ["A"]


@in_virtual_time
async def test_a_watcher_that_watches_again_is_shown_each_new_stream_once() -> None:
    house = House(hello=says("a"))
    tab = Tab(house.registry)
    house.registry.watch("s", tab)
    house.open("A", "hello")
    assert tab.seen == ["A"]


@in_virtual_time
async def test_a_watcher_that_has_left_is_shown_nothing_and_leaves_nothing_behind() -> None:
    house = House(hello=says("a"))
    first, second = Tab(house.registry), Tab(house.registry)
    first.close()
    await house.open("A", "hello").stopped
    assert (first.seen, second.seen) == ([], ["A"])
    second.close()
    second.close()
    assert not house.registry._watchers


@in_virtual_time
async def test_leaving_while_being_shown_a_stream_keeps_it_from_no_other_watcher() -> None:
    house = House(hello=says("a"))

    class Fleeting(Tab):
        def see(self, stream: Followed) -> None:
            super().see(stream)
            self.close()

    Fleeting(house.registry)
    steady = Tab(house.registry)
    house.open("A", "hello")
    assert steady.seen == ["A"]
    await steady.readers[0].end()


@in_virtual_time
async def test_a_stream_lives_while_somebody_watches() -> None:
    house = House(talks=talks("a"))
    tab = Tab(house.registry)
    own = FakeReader(house.open("A", "talks"))
    await own.sees("a")
    own.leave()
    await settle()
    stream = own.stream
    assert stream.state is State.ACTIVE
    tab.close()
    await stream.stopped
    assert read_all(stream).endswith(b'"finish_reason":"cancelled"}\n')
    assert not house.registry._watchers
    assert not house.registry._sessions


@in_virtual_time
async def test_watching_outlives_the_sessions_streams_and_its_deletion() -> None:
    house = House(talks=talks("a"), hello=says("b"))
    tab = Tab(house.registry)
    house.open("A", "talks")
    assert await house.registry.delete("s")
    await settle()
    assert tab.readers[0].frames[-1]["finish_reason"] == "cancelled"
    await house.open("B", "hello").stopped
    assert tab.seen == ["A", "B"]


@in_virtual_time
async def test_a_refused_message_is_shown_to_nobody() -> None:
    house = House(talks=talks("a"))
    house.open("A", "talks")
    tab = Tab(house.registry)
    with pytest.raises(Conflict):
        house.open("B", "talks", on_conflict="reject")
    assert tab.seen == ["A"]
