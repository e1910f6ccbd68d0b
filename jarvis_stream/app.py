"""Where things meet: settings, agent, history and registry become one aiohttp application.

    app = create_app()                          # settings from the environment
    app = create_app(Settings(port=9000), agent=my_agent)

Serve it with `handler_cancellation=True` (an argument of `web.AppRunner` and `web.run_app`): a
client that leaves is then noticed at once, however silent the agent is.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from loguru import logger

import jarvis_stream
from jarvis_stream import metrics
from jarvis_stream.agents.base import Agent
from jarvis_stream.agents.choose import Choice, choose_agent, running_agent
from jarvis_stream.cluster.base import Cluster, StoreLost
from jarvis_stream.errors import BadSettings, ShuttingDown, Unavailable
from jarvis_stream.frames import PROTOCOL
from jarvis_stream.history.base import History
from jarvis_stream.history.base import Limits as HistoryLimits
from jarvis_stream.history.open import (
    beside,
    default_database_url,
    describe_url,
    is_shared,
    open_history,
)
from jarvis_stream.identity.base import RunningVerifier, Verifier
from jarvis_stream.identity.tokens import StaticTokens, parse_tokens
from jarvis_stream.identity.visitors import SecretUnusable, Visitors, parse_secrets, secret_in
from jarvis_stream.node import Node
from jarvis_stream.passes import Keeper, Passes
from jarvis_stream.progress import ProgressSampler
from jarvis_stream.quota import Limiter, Rates
from jarvis_stream.registry import StreamRegistry
from jarvis_stream.settings import Settings, has_identity
from jarvis_stream.shelf import Shelf
from jarvis_stream.stream import Stream
from jarvis_stream.transports import admin, cors, gate, ndjson, pages, sessions, websocket
from jarvis_stream.transports.answers import guard, json_answer
from jarvis_stream.transports.bodies import READS, SLICES, ReadBudget, SliceScheduler
from jarvis_stream.transports.context import COUNTS, LIMITS, REGISTRY, Counts, Limits
from jarvis_stream.transports.door import DOORS, Doors
from jarvis_stream.transports.quotas import QUOTAS, Quotas
from jarvis_stream.transports.requests import is_loopback
from jarvis_stream.watchdog import LoopWatchdog

CHOICE: Final = web.AppKey("choice", Choice)
"""Which agent answers, and why; there once the application has started."""

AGENT_NAME: Final = web.AppKey("agent_name", str)
"""The agent's name for clients; empty when the agent's own name is shown."""


def create_app(
    settings: Settings | None = None,
    *,
    agent: Agent | None = None,
    authenticate: gate.Hook | None = None,
    cluster: Cluster | None = None,
) -> web.Application:
    """The whole server, not yet started.

    `agent` answers every turn; without one, `settings.agent` decides when the application starts.
    `authenticate(request)` tells who asks, or None, in the place of the settings' own ways.
    `cluster` is what several servers share, in the place of the settings' Redis.
    """
    settings = settings or Settings()
    cluster = cluster or _cluster(settings)
    app = web.Application(middlewares=[guard, gate.gate], client_max_size=settings.max_body_bytes)
    app[LIMITS] = Limits(
        max_body_bytes=settings.max_body_bytes,
        max_prompt_chars=settings.max_prompt_chars,
        max_streams_per_socket=settings.max_streams_per_socket,
        heartbeat=settings.heartbeat,
        stall_timeout=settings.stall_timeout,
        allowed_origins=frozenset(settings.allowed_origins),
        local_only=is_loopback(settings.host),
        body_timeout=settings.body_timeout,
        socket_idle_timeout=settings.socket_idle_timeout,
        max_messages_per_second=settings.max_messages_per_second,
    )
    app[AGENT_NAME] = settings.agent_name
    app[COUNTS] = counts = Counts()
    app[DOORS] = Doors(
        counts.refused,
        most=settings.max_connections,
        header_timeout=settings.header_timeout,
        idle_timeout=settings.idle_timeout,
        # The pump lets stalled readers go first, and tells them why.
        send_timeout=2 * settings.stall_timeout,
        stall_timeout=settings.stall_timeout,
        let_go=counts.let_go,
        max_message=settings.max_body_bytes,
    )
    app[READS] = ReadBudget()
    app[SLICES] = SliceScheduler()
    shared = _shared(settings)
    app[QUOTAS] = Quotas(
        sockets_per_address=settings.max_sockets_per_address,
        sockets_per_principal=settings.max_sockets_per_principal,
        starts=shared.starts,
        visitors=shared.visitors,
        # Counted per server: a trip to the store would cost more than most reads.
        reads=Rates(settings.max_reads_per_minute, 60.0),
        changes=Rates(settings.max_changes_per_minute, 60.0),
        searches=Rates(settings.max_searches_per_minute, 60.0),
        proxies=settings.trusted_proxies,
    )
    verifiers = _verifiers(settings)
    app[gate.GATE] = gate.Gate(
        verifiers,
        authenticate,
        tickets=shared.tickets,
        logins=shared.logins,
        proxies=settings.trusted_proxies,
        open_metrics=settings.open_metrics,
    )
    app[websocket.SOCKETS] = set()
    operator_token = settings.operator_token
    app[admin.OPERATORS] = admin.OperatorAccess(
        operator_token.get_secret_value() if operator_token else None,
        # Behind a proxy, a request of a client can look like one of this machine.
        trust_this_machine=app[gate.GATE].kind == "none"
        and is_loopback(settings.host)
        and not (settings.allowed_origins or settings.trusted_proxies),
    )
    for routes in (
        gate.routes,
        ndjson.routes,
        websocket.routes,
        sessions.routes,
        admin.routes,
    ):
        app.add_routes(routes)
    app.router.add_get("/api/info", _info)
    cors.setup(app, settings.allowed_origins)
    app.router.add_get("/livez", _livez)
    app.router.add_get("/readyz", _readyz)
    app.router.add_get("/metrics", metrics.metrics)
    pages.setup(app)
    app.on_response_prepare.append(gate.send_visitor_cookie)
    has_visitors = authenticate is None and separates_visitors(settings)
    if has_visitors:
        _check_cookie_secret(settings)

    async def lifetime(app: web.Application) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(shared.running())
            for verifier in verifiers:
                if isinstance(verifier, RunningVerifier):
                    await stack.enter_async_context(verifier.running())
            choice = await _choose(settings, agent)
            if isinstance(choice.agent, AbstractAsyncContextManager):
                await stack.enter_async_context(running_agent(choice.agent, choice.name))
            app[CHOICE] = choice
            logger.info("agent_chosen agent={} why={}", choice.name, choice.why)
            history = await stack.enter_async_context(
                open_history(
                    database_url(settings),
                    HistoryLimits(
                        max_messages=settings.history_messages, max_chars=settings.history_chars
                    ),
                )
            )
            trace = await stack.enter_async_context(_tracer()) if settings.traces != "off" else None
            node = Node(cluster) if cluster is not None else None
            if has_visitors:
                app[gate.GATE].visitors = await asyncio.to_thread(_visitors, settings)
            app[REGISTRY] = registry = await _registry(
                settings, choice.agent, history, trace, node, has_visitors=has_visitors
            )
            lag = stack.enter_context(metrics.LoopLag())
            stack.enter_context(ProgressSampler(registry))
            watchdog = stack.enter_context(LoopWatchdog())
            collectors = [
                metrics.StreamCollector(registry),
                metrics.TransportCollector(
                    counts, app[websocket.SOCKETS], lag, app[DOORS], watchdog
                ),
            ]
            if node is not None:
                # Last in, first out: what it owes the store at the end needs nothing else.
                await stack.enter_async_context(node.running(registry.hear, registry.disown))
                collectors.append(metrics.NodeCollector(node))
            app[metrics.COLLECTORS] = metrics.collectors(*collectors)
            yield

    async def shut_down(app: web.Application) -> None:
        # In on_shutdown, before aiohttp begins to wait for the handlers. Nothing is left to do
        # here where the server has done all of it (see server.py).
        await drain(app, settings.shutdown_grace)
        await end(app)

    app.cleanup_ctx.append(lifetime)
    app.on_shutdown.append(shut_down)
    return app


def _cluster(settings: Settings) -> Cluster | None:
    """What this server shares with others; raises BadSettings."""
    if settings.redis_url is None:
        return None
    if not is_shared(database_url(settings)):
        raise BadSettings(
            [
                "--redis-url (several servers) requires a --database-url of"
                " PostgreSQL, which all of them share"
            ]
        )
    try:
        from jarvis_stream.cluster.redis import RedisCluster
    except ModuleNotFoundError as error:
        raise BadSettings(
            [f"--redis-url needs {error.name}: pip install 'jarvis-stream[redis]'"]
        ) from error
    try:
        return RedisCluster(
            settings.redis_url.get_secret_value(),
            lease=settings.lease,
            # While a stream lives its heartbeat renews this.
            keep=max(settings.replay_seconds, 10 * settings.lease),
            wait=settings.redis_wait,
        )
    except StoreLost as error:
        raise BadSettings([str(error)]) from error


@dataclass(frozen=True, slots=True)
class _Shared:
    """What counts for all servers together, where there are several."""

    tickets: Keeper
    logins: Keeper
    starts: Limiter
    visitors: Limiter
    running: Callable[[], AbstractAsyncContextManager[object]] = contextlib.nullcontext
    """What they need around them."""


def _shared(settings: Settings) -> _Shared:
    """Raises BadSettings."""
    if settings.redis_url is None:
        return _Shared(
            Passes(seconds=gate.TICKET_SECONDS),
            Passes(seconds=settings.login_seconds),
            Rates(settings.max_starts_per_minute, 60.0),
            Rates(settings.max_visitors_per_hour, 3600.0),
        )
    from jarvis_stream.cluster import shared

    try:
        router = shared.shared_router(
            settings.redis_url.get_secret_value(), wait=settings.redis_wait
        )
    except StoreLost as error:
        raise BadSettings([str(error)]) from error
    tickets = shared.RedisPasses(router, "ticket", seconds=gate.TICKET_SECONDS)
    logins = shared.RedisPasses(router, "login", seconds=settings.login_seconds)

    @contextlib.asynccontextmanager
    async def running() -> AsyncIterator[None]:
        async with router.running(), logins.running():
            yield

    starts = shared.RedisRates(router, "starts", settings.max_starts_per_minute, 60.0)
    visitors = shared.RedisRates(router, "visitors", settings.max_visitors_per_hour, 3600.0)
    return _Shared(tickets, logins, starts, visitors, running)


def separates_visitors(settings: Settings) -> bool:
    """Return whether each browser is a separate principal, without sign-in.

    On a loopback address this applies only to browsers that come through a reverse proxy, and only
    with --allow-anonymous; otherwise there is one user.
    """
    if has_identity(settings) or settings.shared_conversations:
        return False
    return settings.allow_anonymous or not is_loopback(settings.host)


def _check_cookie_secret(settings: Settings) -> None:
    """Raise BadSettings if each node of a shared history would create its own secret."""
    if settings.cookie_secret is None and is_shared(database_url(settings)):
        raise BadSettings(
            [
                "--allow-anonymous with PostgreSQL needs --cookie-secret (better the variable"
                " JARVIS_COOKIE_SECRET), with the same value at all servers: 32 or more characters,"
                " for example from `openssl rand -hex 32`. Or set --shared-conversations"
            ]
        )


def _visitors(settings: Settings) -> Visitors:
    """Return the visitors' cookies; does file operations, raises BadSettings."""
    if settings.cookie_secret is not None:
        return Visitors(parse_secrets(settings.cookie_secret.get_secret_value()))
    file = beside(database_url(settings), ".cookie-secret")
    if file is None:
        return Visitors([secrets.token_hex(32)])  # needed only as long as the conversations
    try:
        return Visitors([secret_in(file)])
    except (OSError, SecretUnusable) as error:
        raise BadSettings(
            [f"the secret that signs the visitors' cookies cannot be read or created: {error}"]
        ) from error


