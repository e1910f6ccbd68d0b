"""The program `jarvis-stream`: settings in, a running server out.

stdout carries what is told to people at the start, stderr the log, or the lines that say why there
is no start. Exit codes: 0 stopped as asked, 1 could not go on, 2 the settings cannot be used.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import ipaddress
import itertools
import os
import re
import signal
import socket
import sys
from collections.abc import Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from loguru import logger

from jarvis_stream import logs
from jarvis_stream.errors import BadSettings, JarvisError
from jarvis_stream.identity.tokens import parse_tokens
from jarvis_stream.identity.visitors import parse_secrets
from jarvis_stream.settings import (
    Settings,
    from_command_line,
    has_identity,
    log_format,
    unknown_variables,
)
from jarvis_stream.workers import FORKING, Supervisor, Worker

if TYPE_CHECKING:
    from aiohttp import web

COLLECTING = (10_000, 10, 100)
"""The garbage collector's thresholds (see gc.set_threshold).

By default it looks after every other chat (700 objects); and through all objects after a hundred of
such looks, which takes a tenth of a second where a hundred thousand answers wait to be replayed.
Next to nothing here is held by a cycle.
"""

LAST_CALL = 0.5
"""Seconds that tasks which outlived the shutdown have to end."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server until it is told to stop; returns the exit code.

    SIGINT and SIGTERM let the live answers go on for the grace time, end the others and stop it;
    a second one kills it at once. `copy-history`, `revoke` and `streams`: see commands.py.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started this
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["copy-history"]:
        return _copy_history(argv[1:])
    if argv[:1] == ["revoke"]:
        return _revoke(argv[1:])
    if argv[:1] == ["streams"]:
        return _streams(argv[1:])
    try:
        settings = from_command_line(argv)
        _refuse_strangers(settings)
        _check_workers(settings)
    except BadSettings as bad:
        logs.configure(style=log_format(argv))
        for problem in bad.problems:
            logs.complain(problem)
        logs.flush()
        return 2
    logs.configure(
        settings.log_level,
        settings.log_format,
        secrets=_secrets(settings),
    )
    with logs.capturing():
        return _start(settings)


def _start(settings: Settings) -> int:
    """Listen, and serve in this process or in several; the exit code."""
    for sentence in unknown_variables():
        logger.warning("{}", sentence)
    with contextlib.ExitStack() as stack:
        try:
            listeners = _listen(stack, settings.host, settings.port, "--port")
            if settings.workers > 1:
                of_workers = _of_workers(stack, settings, listeners)
        except _CannotListen as error:
            logs.complain(f"{error}")
            return 1
        if settings.workers == 1:
            return _run(settings, listeners)

        def work(worker: Worker) -> int:
            logs.name_worker(worker.number)
            mine = of_workers.pop(worker.number)
            for listener in itertools.chain.from_iterable(of_workers.values()):
                listener.close()
            return _run(settings, mine, worker)

        return Supervisor(settings.workers, work).run()


def _of_workers(
    stack: contextlib.ExitStack, settings: Settings, listeners: list[socket.socket]
) -> dict[int, list[socket.socket]]:
    """What each worker listens on: sockets of its own on the port that `listeners` have.

    So that the kernel shares the connections out evenly. Whoever shares one socket does not: the
    first to wake takes what there is, and connections last. The parent keeps all of them open:
    what came for a worker that has died waits for the next one.
    """
    port = listeners[0].getsockname()[1]
    for listener in listeners:  # they have shown that nobody else is there
        listener.close()
    found: dict[int, list[socket.socket]] = {}
    for number in range(1, settings.workers + 1):
        found[number] = _listen(stack, settings.host, port, "--port", shared=True)
        if settings.worker_port:
            own_port = settings.worker_port + number - 1
            found[number] += _listen(stack, settings.host, own_port, "--worker-port")
    return found


class _CannotListen(JarvisError):
    """An address cannot be had; the message says why."""


def _listen(
    stack: contextlib.ExitStack, host: str, port: int, setting: str, *, shared: bool = False
) -> list[socket.socket]:
    """See listen; closed with the stack. Raises _CannotListen, with the setting to change."""
    try:
        listeners = listen(host, port, shared=shared)
    except OSError as error:
        raise _CannotListen(
            f"cannot listen on {host}:{port}: {_why_not(error, setting)}"
        ) from error
    for listener in listeners:
        stack.enter_context(listener)
    return listeners


def _run(
    settings: Settings, listeners: Sequence[socket.socket], worker: Worker | None = None
) -> int:
    """Serve in this process until it is told to stop; the exit code."""
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            _run_until_stopped(runner, _serve(settings, listeners, worker))
            if left := runner.run(_left_over()):
                # Closing the loop would wait for them, and they had their time.
                logger.warning("agents_left_behind count={}", left)
                logs.flush()
                os._exit(0)
    except KeyboardInterrupt:  # where the loop knows no signal handlers (Windows)
        return 0
    except JarvisError as error:
        logger.opt(exception=True).debug("no start")
        logs.complain(f"{error}")
        return 2
    except Exception:
        logger.exception("the server could not go on")
        return 1
    finally:
        logs.flush()
    return 0


