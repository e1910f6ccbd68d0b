"""Ended streams stay for a while, within bounds, and then they are gone."""

from __future__ import annotations

import asyncio

from explorer import in_virtual_time

from jarvis_stream.frames import Done
from jarvis_stream.shelf import Shelf
from jarvis_stream.stream import Stream


def ended(stream_id: str, text: str = "x", owner: str = "") -> Stream:
    stream = Stream(session_id="s", stream_id=stream_id, trace_id="t", epoch=1, owner=owner)
    stream.activate()
    stream.append(text)
    stream.end(Done("stop"))
    return stream


@in_virtual_time
async def test_a_stream_is_kept_for_its_time_and_not_longer() -> None:
    shelf = Shelf(seconds=10.0)
    a = ended("A")
    shelf.put(a)
    await asyncio.sleep(5.0)
    shelf.put(ended("B"))
    await asyncio.sleep(4.0)
    assert shelf.get("A") is a
    await asyncio.sleep(1.0)
    assert shelf.get("A") is None
    assert len(shelf) == 1
    await asyncio.sleep(5.0)
    assert (len(shelf), shelf.size) == (0, 0)


@in_virtual_time
async def test_the_oldest_go_first_when_there_is_no_room() -> None:
    streams = [ended(name, "x" * 1000) for name in "ABC"]
    shelf = Shelf(max_bytes=2 * streams[0].size)
    for stream in streams:
        shelf.put(stream)
    assert [shelf.get(name) for name in "ABC"] == [None, *streams[1:]]
    assert shelf.size == sum(stream.size for stream in streams[1:])


@in_virtual_time
async def test_one_principals_answers_do_not_evict_anothers_smaller_share() -> None:
    mine = [ended(f"B{n}", "x" * 1000, "bob") for n in range(2)]
    shelf = Shelf(max_bytes=5 * mine[0].size)
    for stream in mine:
        shelf.put(stream)
    for n in range(50):
        shelf.put(ended(f"A{n}", "x" * 1000, "ann"))
    assert [shelf.get(stream.key) for stream in mine] == mine
    assert shelf.get("ann/A49") is not None
    assert shelf.get("ann/A0") is None
    assert shelf.size <= 5 * mine[0].size
    shelf.clear()
    assert (len(shelf), shelf.size, len(shelf._of_owner), len(shelf._shares)) == (0, 0, 0, 0)


@in_virtual_time
async def test_a_stream_that_is_larger_than_the_shelf_is_not_kept() -> None:
    shelf = Shelf(max_bytes=100)
    shelf.put(ended("A", "x" * 1000))
    assert (len(shelf), shelf.size, shelf.get("A")) == (0, 0, None)


@in_virtual_time
async def test_a_stream_is_put_once() -> None:
    shelf = Shelf()
    a = ended("A")
    shelf.put(a)
    shelf.put(a)
    assert (len(shelf), shelf.size) == (1, a.size)


@in_virtual_time
async def test_a_shelf_for_no_time_keeps_nothing() -> None:
    shelf = Shelf(seconds=0)
    shelf.put(ended("A"))
    assert (len(shelf), shelf.size) == (0, 0)


@in_virtual_time
async def test_a_cleared_shelf_is_empty_and_can_be_used_again() -> None:
    shelf = Shelf(seconds=10.0)
    shelf.put(ended("A"))
    await asyncio.sleep(9.0)
    shelf.clear()
    assert (len(shelf), shelf.size) == (0, 0)
    b = ended("B")
    shelf.put(b)
    await asyncio.sleep(9.0)
    assert shelf.get("B") is b
    await asyncio.sleep(1.0)
    assert shelf.get("B") is None


@in_virtual_time
async def test_a_stream_whose_end_comes_while_it_is_here_is_taken_away_as_it_was_put() -> None:
    keeping: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    stream = Stream(
        session_id="s", stream_id="A", trace_id="t", epoch=1, keep=lambda stream, ending: keeping
    )
    stream.activate()
    stream.append("a")
    stream.end(Done("stop"))
    shelf = Shelf()
    shelf.put(stream)
    keeping.set_result(True)
    await stream.ended
    shelf.clear()
    assert (len(shelf), shelf.size) == (0, 0)