def _verifiers(settings: Settings) -> list[Verifier]:
    verifiers: list[Verifier] = []
    if settings.auth_tokens is not None:
        verifiers.append(StaticTokens(parse_tokens(settings.auth_tokens.get_secret_value())))
    if settings.jwt_key or settings.jwt_public_key_file or settings.jwt_jwks_url:
        verifiers.append(_jwt_verifier(settings))
    return verifiers


def _jwt_verifier(settings: Settings) -> Verifier:
    key, file, url = settings.jwt_key, settings.jwt_public_key_file, settings.jwt_jwks_url
    if sum(way is not None for way in (key, file, url)) != 1:
        raise BadSettings(["only one of --jwt-key, --jwt-public-key-file, --jwt-jwks-url can be"])
    if url and not (settings.jwt_issuer and settings.jwt_audience):
        # Whoever publishes keys signs tokens for others too.
        raise BadSettings(["--jwt-jwks-url needs --jwt-issuer and --jwt-audience"])
    try:
        from jarvis_stream.identity import jwt
    except ModuleNotFoundError as error:
        raise BadSettings(
            [f"the --jwt settings need {error.name}: pip install 'jarvis-stream[jwt]'"]
        ) from error
    claims = jwt.Claims(
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        leeway=settings.jwt_leeway,
    )
    names = settings.jwt_algorithms
    try:
        if url:
            return jwt.JwksVerifier(url, names, claims)
        if key:
            return jwt.KeyVerifier(jwt.shared_key(key.get_secret_value(), names), claims)
        assert file is not None
        return jwt.KeyVerifier(jwt.public_key(file.read_bytes(), names), claims)
    except (ValueError, OSError) as error:
        raise BadSettings([f"the --jwt settings cannot be used: {error}"]) from error


