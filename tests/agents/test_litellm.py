"""The LiteLLM proxy as the model server, with mock answers; `make litellm` installs it."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from jarvis_stream.agents.base import Turn
from jarvis_stream.agents.openai import OpenAIAgent
from jarvis_stream.errors import UpstreamError
from jarvis_stream.frames import Done, Message

PROGRAM = Path(sys.prefix) / "tools-litellm" / "bin" / "litellm"
START_TIMEOUT = 300.0
"""Seconds for the start of the proxy, which imports a lot, on a busy machine."""
CONFIG = """
model_list:
  - {model_name: text-embedding-mock, litellm_params: {model: openai/e, api_key: none}}
  - model_name: mock
    litellm_params: {model: openai/m, api_key: none, mock_response: "Grüße from the proxy 👋"}
  - model_name: limited
    litellm_params: {model: openai/m, api_key: none, mock_response: litellm.RateLimitError}
  - model_name: small
    litellm_params:
      {model: openai/m, api_key: none, mock_response: litellm.ContextWindowExceededError}
router_settings: {num_retries: 0, disable_cooldowns: true}
litellm_settings: {num_retries: 0}
"""


@dataclass(frozen=True)
class Proxy:
    """A running proxy."""

    url: str
    key: str

    def agent(self, model: str | None, key: str | None = None) -> OpenAIAgent:
        return OpenAIAgent(
            base_url=self.url, model=model, api_key=key or self.key, max_retries=1, backoff=0.001
        )


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    assert PROGRAM.exists(), f"{PROGRAM} is missing: run `make litellm`"
    folder = tmp_path_factory.mktemp("litellm")
    config = folder / "config.yaml"
    config.write_text(CONFIG)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    key = f"sk-{secrets.token_urlsafe(24)}"
    usual = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    environment = {
        **usual,
        "HOME": str(folder),
        "LITELLM_MASTER_KEY": key,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it asks GitHub
        "PYTHONUTF8": "1",
    }
    command = [str(PROGRAM), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    with (
        (folder / "log").open("w+") as log,
        subprocess.Popen(
            [*command, "--telemetry", "False"], env=environment, stdout=log, stderr=log, cwd=folder
        ) as process,
    ):
        try:
            origin = f"http://127.0.0.1:{port}"
            until = time.monotonic() + START_TIMEOUT
            while not is_alive(f"{origin}/health/liveliness"):
                text = (folder / "log").read_text()
                assert process.poll() is None, f"the proxy has ended: {text[-2000:]}"
                assert time.monotonic() < until, f"the proxy does not start: {text[-2000:]}"
                time.sleep(0.2)
            yield Proxy(f"{origin}/v1", key)
        finally:
            process.kill()


def is_alive(url: str) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=10) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def turn(*texts: str) -> Turn:
    messages: list[Message] = [
        {"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)
    ]
    return Turn(texts[-1], messages, "session", "stream", "0" * 32)


async def test_an_answer_comes_through_the_proxy(proxy: Proxy) -> None:
    async with proxy.agent("mock") as agent:
        *pieces, done = [piece async for piece in agent(turn("Hi", "Hello", "Again"))]
    assert "".join(map(str, pieces)) == "Grüße from the proxy 👋"
    assert len(pieces) > 1
    assert isinstance(done, Done)
    assert done.finish_reason == "stop"
    assert done.usage is not None
    assert done.usage["total_tokens"] > 0


async def test_the_first_model_of_the_proxy_that_can_chat_is_taken(proxy: Proxy) -> None:
    async with proxy.agent(None) as agent:
        assert [piece async for piece in agent(turn("Hi"))]
        assert agent.model == "mock"


@pytest.mark.parametrize(
    ("model", "key", "sentence", "retryable"),
    [
        ("mock", "sk-wrong", "credentials", False),
        ("absent", None, "does not have the model", False),
        ("limited", None, "failing or busy", True),
        ("small", None, "too long for this model", False),
    ],
)
async def test_a_failure_of_the_proxy_has_a_clear_sentence(
    proxy: Proxy, model: str, key: str | None, sentence: str, retryable: bool
) -> None:
    async with proxy.agent(model, key) as agent:
        with pytest.raises(UpstreamError, match=sentence) as failed:
            _ = [piece async for piece in agent(turn("Hi"))]
    assert failed.value.retryable is retryable
