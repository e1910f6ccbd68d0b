"""A process that chats until it is killed, and a test that kills it again and again."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import random
import time
from collections import defaultdict
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from contracts.history import PATIENT, FakeAnswer, eventually

from jarvis_stream.history.base import History, TurnEnd, TurnRecord, TurnStart
from jarvis_stream.history.open import open_history

CHATS = 4
"""At once, in one process."""
LOST_AT_MOST = 1.0
"""Seconds of text."""


def chat_until_killed(url: str, journal: str, first_epoch: int) -> None:
    """Ask and answer, and write down what was acknowledged."""
    descriptor = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    epochs = itertools.count(first_epoch)

    def note(*words: object) -> None:
        # One write: it is there, whole, whatever happens to this process next.
        os.write(descriptor, (" ".join(map(str, words)) + "\n").encode())

    async def chat(history: History, number: int) -> None:
        dice = random.Random(number)
        while True:
            epoch = next(epochs)
            stream_id, answer = f"{epoch}-{number}", FakeAnswer()
            turn = TurnStart(
                session_id=f"s{number}",
                stream_id=stream_id,
                epoch=epoch,
                prompt=f"question {stream_id}",
                created_at=time.time(),
            )
            begun = await history.begin(turn, answer)
            assert begun.saved
            note("begun", stream_id)
            for _ in range(dice.choice((0, 3, 30, 3000))):
                answer.say(f"{stream_id} ")
                note("said", stream_id, answer.text_size, time.monotonic())
                await asyncio.sleep(0.003)
            assert await history.finish(stream_id, TurnEnd(status="complete"))
            note("ended", stream_id, answer.text_size)

    async def main() -> None:
        async with open_history(url, PATIENT) as history:
            await asyncio.gather(*(chat(history, number) for number in range(CHATS)))

    asyncio.run(main())


@dataclass
class Journal:
    """What a killed process had been told, by stream_id."""

    begun: set[str] = field(default_factory=set)
    ended: dict[str, int] = field(default_factory=dict)
    said: defaultdict[str, list[tuple[int, float]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    @classmethod
    def read(cls, path: Path) -> Journal:
        journal = cls()
        for line in path.read_text().splitlines() if path.exists() else ():
            kind, stream_id, *rest = line.split()
            if kind == "begun":
                journal.begun.add(stream_id)
            elif kind == "ended":
                journal.ended[stream_id] = int(rest[0])
            else:
                journal.said[stream_id].append((int(rest[0]), float(rest[1])))
        return journal

    def owed(self, stream_id: str, killed_at: float) -> int:
        """How many bytes of an unfinished answer must be there."""
        said = self.said[stream_id]
        return max((size for size, at in said if at < killed_at - LOST_AT_MOST), default=0)


def _start(url: str, journal: Path, first_epoch: int) -> ForkServerProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "jarvis_stream.history.writer"])
    process = context.Process(
        target=chat_until_killed, args=(url, str(journal), first_epoch), daemon=True
    )
    process.start()
    return process


async def kill_again_and_again(url: str, directory: Path, *, times: int, seed: int) -> None:
    """Nothing acknowledged is lost, nothing unfinished pretends to go on."""
    dice = random.Random(seed)
    everything = Journal()
    unfinished = interrupted = owing = short = 0
    for time_number in range(times):
        path = directory / f"journal{time_number}"
        async with open_history(url, PATIENT) as history:
            first_epoch = await history.last_epoch() + 1
        process = _start(url, path, first_epoch)
        if dice.random() < 0.8:  # the others may die while they open it

            async def answering(path: Path = path) -> bool:
                return bool(Journal.read(path).begun)

            await eventually(answering)
        # Some die so late that text is owed.
        await asyncio.sleep(dice.choice((0.05, 0.3, 1.8)) * dice.random())
        assert process.is_alive(), "it ended by itself"
        process.kill()
        killed_at = time.monotonic()
        process.join()
        process.close()
        journal = Journal.read(path)
        everything.begun |= journal.begun
        everything.ended |= journal.ended
        turns: dict[str, TurnRecord] = {}

        async def told(turns: dict[str, TurnRecord] = turns) -> bool:
            # PostgreSQL may take a moment to see that the process is gone.
            async with open_history(url, PATIENT) as history:
                for number in range(CHATS):
                    for turn in await history.turns(f"s{number}"):
                        turns[turn.stream_id] = turn
            return all(turn.status != "streaming" for turn in turns.values())

        await eventually(told)
        assert everything.begun <= turns.keys(), "an acknowledged question is lost"
        for stream_id, size in everything.ended.items():
            turn = turns[stream_id]
            assert (turn.status, len(turn.text)) == ("complete", size)
        assert all(turn.status in ("complete", "interrupted") for turn in turns.values())
        owed = {one: journal.owed(one, killed_at) for one in journal.begun - journal.ended.keys()}
        for stream_id in owed:
            turn = turns[stream_id]
            assert turn.prompt == f"question {stream_id}"
            assert turn.text == f"{stream_id} " * (len(turn.text) // (len(stream_id) + 1))
            unfinished += 1
            interrupted += turn.status == "interrupted"
        owing += any(owed.values())
        short += any(len(turns[one].text) < size for one, size in owed.items())
        assert all(
            turn.text == f"{stream_id} " * (len(turn.text) // (len(stream_id) + 1))
            for stream_id, turn in turns.items()
        )
    assert short <= owing / 2, "text is lost, and not because the disk stalled once"
    assert owing
    assert unfinished >= times
    assert interrupted >= times / 2
