"""A pooler before a PostgreSQL server of the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from postgres_server import PostgresServer

MOST_SECONDS = 30.0


@contextmanager
def pooling(server: PostgresServer, url: str) -> Iterator[str]:
    """Run PgBouncer in transaction mode; yields the URL of the same database through it."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    assert program, "pgbouncer is needed: apt-get install pgbouncer"
    user: dict[str, Any] = {}
    if os.geteuid() == 0:  # it refuses to be run by root
        user = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    file = server.directory / "pgbouncer.ini"
    file.write_text(
        f"[databases]\n* = host={server.directory} user=jarvis\n[pgbouncer]\nlisten_addr =\n"
        f"unix_socket_dir = {server.directory}\nlisten_port = 6432\nauth_type = any\n"
        "pool_mode = transaction\ndefault_pool_size = 3\n"
    )
    with (server.directory / "pgbouncer.log").open("ab") as log:
        process = subprocess.Popen([program, str(file)], stdout=log, stderr=log, **user)
    socket = server.directory / ".s.PGSQL.6432"
    try:
        deadline = time.monotonic() + MOST_SECONDS
        while not socket.exists():
            assert process.poll() is None, (server.directory / "pgbouncer.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield f"{url}&port=6432"
    finally:
        process.kill()
        process.wait()
        socket.unlink(missing_ok=True)
