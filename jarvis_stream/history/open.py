"""Which history: a URL or a path becomes an open one."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jarvis_stream.history.base import History, HistoryUnusable, Limits
from jarvis_stream.history.memory import MemoryHistory

if TYPE_CHECKING:
    import sqlalchemy as sa

    from jarvis_stream.history.backends import Backend
    from jarvis_stream.history.sql import SqlStore

MEMORY: Final = "memory:"
"""The URL of a history that is gone with its process."""

_WHICH: Final = "use a path or sqlite:///PATH, postgresql://USER:PASSWORD@HOST/NAME, or memory:"


def default_database_url() -> str:
    """A SQLite file in the user's data directory."""
    base: str | Path
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return f"sqlite:///{Path(base) / 'jarvis-stream' / 'history.sqlite3'}"


def describe_url(url: str) -> str:
    """Where the history is, for people: a file's path, or a URL without passwords.

    Raises HistoryUnusable when it is none that this program knows.
    """
    if url == MEMORY:
        return "memory"
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite":
        return str(Path(parsed.database or "").absolute())
    return parsed.set(query={}).render_as_string(hide_password=True)


def is_shared(url: str) -> bool:
    """Whether several processes on several machines can keep their turns there."""
    return url != MEMORY and _parse(url).get_backend_name() == "postgresql"


def beside(url: str, suffix: str) -> Path | None:
    """Return the path of a file beside a SQLite history; None for any other history."""
    if url == MEMORY:
        return None
    parsed = _parse(url)
    if parsed.get_backend_name() != "sqlite":
        return None
    return Path(f"{Path(parsed.database or '').absolute()}{suffix}")


@asynccontextmanager
async def open_history(
    url: str, limits: Limits | None = None, *, flush_timeout: float = 5.0
) -> AsyncIterator[History]:
    """The history at `url`: a path, a SQLAlchemy URL of SQLite or PostgreSQL, or `memory:`.

    The schema is brought to this program's version first. Raises HistoryUnusable when the database
    cannot be reached, was written by a newer program, or its driver is not installed. On leaving,
    what is not durable yet gets `flush_timeout` seconds.
    """
    limits = limits or Limits()
    if url == MEMORY:
        yield MemoryHistory(max_messages=limits.max_messages, max_chars=limits.max_chars)
        return
    # Not before it is needed: SQLAlchemy takes half a second to import.
    from jarvis_stream.history.writer import HistoryWriter

    instance_id = uuid.uuid4().hex
    store = make_store(make_backend(url, instance_id), instance_id, limits)
    try:
        try:
            await store.prepare()
        except HistoryUnusable:
            raise
        except Exception as error:
            raise HistoryUnusable(
                f"the history at {describe_url(url)} cannot be opened: {store.explain(error)}"
            ) from error
        async with HistoryWriter(store, limits).running(flush_timeout=flush_timeout) as history:
            yield history
    finally:
        await store.close()


def make_backend(url: str, instance_id: str) -> Backend:
    """The database at a URL, not yet connected to. Raises HistoryUnusable."""
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite":
        from jarvis_stream.history.sqlite import SqliteBackend

        return SqliteBackend(parsed, instance_id)
    from jarvis_stream.history.postgres import PostgresBackend

    try:
        return PostgresBackend(parsed, instance_id)
    except ModuleNotFoundError as error:
        raise HistoryUnusable(
            f"{error.name} is not installed; for PostgreSQL: pip install 'jarvis-stream[postgres]'"
        ) from error


def make_store(backend: Backend, instance_id: str, limits: Limits) -> SqlStore:
    """What is kept there, as this process sees it."""
    from jarvis_stream.history.sql import SqlStore

    return SqlStore(
        backend,
        instance_id=instance_id,
        lease=limits.lease,
        max_messages=limits.max_messages,
        max_chars=limits.max_chars,
    )


def _parse(url: str) -> sa.URL:
    import sqlalchemy as sa

    if "://" not in url:
        url = f"sqlite:///{url}"
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError) as error:
        raise HistoryUnusable(f"the database URL cannot be read; {_WHICH}") from error
    if parsed.drivername in ("sqlite", "sqlite+pysqlite", "sqlite+aiosqlite"):
        if parsed.database in (None, "", ":memory:") or "uri" in parsed.query:
            raise HistoryUnusable("a SQLite history needs a file; in memory, it is called memory:")
        return parsed.set(drivername="sqlite+pysqlite")
    if parsed.drivername in ("postgres", "postgresql", "postgresql+psycopg"):
        return parsed.set(drivername="postgresql+psycopg")
    raise HistoryUnusable(f"there is no history in {parsed.drivername}; {_WHICH}")