async def drain(app: web.Application, grace: float) -> None:
    """Take nothing new, and let what runs go on: to its end, or for `grace` seconds."""
    registry = app[REGISTRY]
    if not registry.draining:
        registry.drain()
        logger.info("draining streams={} grace_s={}", len(registry), f"{grace:g}")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await registry.settled()


async def end(app: web.Application, patience: float = websocket.CLOSE_TIMEOUT) -> None:
    """End the streams that still run, then every socket.

    So that every reader sees its terminal frame; a slow one has `patience` seconds for it.
    """
    await app[REGISTRY].shutdown()
    await asyncio.sleep(0)  # the terminal frames leave at the end of a loop turn
    await websocket.close_all(app, patience)


async def _choose(settings: Settings, agent: Agent | None) -> Choice:
    if agent is not None:
        return Choice(
            agent=agent,
            name=getattr(agent, "__name__", type(agent).__name__),
            why="it was given to create_app",
            change="give create_app another one",
            is_model=True,
        )
    key = settings.openai_api_key
    return await choose_agent(
        settings.agent,
        base_url=settings.openai_base_url,
        api_key=key.get_secret_value() if key else None,
        model=settings.openai_model,
        system_prompt=settings.system_prompt,
        ca_file=str(settings.openai_ca_file) if settings.openai_ca_file else None,
        first_token_timeout=settings.first_token_timeout,
        token_timeout=settings.token_timeout,
    )


