"""Streams in the shapes that model servers send, written after their documentation.

Every shape is a whole response body, and what a reader must see of it. Identifiers, models and
texts are invented.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final


@dataclass(frozen=True)
class Shape:
    """A response body of one server, and its meaning."""

    name: str
    body: bytes
    text: str
    finish_reason: str = "stop"
    usage: dict[str, Any] | None = None
    statuses: tuple[str, ...] = ()
    """The names of the statuses, in their order; a tool's is "tool:NAME"."""
    is_standard: bool = True
    """Whether the official client reads the same text from it."""
    content_type: str = "text/event-stream"
    failure: str | None = None
    """A part of the sentence with which the answer fails, after `text`."""


@dataclass
class Stream:
    """A builder of a body: what every chunk has, and how the server frames its events."""

    common: dict[str, Any]
    choice: dict[str, Any] = field(default_factory=dict)
    newline: str = "\n"
    space: str = " "
    escape: bool = False
    lines: list[str] = field(default_factory=list)

    def event(self, event: object) -> Stream:
        separators = (",", ":")
        text = json.dumps(event, ensure_ascii=self.escape, separators=separators)
        self.lines.append(f"data:{self.space}{text}{self.newline * 2}")
        return self

    def raw(self, line: str) -> Stream:
        self.lines.append(line + self.newline * 2)
        return self

    def chunk(self, **more: Any) -> Stream:
        return self.event({**self.common, **more})

    def delta(self, delta: dict[str, Any] | None, reason: str | None = None, **more: Any) -> Stream:
        choice = {"index": 0, "delta": delta, **self.choice, "finish_reason": reason}
        return self.chunk(choices=[choice], **more)

    def done(self) -> Stream:
        self.lines.append(f"data:{self.space}[DONE]{self.newline * 2}")
        return self

    @property
    def body(self) -> bytes:
        return "".join(self.lines).encode()


def common(model: str, **more: Any) -> dict[str, Any]:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model}
    return {**head, **more}


def tokens(prompt: int, completion: int, **more: Any) -> dict[str, Any]:
    total = prompt + completion
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": total,
        **more,
    }


def openai() -> Shape:
    details = {"cached_tokens": 0, "audio_tokens": 0}
    used = tokens(9, 3, prompt_tokens_details=details)
    stream = Stream(
        common("gpt-4o-mini", service_tier="default", system_fingerprint="fp_1"),
        {"logprobs": None},
    )
    stream.delta(
        {"role": "assistant", "content": "", "refusal": None}, usage=None, obfuscation="aB3"
    )
    for text in ("Grüße", ", 👋", " Welt"):
        stream.delta({"content": text}, usage=None, obfuscation="xyz")
    stream.delta({}, "stop", usage=None, obfuscation="")
    stream.chunk(choices=[], usage=used).done()
    return Shape("openai", stream.body, "Grüße, 👋 Welt", usage=used)


def openai_tools() -> Shape:
    stream = Stream(common("gpt-4o-mini"), {"logprobs": None})
    call = {"index": 0, "id": "call_1", "type": "function"}
    stream.delta({"role": "assistant", "content": None})
    stream.delta({"tool_calls": [{**call, "function": {"name": "search", "arguments": ""}}]})
    for arguments in ('{"q"', ':"x"}'):
        stream.delta({"tool_calls": [{"index": 0, "function": {"arguments": arguments}}]})
    stream.delta({}, "tool_calls").done()
    return Shape("openai tools", stream.body, "", "tool_calls", statuses=("tool:search",))


def openai_refusal() -> Shape:
    stream = Stream(common("gpt-4o-mini"))
    stream.delta({"role": "assistant", "content": None, "refusal": ""})
    stream.delta({"refusal": "I can't"}).delta({"refusal": " help."}).delta({}, "stop").done()
    return Shape("openai refusal", stream.body, "I can't help.")