def _run_until_stopped(runner: asyncio.Runner, serving: Coroutine[Any, Any, None]) -> None:
    """Run the event loop until the server has stopped.

    A task or callback that raises SystemExit or KeyboardInterrupt stops the loop. Without a request
    to stop, this is a fault in an agent's code: log it, and run the loop again.
    """
    task = runner.get_loop().create_task(serving)
    while True:
        try:
            runner.run(_wait_for(task))
            return
        except (KeyboardInterrupt, SystemExit) as error:
            # A second Ctrl-C on a loop without signal handlers (Windows).
            is_interrupt = isinstance(error, KeyboardInterrupt) and task.cancelling()
            if task.done() or is_interrupt:
                raise
            logger.opt(exception=True).error("stray_exit_ignored error={}", type(error).__name__)


async def _wait_for(task: asyncio.Task[None]) -> None:
    await task


def _copy_history(argv: Sequence[str]) -> int:
    from jarvis_stream import commands
    from jarvis_stream.app import database_url

    try:
        commands.copy_history(argv, database_url(from_command_line([])))
    except BadSettings as bad:
        for problem in bad.problems:
            _complain(problem)
        return 2
    except JarvisError as error:
        _complain(f"{error}")
        return 1
    return 0


def _revoke(argv: Sequence[str]) -> int:
    from jarvis_stream import commands

    try:
        settings = from_command_line([])
        redis_url = settings.redis_url
        commands.revoke(
            argv, redis_url.get_secret_value() if redis_url else None, _local_urls(settings)[0]
        )
    except BadSettings as bad:
        for problem in bad.problems:
            _complain(problem)
        return 2
    except JarvisError as error:
        _complain(f"{error}")
        return 1
    return 0


def _streams(argv: Sequence[str]) -> int:
    from jarvis_stream import commands

    try:
        settings = from_command_line([])
        token = settings.operator_token
        return commands.streams(
            argv, _local_urls(settings), token.get_secret_value() if token else None
        )
    except BadSettings as bad:
        for problem in bad.problems:
            _complain(problem)
        return 2
    except JarvisError as error:
        _complain(f"{error}")
        return 1


def _local_urls(settings: Settings) -> list[str]:
    """The addresses of this machine's server: one for each worker that has a port of its own."""
    host = "localhost" if settings.host in ("0.0.0.0", "::") else settings.host
    ports = [settings.port]
    if settings.workers > 1 and settings.worker_port:
        ports = [settings.worker_port + number for number in range(settings.workers)]
    return [_url(host, port) for port in ports]