def database_url(settings: Settings) -> str:
    """Where the history is; it may hold a password."""
    url = settings.database_url
    return url.get_secret_value() if url else default_database_url()


def database_place(settings: Settings) -> str:
    """The same for people, without the password. Raises HistoryUnusable for no database."""
    return describe_url(database_url(settings))


@contextlib.asynccontextmanager
async def _tracer() -> AsyncIterator[Callable[[Stream], None]]:
    try:
        from jarvis_stream.tracing import StreamTracer
    except ModuleNotFoundError as error:
        raise BadSettings(
            [f"--traces needs {error.name}: pip install 'jarvis-stream[otel]', or choose off"]
        ) from error
    async with StreamTracer() as tracer:
        yield tracer.trace


async def _registry(
    settings: Settings,
    agent: Agent,
    history: History,
    trace: Callable[[Stream], None] | None,
    node: Node | None,
    *,
    has_visitors: bool,
) -> StreamRegistry:
    return StreamRegistry(
        agent,
        history,
        last_epoch=await history.last_epoch(),
        max_queue=settings.max_queue,
        max_streams=settings.max_streams,
        max_streams_each=settings.max_streams_per_principal,
        max_sessions_each=(
            settings.max_sessions_per_visitor
            if has_visitors
            else settings.max_sessions_per_principal
        ),
        max_seconds=settings.max_answer_seconds,
        cancel_timeout=settings.cancel_timeout,
        max_answer_bytes=settings.max_answer_bytes,
        unwatched_timeout=settings.unwatched_timeout,
        shelf=Shelf(seconds=settings.replay_seconds, max_bytes=settings.replay_bytes),
        trace=trace,
        node=node,
    )


async def _info(request: web.Request) -> web.Response:
    choice = request.app[CHOICE]
    reason = choice.public_reason
    return json_answer(
        {
            "agent": {
                "name": request.app[AGENT_NAME] or choice.public_name,
                "is_model": choice.is_model,
            },
            "why": f"{reason[:1].upper()}{reason[1:]}." if reason else None,
            "version": jarvis_stream.__version__,
            "protocol": PROTOCOL,
            **gate.who(request),
            "limits": {"max_prompt_chars": request.app[LIMITS].max_prompt_chars},
        }
    )


async def _livez(request: web.Request) -> web.Response:
    return json_answer({"alive": True})


async def _readyz(request: web.Request) -> web.Response:
    if request.app[REGISTRY].draining:
        raise ShuttingDown("the server is shutting down", retry_after=1)
    node = request.app[REGISTRY].node
    if node is not None and not node.is_in_touch:
        raise Unavailable("the shared Redis does not respond", retry_after=1)
    if node is not None and node.health.refusal is not None:
        raise Unavailable(
            "the shared Redis refuses commands that streams need: see store_refuses in the log",
            retry_after=1,
        )
    # While the database is away, answers continue and are saved later. A 503 here would take all
    # servers out of the load balancer at once.
    return json_answer({"ready": True, "saving": request.app[REGISTRY].history.health.writable})