def openai_not_streamed() -> Shape:
    used = tokens(9, 2)
    message = {"role": "assistant", "content": "All at once", "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "length"}
    body = {
        **common("o1", object="chat.completion"),
        "choices": [choice],
        "usage": used,
    }
    return Shape(
        "openai not streamed",
        json.dumps(body, indent=2).encode(),
        "All at once",
        "length",
        used,
        is_standard=False,
        content_type="application/json",
    )


def azure() -> Shape:
    safe = {"filtered": False, "severity": "safe"}
    filters = {"hate": safe, "self_harm": safe, "sexual": safe, "violence": safe}
    stream = Stream(
        common("gpt-4o", system_fingerprint="fp_1"),
        {"content_filter_results": filters, "logprobs": None},
    )
    prompt = {"prompt_index": 0, "content_filter_results": filters}
    stream.event(
        {
            **{"choices": [], "created": 0, "id": "", "model": "", "object": ""},
            "prompt_filter_results": [prompt],
        }
    )
    stream.delta({"content": "", "refusal": None, "role": "assistant"})
    stream.delta({"content": "Hel"}).delta({"content": "lo"}).delta({}, "content_filter").done()
    return Shape("azure", stream.body, "Hello", "content_filter")


def azure_asynchronous_filter() -> Shape:
    offsets = {"check_offset": 44, "start_offset": 44, "end_offset": 198}
    stream = Stream(common("gpt-4o"))
    stream.delta({"role": "assistant"}).delta({"content": "Hello"})
    note = {"index": 0, "content_filter_offsets": offsets, "content_filter_results": {}}
    stream.event(
        {
            **{"id": "", "object": "", "created": 0, "model": ""},
            "choices": [{**note, "finish_reason": None}],
        }
    )
    stream.delta({}, "stop").done()
    return Shape("azure asynchronous filter", stream.body, "Hello", is_standard=False)


def ollama() -> Shape:
    used = tokens(11, 4)
    stream = Stream(common("qwen3:0.6b", system_fingerprint="fp_ollama"))
    stream.delta({"role": "assistant", "content": "", "reasoning": "The user"})
    stream.delta({"role": "assistant", "content": "", "reasoning": " greets."})
    for text in ("Hi", " there"):
        stream.delta({"role": "assistant", "content": text})
    stream.delta({"role": "assistant", "content": ""}, "stop")
    stream.chunk(choices=[], usage=used).done()
    return Shape("ollama", stream.body, "Hi there", usage=used, statuses=("reasoning",))


def vllm() -> Shape:
    used = tokens(5, 7)
    stream = Stream(common("Qwen/Qwen3-8B"), {"logprobs": None, "token_ids": None})
    stream.delta(
        {"role": "assistant", "content": "", "reasoning_content": None}, usage=tokens(5, 0)
    )
    for text in ("Let me", " think."):
        stream.delta({"reasoning_content": text}, usage=tokens(5, 1))
    stream.delta({"content": "\n\n42", "reasoning_content": None}, usage=tokens(5, 2))
    stream.delta({"content": ""}, "stop", stop_reason=None)
    stream.chunk(choices=[], usage=used).done()
    return Shape("vllm", stream.body, "\n\n42", usage=used, statuses=("reasoning",))


def vllm_without_reasoning_parser() -> Shape:
    stream = Stream(common("deepseek-r1"))
    stream.delta({"role": "assistant", "content": ""})
    for text in ("<th", "ink>\nHm.\n</", "think>", "\n\n", "Paris", "."):
        stream.delta({"content": text})
    stream.delta({"content": ""}, "stop").done()
    return Shape(
        "vllm without reasoning parser",
        stream.body,
        "Paris.",
        statuses=("reasoning",),
        is_standard=False,
    )


def vllm_with_all_in_the_reasoning() -> Shape:
    stream = Stream(common("qwen3"))
    stream.delta({"role": "assistant", "content": ""})
    stream.delta({"reasoning_content": "Four"}).delta({"reasoning_content": "."})
    stream.delta({}, "stop").done()
    return Shape(
        "vllm with all in the reasoning",
        stream.body,
        "Four.",
        statuses=("reasoning",),
        is_standard=False,
    )


def llama_cpp() -> Shape:
    timings = {"prompt_n": 4, "prompt_ms": 20.5, "predicted_n": 2, "predicted_per_second": 52.9}
    used = tokens(4, 2)
    stream = Stream(common("model.gguf", system_fingerprint="b6000-abc"))
    stream.delta({"role": "assistant", "content": None})
    stream.delta({"content": "Hel"}).delta({"content": "lo"}).delta({}, "stop")
    stream.chunk(choices=[], usage=used, timings=timings).done()
    return Shape("llama.cpp", stream.body, "Hello", usage=used)


def llama_cpp_overflow() -> Shape:
    text = "request (2358 tokens) exceeds the available context size (2048 tokens)"
    kind = {"type": "exceed_context_size_error", "n_prompt_tokens": 2358, "n_ctx": 2048}
    body = json.dumps({"error": {"code": 400, "message": text, **kind}}).encode()
    return Shape(
        "llama.cpp overflow",
        body,
        "",
        failure="too long for this model",
        content_type="application/json; charset=utf-8",
    )


def lm_studio() -> Shape:
    used = tokens(8, 2)
    stream = Stream(common("gemma-3-1b", system_fingerprint="gemma-3-1b"), {"logprobs": None})
    stream.delta({"role": "assistant", "content": "Hel"}).delta({"content": "lo"})
    stream.delta({}, "stop").chunk(choices=[], usage=used).done()
    return Shape("lm studio", stream.body, "Hello", usage=used)


def lm_studio_error() -> Shape:
    stream = Stream(common("gemma-3-1b"))
    stream.delta({"role": "assistant", "content": "Hel"})
    stream.lines.append("event: error\n")
    stream.event({"error": {"message": "The model has crashed"}})
    return Shape("lm studio error", stream.body, "Hel", failure="failed in the middle")


def deepseek() -> Shape:
    cache = {"prompt_cache_hit_tokens": 0, "prompt_cache_miss_tokens": 6}
    used = tokens(6, 9, completion_tokens_details={"reasoning_tokens": 5}, **cache)
    stream = Stream(common("deepseek-reasoner", system_fingerprint="fp_1"), {"logprobs": None})
    stream.raw(": keep-alive").raw(": keep-alive")
    stream.delta({"role": "assistant", "content": None, "reasoning_content": ""})
    stream.delta({"content": None, "reasoning_content": "Hm"})
    stream.delta({"content": "你", "reasoning_content": None})
    stream.delta({"content": "好", "reasoning_content": None})
    stream.delta({"content": "", "reasoning_content": None}, "stop", usage=used).done()
    return Shape("deepseek", stream.body, "你好", usage=used, statuses=("reasoning",))


def mistral() -> Shape:
    used = tokens(5, 3)
    stream = Stream(common("mistral-small-latest", p="abcdef"))
    stream.delta({"role": "assistant", "content": ""}).delta({"content": "Bon"})
    stream.delta({"content": "jour"}, None).delta({"content": ""}, "length", usage=used).done()
    return Shape("mistral", stream.body, "Bonjour", "length", used)


def magistral() -> Shape:
    def thinking(text: str, **more: Any) -> dict[str, Any]:
        return {"type": "thinking", "thinking": [{"type": "text", "text": text}], **more}

    used = tokens(3, 5)
    stream = Stream(common("magistral-medium-latest"))
    stream.delta({"role": "assistant", "content": ""})
    stream.delta({"content": [thinking("let me see")]})
    stream.delta({"content": [thinking(" …", closed=True), {"type": "text", "text": "Hel"}]})
    stream.delta({"content": "lo"})
    stream.delta({"content": [{"type": "reference", "reference_ids": [1]}]})
    stream.delta({"content": ""}, "stop", usage=used).done()
    return Shape(
        "magistral", stream.body, "Hello", usage=used, statuses=("reasoning",), is_standard=False
    )


def gemini() -> Shape:
    used = tokens(2, 12)
    stream = Stream(common("gemini-2.5-flash"))
    stream.delta({"content": "Hel", "role": "assistant"}, usage=tokens(2, 5))
    signature = {"google": {"thought_signature": "AY89a18I"}}
    last = {"content": "lo", "role": "assistant", "extra_content": signature}
    stream.delta(last, "stop", usage=used).done()
    return Shape("gemini", stream.body, "Hello", usage=used)


def gemini_thoughts_and_tools() -> Shape:
    stream = Stream(common("gemini-2.5-pro"))
    stream.delta({"content": "<thought>**Planning**\n", "role": "assistant"})
    stream.delta({"content": "</thought>I look. ", "role": "assistant"})
    call = {"function": {"arguments": "{}", "name": "search"}, "id": "f1", "type": "function"}
    stream.delta({"role": "assistant", "tool_calls": [call]}, "tool_calls").done()
    return Shape(
        "gemini thoughts and tools",
        stream.body,
        "I look. ",
        "tool_calls",
        statuses=("reasoning", "tool:search"),
        is_standard=False,
    )


def openrouter() -> Shape:
    used = tokens(7, 3, cost=0.00014, cost_details={"upstream_inference_cost": None})
    stream = Stream(
        common("openai/gpt-4o-mini", provider="OpenAI"),
        {"native_finish_reason": None, "logprobs": None},
    )
    stream.raw(": OPENROUTER PROCESSING").raw(": OPENROUTER PROCESSING")
    detail = {"type": "reasoning.text", "text": "Hm", "format": "unknown", "index": 0}
    stream.delta(
        {"role": "assistant", "content": "", "reasoning": "Hm", "reasoning_details": [detail]}
    )
    stream.delta({"role": "assistant", "content": "亚"}).raw(": OPENROUTER PROCESSING")
    stream.delta({"role": "assistant", "content": "洲"}).delta(
        {"role": "assistant", "content": ""}, "stop"
    )
    stream.delta({"role": "assistant", "content": ""}, usage=used).done()
    return Shape("openrouter", stream.body, "亚洲", usage=used, statuses=("reasoning",))


def openrouter_error() -> Shape:
    stream = Stream(common("x/y", provider="Z"))
    stream.raw(": OPENROUTER PROCESSING").delta({"role": "assistant", "content": "Hel"})
    wrong = {"code": "server_error", "message": "Provider disconnected unexpectedly"}
    stream.delta({"content": ""}, "error", error=wrong)
    return Shape("openrouter error", stream.body, "Hel", failure="failed in the middle")


def litellm() -> Shape:
    used = tokens(10, 2, completion_tokens_details=None, prompt_tokens_details=None)
    stream = Stream(common("gpt-3.5-turbo", system_fingerprint=None))
    stream.delta({"content": "Hel", "role": "assistant", "provider_specific_fields": None})
    stream.delta({"content": "lo"}, citations=None).delta({}, "stop")
    stream.delta({}, usage=used).done()
    return Shape("litellm", stream.body, "Hello", usage=used)


def groq() -> Shape:
    stream = Stream(common("llama-3.1-8b-instant", system_fingerprint="fp"), {"logprobs": None})
    stream.delta({"role": "assistant", "content": ""}, x_groq={"id": "req_1"})
    stream.delta({"content": "Hello"}).delta({}, "stop", x_groq={"usage": tokens(1, 1)}).done()
    return Shape("groq", stream.body, "Hello")


def carriage_returns() -> Shape:
    stream = Stream(common("fake"), newline="\r\n", space="")
    stream.delta({"role": "assistant"}).delta({"content": "a\r\nb"}).delta({}, "eos").done()
    return Shape("carriage returns", stream.body, "a\r\nb", is_standard=False)


def split_surrogates() -> Shape:
    stream = Stream(common("fake"), escape=True)
    for text in ("Hi ", "\ud83d", "\ude00", "!"):
        stream.delta({"content": text})
    stream.delta({}, "stop").done()
    return Shape("split surrogates", stream.body, "Hi 😀!", is_standard=False)


def labelled_json_by_a_proxy() -> Shape:
    stream = Stream(common("fake"))
    stream.delta({"content": "Hel"}).delta({"content": "lo"}).delta({}, "stop").done()
    return Shape(
        "labelled JSON by a proxy",
        "\ufeff".encode() + stream.body,
        "Hello",
        is_standard=False,
        content_type="application/json",
    )


def overloaded_gateway() -> Shape:
    stream = Stream(common("fake"))
    stream.event({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
    return Shape("overloaded gateway", stream.body, "", failure="failing or busy")


def empty_quota() -> Shape:
    stream = Stream(common("fake"))
    stream.event({"error": {"message": "You exceeded", "code": "insufficient_quota"}})
    return Shape("empty quota", stream.body, "", failure="no credit left")


SHAPES: Final = [
    shape()
    for shape in (
        *(openai, openai_tools, openai_refusal, openai_not_streamed),
        *(azure, azure_asynchronous_filter, ollama),
        *(vllm, vllm_without_reasoning_parser, vllm_with_all_in_the_reasoning),
        *(llama_cpp, llama_cpp_overflow, lm_studio, lm_studio_error, deepseek, mistral, magistral),
        *(gemini, gemini_thoughts_and_tools, openrouter, openrouter_error, litellm, groq),
        *(carriage_returns, split_surrogates, labelled_json_by_a_proxy),
        *(overloaded_gateway, empty_quota),
    )
]