def listen(host: str, port: int, *, shared: bool = False) -> list[socket.socket]:
    """Listening sockets on every address of `host`, all on one port (any free one for 0).

    Several `shared` ones may have the same port; the kernel gives each connection to one of them.

    Raises OSError when one of them cannot be had. A family this machine lacks is left out, unless
    none is left.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    addresses = dict.fromkeys((family, address[0]) for family, _, _, _, address in found)
    listeners: list[socket.socket] = []
    lacking: OSError | None = None
    for family, address in addresses:
        try:
            listener = socket.create_server((address, port), family=family, reuse_port=shared)
        except OSError as error:
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                lacking = error
                continue
            for listener in listeners:
                listener.close()
            raise
        port = port or listener.getsockname()[1]
        listeners.append(listener)
    if lacking is not None and not listeners:
        raise lacking
    return listeners


def _refuse_strangers(settings: Settings) -> None:
    """Raises BadSettings for a server that others reach and that asks nobody who they are."""
    if _is_loopback(settings.host) or has_identity(settings) or settings.allow_anonymous:
        return
    raise BadSettings(
        [
            f"--host {settings.host} is reachable from other machines, and no sign-in is"
            " configured: set JARVIS_AUTH_TOKENS, or pass --allow-anonymous to permit access"
            " without sign-in"
        ]
    )


def _check_workers(settings: Settings) -> None:
    """Raises BadSettings for several workers without what they need."""
    if settings.workers == 1:
        return
    if settings.redis_url is None:
        raise BadSettings(
            [
                f"--workers {settings.workers} requires --redis-url (or JARVIS_REDIS_URL,"
                " REDIS_URL) and a --database-url of PostgreSQL, which all workers share"
            ]
        )
    if settings.worker_port + settings.workers > 65_536:
        raise BadSettings(
            [f"--worker-port {settings.worker_port}: the last worker would exceed port 65535"]
        )
    if not FORKING:
        raise BadSettings(
            [f"--workers {settings.workers}: this operating system supports only one"]
        )


def _secrets(settings: Settings) -> list[str]:
    given = [
        settings.openai_api_key,
        settings.database_url,
        settings.jwt_key,
        settings.redis_url,
        settings.operator_token,
    ]
    secrets = [secret.get_secret_value() for secret in given if secret is not None]
    if settings.auth_tokens is not None:
        secrets += parse_tokens(settings.auth_tokens.get_secret_value()).values()
    if settings.cookie_secret is not None:
        secrets += parse_secrets(settings.cookie_secret.get_secret_value())
    # Not urlsplit: what cannot be in a URL, it quotes. Some take the last @ for the host's, others
    # the first one.
    ends = [r"[^@]+", r"[^/?#]+"]
    found = [re.match(rf"[^:/]+://[^:/@]*:({end})@", each) for each in secrets for end in ends]
    passwords = [match[1] for match in found if match]
    return [*secrets, *passwords, *map(unquote, passwords)]


def _complain(sentence: str) -> None:
    # One line, even if it quotes an exception of somebody else's.
    print(f"jarvis-stream: {' '.join(sentence.split())}", file=sys.stderr)


def _why_not(error: OSError, setting: str) -> str:
    if isinstance(error, socket.gaierror):
        return "no such host; choose another with --host"
    if error.errno == errno.EADDRINUSE:
        free = " (0 selects a free one)" if setting == "--port" else ""
        return f"the port is in use; choose another with {setting}{free}"
    if error.errno == errno.EACCES:
        return f"this user may not use that port; choose one above 1023 with {setting}"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address; choose another with --host"
    return error.strerror or str(error)


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.Loop


async def _serve(
    settings: Settings, listeners: Sequence[socket.socket], worker: Worker | None
) -> None:
    """Serve until a signal cancels this; then let the streams end, and return."""
    with _collecting_seldom(), contextlib.suppress(asyncio.CancelledError):
        from jarvis_stream.app import create_app
        from jarvis_stream.server import release_large_blocks, running

        release_large_blocks()
        app = create_app(settings)
        _cancel_when_told(worker)
        async with running(app, listeners, settings):
            # What is here now stays: it need not be looked through again and again.
            gc.freeze()
            gc.enable()
            if worker is None or worker.is_first:
                _greet(app, settings, port=listeners[0].getsockname()[1])
            if worker is not None:
                worker.started()
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                logger.info("stopping")


@contextlib.contextmanager
def _collecting_seldom() -> Iterator[None]:
    """Collect garbage seldom while inside, and not at all before `gc.enable`."""
    before = gc.get_threshold()
    gc.set_threshold(*COLLECTING)
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
        gc.set_threshold(*before)


async def _left_over() -> int:
    """Cancel whatever still runs; how many tasks will not stop."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        _, tasks = await asyncio.wait(tasks, timeout=LAST_CALL)
    return len(tasks)


def _cancel_when_told(worker: Worker | None) -> None:
    """Cancel the current task on the first SIGINT, SIGTERM or SIGHUP; kill the process on the next
    SIGINT or SIGTERM.

    A SIGHUP that is ignored at the start (nohup) stays ignored. After the first signal, SIGHUP is
    ignored too: a terminal that closes may send it twice.

    In a worker the next ones change nothing: it may be told in several ways at a time, and its
    parent sees to the end.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    signals = [signal.SIGINT, signal.SIGTERM]
    hangup = getattr(signal, "SIGHUP", None)  # missing on Windows
    if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:
        signals.append(hangup)
    is_told = False

    def stop() -> None:
        nonlocal is_told
        if is_told:
            return
        is_told = True
        if worker is None:
            for number in signals:
                loop.remove_signal_handler(number)
                # The kernel's own doing: it works even when the loop hangs.
                signal.signal(number, signal.SIG_IGN if number == hangup else signal.SIG_DFL)
        else:
            loop.remove_reader(worker.lifeline)
        task.cancel()

    try:
        for number in signals:
            loop.add_signal_handler(number, stop)
    except NotImplementedError:
        pass  # Windows: asyncio.Runner turns Ctrl-C into a cancellation
    if worker is not None:
        loop.add_reader(worker.lifeline, stop)


def _greet(app: web.Application, settings: Settings, *, port: int) -> None:
    from jarvis_stream.app import CHOICE, database_place, separates_visitors

    choice = app[CHOICE]
    print(f"Jarvis Stream is at {_url(settings.host, port)}")
    print(f"The agent is {choice.name}: {choice.why}")
    print(choice.change)
    print(f"Conversations are saved in {database_place(settings)} (--database-url)")
    if settings.redis_url is not None:
        print("Other servers with the same Redis serve the same sessions (--redis-url)")
    if settings.workers > 1:
        print(f"{settings.workers} worker processes share this address")
    if separates_visitors(settings) or not (_is_loopback(settings.host) or has_identity(settings)):
        print("Every client that can reach this address can chat: no sign-in is configured.")
        if separates_visitors(settings):
            print("Each browser has its own conversations (--shared-conversations to share them)")
        else:
            print("All of them share all conversations (--shared-conversations)")
    sys.stdout.flush()


def _url(host: str, port: int) -> str:
    if host in ("0.0.0.0", "::"):
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
