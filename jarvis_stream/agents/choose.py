"""Which agent answers: the one that was asked for, or the best that is there."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Final, cast

import aiohttp
from loguru import logger

from jarvis_stream.agents.base import Agent
from jarvis_stream.agents.demo import DemoAgent
from jarvis_stream.agents.models import first_chat_model
from jarvis_stream.agents.openai import OPENAI, OpenAIAgent, read_at_most
from jarvis_stream.errors import AgentNotFound

_MAX_LISTING: Final = 1 << 18  # bytes of a model list that are read from a stranger
_MODEL: Final = (
    "To ask a model, start Ollama, LM Studio, llama.cpp or vLLM first, or set OPENAI_BASE_URL or "
    "OPENAI_API_KEY; your own agent is --agent module:callable."
)
_OTHER: Final = "Another agent: --agent demo, or --agent module:callable for your own."


@dataclass(frozen=True, slots=True)
class Choice:
    """The agent that answers."""

    agent: Agent
    name: str
    """The name for the operator, without credentials; may contain the model server's address."""
    why: str
    """The reason for this choice, for the operator."""
    change: str
    """How to get another one."""
    is_model: bool
    """False for the demo, which must not be taken for one."""

    @property
    def public_name(self) -> str:
        """The name that every client may read: the model, or the callable without its module."""
        if isinstance(self.agent, OpenAIAgent):
            return self.agent.model or "a language model"
        return self.name.rpartition(":")[2].rpartition(".")[2] or "a custom agent"

    @property
    def public_reason(self) -> str | None:
        """The reason why the demo answers, which every client may read; None for other agents."""
        return None if self.is_model else self.why


@dataclass(frozen=True, slots=True)
class Probe:
    """A place where a model's server may be listening on this machine."""

    name: str
    base_url: str


DEFAULT_PROBES: Final = (
    Probe("Ollama", "http://127.0.0.1:11434/v1"),
    Probe("LM Studio", "http://127.0.0.1:1234/v1"),
    Probe("llama.cpp", "http://127.0.0.1:8080/v1"),
    Probe("vLLM", "http://127.0.0.1:8000/v1"),
)


async def choose_agent(
    spec: str,
    *,
    base_url: str | None,
    api_key: str | None,
    model: str | None,
    system_prompt: str | None,
    first_token_timeout: float,
    token_timeout: float,
    ca_file: str | None = None,
    probe_timeout: float = 0.5,
    probes: Sequence[Probe] = DEFAULT_PROBES,
) -> Choice:
    """The agent that `spec` means: `auto`, `demo`, `openai` or `module:callable`.

    `auto` is `openai` when a base URL or a key is given; else the first of `probes` that lists a
    chat model, all asked at once and for at most `probe_timeout` seconds, without the key; else the
    demo. Raises AgentNotFound.
    """

    def openai(url: str, model: str | None, why: str) -> Choice:
        try:
            agent = OpenAIAgent(
                base_url=url,
                api_key=api_key,
                model=model,
                system_prompt=system_prompt,
                first_token_timeout=first_token_timeout,
                token_timeout=token_timeout,
                ca_file=ca_file,
            )
        except (ValueError, OSError) as error:
            raise AgentNotFound(f"The agent 'openai' cannot be used: {error}") from error
        name = f"openai ({model} at {agent.url})" if model else f"openai ({agent.url})"
        return Choice(agent, name, why, _OTHER, is_model=True)

    if spec == "openai" or (spec == "auto" and (base_url or api_key)):
        if base_url:
            return openai(base_url, model, "a base URL is set")
        if api_key:
            return openai(OPENAI, model, "an API key is set")
        raise AgentNotFound("The agent 'openai' requires OPENAI_BASE_URL, OPENAI_API_KEY, or both.")
    if spec == "auto":
        if found := await _probe(probes, probe_timeout):
            probe, listed = found
            return openai(
                probe.base_url, model or listed, f"{probe.name} answered on {probe.base_url}"
            )
        return Choice(
            DemoAgent(), "demo", "no model server was found on this machine", _MODEL, is_model=False
        )
    if spec == "demo":
        return Choice(DemoAgent(), "demo", "it was asked for", _MODEL, is_model=False)
    return Choice(_load(spec), spec, "it was asked for", _OTHER, is_model=True)


async def _probe(probes: Sequence[Probe], within: float) -> tuple[Probe, str] | None:
    """The first of `probes`, in their order, that has a chat model, and that model."""
    async with aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=within)
    ) as session:
        models = await asyncio.gather(*(_ask(session, probe) for probe in probes))
    return next(((p, m) for p, m in zip(probes, models, strict=True) if m), None)


async def _ask(session: aiohttp.ClientSession, probe: Probe) -> str | None:
    try:
        async with session.get(f"{probe.base_url}/models", allow_redirects=False) as response:
            if response.status != 200:
                return None
            return first_chat_model(await read_at_most(response.content, _MAX_LISTING))
    except (aiohttp.ClientError, OSError):
        return None


def _load(spec: str) -> Agent:
    """What `module:callable` names, looked for in the current directory too."""
    module_name, colon, path = spec.partition(":")
    if not (module_name and colon and path):
        raise AgentNotFound(
            f"There is no agent {spec!r}: it is auto, demo, openai or module:callable."
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    target: object
    try:
        target = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise _broken(spec, error) from error  # the module is there, something it wants is not
        raise AgentNotFound(
            f"The agent {spec!r} cannot be loaded: there is no module {error.name!r} in "
            f"{os.getcwd()} or among the installed packages."
        ) from error
    except BaseException as error:
        raise _broken(spec, error) from error
    for attribute in path.split("."):
        try:
            target = getattr(target, attribute)
        except AttributeError as error:
            raise AgentNotFound(f"The agent {spec!r} cannot be loaded: {error}.") from error
    if inspect.isclass(target):
        try:
            target = target()
        except BaseException as error:
            raise _broken(spec, error) from error
    if fault := _fault(target):
        raise AgentNotFound(f"{spec!r} is not an agent: {fault}.")
    return cast(Agent, target)


@asynccontextmanager
async def running_agent(
    agent: AbstractAsyncContextManager[object], name: str
) -> AsyncIterator[None]:
    """Enter and leave an agent that is an async context manager.

    Raise AgentNotFound when entering fails; log the exception when leaving fails. This applies to
    every exception, SystemExit and KeyboardInterrupt included. A cancellation of the caller is
    raised again.
    """
    try:
        await agent.__aenter__()
    except BaseException as error:
        if _is_cancelled(error):
            raise
        raise AgentNotFound(
            f"The agent {name!r} cannot be started: {type(error).__name__}: {error}"
        ) from error
    try:
        yield
    finally:
        try:
            await agent.__aexit__(*sys.exc_info())
        except BaseException as error:
            if _is_cancelled(error):
                raise
            logger.opt(exception=error).error("agent_not_closed agent={}", name)


def _is_cancelled(error: BaseException) -> bool:
    """Return whether the current task was cancelled: an agent may raise CancelledError itself."""
    task = asyncio.current_task()
    is_cancelled = task is not None and task.cancelling() > 0
    return isinstance(error, asyncio.CancelledError) and is_cancelled


def _broken(spec: str, error: BaseException) -> AgentNotFound:
    return AgentNotFound(f"The agent {spec!r} cannot be loaded: {type(error).__name__}: {error}")


def _fault(target: object) -> str | None:
    """Why `target` cannot be an agent, as far as it can be told without calling it."""
    if not callable(target):
        return "it cannot be called"
    function = target if inspect.isroutine(target) else type(target).__call__
    for candidate in (target, function):
        if inspect.iscoroutinefunction(candidate):
            return "it is a coroutine without any `yield`; an agent yields its pieces"
        if inspect.isgeneratorfunction(candidate):
            return "it is an ordinary generator; an agent is an `async def` with `yield`"
    try:
        inspect.signature(target).bind(None)
    except ValueError:
        return None  # no signature to be had
    except TypeError as error:
        return f"it cannot be called with the turn alone ({error})"
    return None
