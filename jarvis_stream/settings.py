"""Every setting, in one model: a field is a flag, a `JARVIS_…` variable and a line of `--help`.

    --max-body-bytes 2048          a flag wins over
    JARVIS_MAX_BODY_BYTES=2048     its variable, which wins over
    PORT, LOG_LEVEL, OPENAI_…      the usual name, where there is one, which wins over
    the default                    (an empty variable counts as not set)

The flags are read with argparse, built from the model: pydantic-settings' own command line shows
`SecretStr` and `None` to people and does not tell which of a setting's names carried a bad value.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import functools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    FilePath,
    IPvAnyNetwork,
    SecretStr,
    ValidationError,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from jarvis_stream import __version__
from jarvis_stream.errors import BadSettings
from jarvis_stream.identity.tokens import SHORTEST, parse_tokens
from jarvis_stream.identity.visitors import parse_secrets

PREFIX: Final = "JARVIS_"


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _comma_separated(value: object) -> object:
    if not isinstance(value, str):
        return value
    return [item.strip() for item in value.split(",") if item.strip()]


def _web_address(value: str) -> str:
    parts = urlsplit(value)  # its ValueError (a broken IPv6 address) is one of ours
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("no web address")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("more than an address")
    return value.rstrip("/")


def _header_safe(value: SecretStr) -> SecretStr:
    secret = value.get_secret_value().strip()
    if not re.fullmatch(r"[!-~]+", secret):
        raise ValueError("cannot stand in a header")
    return SecretStr(secret)


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("not printable")
    return value


def _origin(value: str) -> str:
    """As browsers say it: in small letters, without the port that goes without saying."""
    origin = value.lower()
    default = {"http": ":80", "https": ":443"}.get(origin.partition(":")[0], ":")
    return origin.removesuffix(default)


def _cookie_secrets(value: SecretStr) -> SecretStr:
    parse_secrets(value.get_secret_value())
    return value


def _tokens(value: SecretStr) -> SecretStr:
    parse_tokens(value.get_secret_value())
    return value


def _operator_token(value: SecretStr) -> SecretStr:
    parse_tokens(f"operator:{value.get_secret_value()}")
    return value


Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Level = Annotated[
    Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"],
    BeforeValidator(_upper),
]
Algorithm = Annotated[str, Field(pattern=r"^((HS|RS|PS|ES)(256|384|512)|EdDSA)$")]
Origin = Annotated[
    str,
    # Not *.example.org: that would be many.
    Field(pattern=r"(?i)^[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?$"),
    AfterValidator(_origin),
]


class Settings(BaseSettings):
    """Everything that can be set. Frozen; `Settings()` reads the environment, keywords win over it.

    Raises pydantic's ValidationError, whose text holds no values (one may be a secret).
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        frozen=True,
        hide_input_in_errors=True,
        str_strip_whitespace=True,
        use_attribute_docstrings=True,
    )

    host: Annotated[
        str, Field(min_length=1, json_schema_extra={"allowed": "a host name or an IP address"})
    ] = "127.0.0.1"
    """The address to listen on; 0.0.0.0 is every IPv4 address of this machine."""

    port: Annotated[int, Field(ge=0, le=65_535, json_schema_extra={"also": "PORT"})] = 8765
    """The port to listen on; 0 takes any free one."""

    allowed_origins: Annotated[
        tuple[Origin, ...],
        NoDecode,
        BeforeValidator(_comma_separated),
        Field(
            json_schema_extra={
                "allowed": "origins like https://chat.example.org, separated by commas"
            }
        ),
    ] = ()
    """Further origins whose pages may talk to this server; its own always may."""

    auth_tokens: Annotated[
        Annotated[SecretStr, AfterValidator(_tokens)] | None,
        Field(
            json_schema_extra={
                "allowed": "NAME:TOKEN,NAME:TOKEN, all of them different; a token has at least"
                f" {SHORTEST} characters of A-Z a-z 0-9 . _ ~ + / - ="
            }
        ),
    ] = None
    """Who may use this server, and each one's token. Prefer the variable: others can see a flag."""

    jwt_key: Annotated[
        Annotated[SecretStr, Field(min_length=32)] | None,
        Field(json_schema_extra={"allowed": "at least 32 characters"}),
    ] = None
    """The secret that signs the JSON Web Tokens of this server's users (HS256 and the like)."""

    jwt_public_key_file: Annotated[
        FilePath | None, Field(json_schema_extra={"allowed": "a PEM file that exists"})
    ] = None
    """The public key that verifies them instead."""

    jwt_jwks_url: Annotated[
        str | None,
        AfterValidator(lambda url: url and _web_address(url)),
        Field(json_schema_extra={"allowed": "http(s)://host[:port][/path]"}),
    ] = None
    """Where such keys are published instead; needs the issuer and the audience too."""

    jwt_algorithms: Annotated[
        tuple[Algorithm, ...],
        NoDecode,
        BeforeValidator(_comma_separated),
        Field(json_schema_extra={"allowed": "names like RS256, ES256, EdDSA or HS256, by commas"}),
    ] = ()
    """Which signatures count; without it, all that fit the public key, or HS256 for a secret."""

    jwt_issuer: Annotated[
        str | None, Field(min_length=1, json_schema_extra={"allowed": "any text"})
    ] = None
    """The `iss` that a token must have."""

    jwt_audience: Annotated[
        str | None, Field(min_length=1, json_schema_extra={"allowed": "any text"})
    ] = None
    """The `aud` that a token must have."""

    jwt_leeway: Annotated[float, Field(ge=0, le=300, allow_inf_nan=False)] = 10.0
    """By how much the clocks of whoever signs tokens may be wrong."""

    allow_anonymous: bool = False
    """Whether a server without sign-in may serve other machines; each browser is one principal."""

    shared_conversations: bool = False
    """Whether all visitors without sign-in can read and delete all conversations."""

    cookie_secret: Annotated[
        Annotated[SecretStr, AfterValidator(_cookie_secrets)] | None,
        Field(
            json_schema_extra={
                "allowed": "SECRET or NEW,OLD; each has at least 32 printable ASCII characters"
            }
        ),
    ] = None
    """The secret that signs visitors' cookies; by default, a file beside the SQLite history."""

    login_seconds: Annotated[float, Field(ge=60, le=2_592_000, allow_inf_nan=False)] = 43_200.0
    """How long a browser stays signed in."""

    trusted_proxies: Annotated[
        tuple[IPvAnyNetwork, ...],
        NoDecode,
        BeforeValidator(_comma_separated),
        Field(
            json_schema_extra={
                "allowed": "addresses or networks like 10.0.0.0/8, separated by commas"
            }
        ),
    ] = ()
    """The proxies whose X-Forwarded-For and X-Forwarded-Proto are believed."""

    operator_token: Annotated[
        Annotated[SecretStr, AfterValidator(_operator_token)] | None,
        Field(
            json_schema_extra={
                "allowed": f"a token of at least {SHORTEST} characters of A-Z a-z 0-9 . _ ~ + / - ="
            }
        ),
    ] = None
    """The token for /api/admin/streams and `jarvis-stream streams`; prefer the variable."""

    open_metrics: bool = True
    """Whether /metrics needs no token when it is asked from this very machine, past every proxy."""

    log_level: Annotated[Level, Field(json_schema_extra={"also": "LOG_LEVEL"})] = "INFO"
    """The least severe records that are logged."""

    log_format: Literal["auto", "pretty", "json"] = "auto"
    """How they are written to stderr: auto is pretty on a terminal and json elsewhere."""

    traces: Literal["off", "otlp"] = "off"
    """Whether each stream becomes an OpenTelemetry span; the OTEL_ variables say where it goes."""

    agent: Annotated[
        str,
        Field(
            pattern=r"^(auto|demo|openai|\w+(\.\w+)*:\w+(\.\w+)*)$",
            json_schema_extra={"allowed": "auto, demo, openai or module:callable"},
        ),
    ] = "auto"
    """Who answers: an OpenAI-compatible server, the demo, your own callable, or what is found."""

    agent_name: Annotated[
        str,
        Field(
            max_length=200,
            json_schema_extra={"allowed": "a printable text of at most 200 characters"},
        ),
        AfterValidator(_printable),
    ] = ""
    """The name of the agent that clients and the page show; by default, the model's name."""

    openai_base_url: Annotated[
        str | None,
        AfterValidator(lambda url: url and _web_address(url)),
        Field(
            json_schema_extra={
                "also": "OPENAI_BASE_URL",
                "allowed": "http(s)://host[:port][/path], without user name or query",
            }
        ),
    ] = None
    """The OpenAI-compatible server to ask, up to and with its /v1."""

    openai_api_key: Annotated[
        Annotated[SecretStr, AfterValidator(_header_safe)] | None,
        Field(
            json_schema_extra={
                "also": "OPENAI_API_KEY",
                "allowed": "printable ASCII characters without spaces",
            }
        ),
    ] = None
    """The key that server wants. Prefer the variable: other users can see a flag."""

    openai_model: Annotated[
        str | None,
        Field(
            min_length=1,
            json_schema_extra={"also": "OPENAI_MODEL", "allowed": "a model's name"},
        ),
    ] = None
    """The model to ask for; by default, the first model in the server's list that can chat."""

    openai_ca_file: Annotated[
        FilePath | None,
        Field(json_schema_extra={"allowed": "a file of PEM certificates that exists"}),
    ] = None
    """The certificate authorities to trust for that server, instead of the system's."""

    database_url: Annotated[
        SecretStr | None,
        Field(
            json_schema_extra={
                "also": "DATABASE_URL",
                "allowed": "a path, sqlite:///PATH, postgresql://USER:PASSWORD@HOST/NAME, memory:",
            }
        ),
    ] = None
    """Where conversations are kept; without it, a SQLite file in the user's data directory."""

    redis_url: Annotated[
        SecretStr | None,
        Field(
            json_schema_extra={
                "also": "REDIS_URL",
                "allowed": "redis://[USER:PASSWORD@]HOST[:PORT][/NUMBER], or rediss:// for TLS;"
                " of a Redis Cluster any nodes: HOST[:PORT],HOST[:PORT]",
            }
        ),
    ] = None
    """The Redis (or Redis Cluster) that servers of the same sessions share, besides PostgreSQL."""

    workers: Annotated[int, Field(ge=1, le=256)] = 1
    """How many processes serve on this machine; more than one need --redis-url."""

    worker_port: Annotated[int, Field(ge=0, le=65_535)] = 0
    """Where the first of several workers listens alone too, the next ones behind it; 0: nowhere."""

    redis_wait: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 0.0
    """How long to wait at the start for a Redis that does not answer."""

    lease: Annotated[float, Field(ge=1, le=60, allow_inf_nan=False)] = 3.0
    """How long a server that gives no sign of life is thought to live by the others."""

    system_prompt: Annotated[str | None, Field(json_schema_extra={"allowed": "any text"})] = None
    """What the model is told before every conversation."""

    first_token_timeout: Seconds = 120.0
    """How long the model's server may take to its first token."""

    token_timeout: Seconds = 60.0
    """How long it may then be silent between two tokens."""

    cancel_timeout: Annotated[float, Field(ge=0, le=60, allow_inf_nan=False)] = 2.0
    """How long a cancelled answer may tidy up; then it is given up, and the next one starts."""

    unwatched_timeout: Seconds = 600.0
    """How long an answer with on_disconnect "continue" goes on while nobody reads it."""

    heartbeat: Seconds = 15.0
    """How often a silent connection is given a sign of life."""

    stall_timeout: Seconds = 30.0
    """How long a reader may take nothing before its connection is closed."""

    header_timeout: Seconds = 10.0
    """How long a request's headers may take, from their first byte."""

    body_timeout: Seconds = 10.0
    """How long a request's body may take, from the end of its headers."""

    idle_timeout: Seconds = 75.0
    """How long a connection may wait for its next request."""

    socket_idle_timeout: Seconds = 3600.0
    """How long a WebSocket that follows and watches nothing may send nothing."""

    max_connections: Count = 4096
    """The most connections at a time; those without a request make room for new ones."""

    shutdown_grace: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 5.0
    """How long running answers may go on when the server has been told to stop."""

    max_body_bytes: Count = 2**20
    """The largest request body or WebSocket message."""

    max_prompt_chars: Count = 100_000
    """The longest prompt."""

    max_answer_bytes: Annotated[int, Field(ge=1, le=2**30)] = 4 * 2**20
    """The longest answer, in UTF-8; a longer one ends with the error too_long."""

    replay_seconds: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = 60.0
    """How long a finished stream can still be replayed."""

    replay_bytes: Count = 64 * 2**20
    """How much memory finished streams may take for that, all together."""

    history_messages: Count = 100
    """The most messages of a session that the agent is given."""

    history_chars: Count = 200_000
    """The most characters of them; the oldest messages are left out first."""

    max_queue: Count = 8
    """The most messages of one session that may wait for its running answer (enqueue)."""

    max_streams_per_socket: Count = 64
    """The most streams that one WebSocket may follow at a time."""

    max_streams: Count = 10_000
    """The most answers that are being given at a time."""

    max_streams_per_principal: Count = 64
    """The most live answers of one principal; visitors without sign-in count by address."""

    max_sessions_per_principal: Count = 10_000
    """The most sessions that one principal may have."""

    max_sessions_per_visitor: Count = 200
    """The most sessions that one visitor without sign-in may have."""

    max_visitors_per_hour: Count = 120
    """The most new visitors without sign-in per hour from one address (of IPv6: one /64)."""

    max_sockets_per_address: Count = 256
    """The most WebSockets of one address (of IPv6: of one /64); this machine's own has no limit."""

    max_sockets_per_principal: Count = 64
    """The most WebSockets of one principal."""

    max_messages_per_second: Count = 200
    """The most messages of one WebSocket, a second; in a burst ten times as many."""

    max_starts_per_minute: Count = 120
    """The most answers one principal, or else one address that is not this machine, may start."""

    max_reads_per_minute: Count = 1200
    """The most reads (lists, messages, exports) per minute of one principal or address."""

    max_changes_per_minute: Count = 600
    """The most renamings and deletions of sessions per minute of one principal or address."""

    max_searches_per_minute: Count = 120
    """The most searches per minute of one principal or address."""

    max_answer_seconds: Seconds = 3600.0
    """How long an answer may take; a longer one ends with the error too_long."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _UsualNames(settings_cls)


class _UsualNames(PydanticBaseSettingsSource):
    """The variables other programs read too: PORT, LOG_LEVEL, OPENAI_…"""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        extra = field.json_schema_extra
        also = extra.get("also") if isinstance(extra, dict) else None
        return os.environ.get(str(also)) or None, field_name, False

    def __call__(self) -> dict[str, Any]:
        fields = self.settings_cls.model_fields
        values = {name: self.get_field_value(field, name)[0] for name, field in fields.items()}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Option:
    """One setting as people see it."""

    flag: str
    metavar: str
    variables: tuple[str, ...]
    """In the order in which they count."""
    default: str
    allowed: str
    meaning: str
    is_secret: bool


@functools.cache
def options() -> Mapping[str, Option]:
    """Every setting by its field's name, in the model's order."""
    return {
        name: _option(name, schema)
        for name, schema in Settings.model_json_schema()["properties"].items()
    }


def _option(name: str, schema: Mapping[str, Any]) -> Option:
    variable = PREFIX + name.upper()
    metavars = {"integer": "N", "number": "SECONDS", "boolean": "[true|false]"}
    return Option(
        flag="--" + name.replace("_", "-"),
        metavar=metavars.get(schema.get("type", ""), name.rpartition("_")[2].upper()),
        variables=(variable, schema["also"]) if "also" in schema else (variable,),
        default=_default(schema["default"]),
        allowed=schema.get("allowed") or _allowed(schema),
        meaning=schema["description"],
        is_secret=any(kind.get("format") == "password" for kind in schema.get("anyOf", ())),
    )


def _default(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value in (None, [], "") else str(value)


def _allowed(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return "one of " + ", ".join(schema["enum"])
    if schema["type"] == "boolean":
        return "true or false"
    noun = "a whole number" if schema["type"] == "integer" else "seconds"
    if "exclusiveMinimum" in schema:
        return f"{noun} above {schema['exclusiveMinimum']}, at most {schema['maximum']}"
    if "maximum" in schema:
        return f"{noun} from {schema['minimum']} to {schema['maximum']}"
    return f"{noun} of at least {schema['minimum']}"


def from_command_line(argv: Sequence[str] | None = None) -> Settings:
    """The settings of this process; `argv` is `sys.argv[1:]` unless given.

    Raises BadSettings with a sentence for every value that is not allowed. As argparse does,
    raises SystemExit after `--help` and `--version`, and (2) for flags that do not exist.
    """
    flags = vars(_parser().parse_args(argv))
    try:
        return Settings(**flags)
    except ValidationError as error:
        names = dict.fromkeys(str(detail["loc"][0]) for detail in error.errors())
    raise BadSettings([_problem(options()[name], flags.get(name)) for name in names])


def log_format(argv: Sequence[str] = ()) -> Literal["auto", "pretty", "json"]:
    """Return the log format from the arguments and the environment, whatever else is in them.

    For errors at the start, when the settings as a whole are invalid.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--log-format", default=os.environ.get(f"{PREFIX}LOG_FORMAT"))
    given = None
    with contextlib.suppress(argparse.ArgumentError):
        given = parser.parse_known_args(argv)[0].log_format
    if given == "json":
        return "json"
    return "pretty" if given == "pretty" else "auto"


def has_identity(settings: Settings) -> bool:
    """Whether these settings say how people sign in."""
    ways = (
        settings.auth_tokens,
        settings.jwt_key,
        settings.jwt_public_key_file,
        settings.jwt_jwks_url,
    )
    return any(way is not None for way in ways)


def unknown_variables() -> list[str]:
    """A sentence for each `JARVIS_…` variable that is set and is no setting."""
    known = [name.upper() for name in options()]
    sentences = []
    for variable in sorted(os.environ):
        prefix, _, name = variable.upper().partition("_")
        if prefix + "_" == PREFIX and name not in known:
            near = [PREFIX + match for match in difflib.get_close_matches(name, known, n=2)]
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            sentences.append(f"the variable {variable} is no setting{hint}")
    return sentences


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jarvis-stream",
        description="A streaming server for chat and agent UIs.",
        epilog="A flag wins over its variables, the first variable over the second."
        " Other commands, each with --help: streams, revoke, copy-history.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--version", action="version", version=f"jarvis-stream {__version__}")
    for name, option in options().items():
        about = (
            f"{option.meaning} Allowed: {option.allowed}. "
            f"[{', '.join(option.variables)}; default: {option.default}]"
        )
        alone: dict[str, str] = {}
        if option.metavar.startswith("["):  # the brackets are argparse's own
            alone = {"nargs": "?", "const": "true"}
        parser.add_argument(
            option.flag,
            dest=name,
            metavar=option.metavar.strip("[]"),
            help=about.replace("%", "%%"),
            **alone,  # type: ignore[arg-type]
        )
    return parser


def _problem(option: Option, flag_value: str | None) -> str:
    if flag_value is not None:
        source, value = option.flag, flag_value
    else:
        # In whatever case they are written.
        given = {name.upper(): (name, value) for name, value in os.environ.items() if value}
        source, value = next(given[name] for name in option.variables if name in given)
    shown = "the value" if option.is_secret else _shown(value)
    return f"{source}: {shown} is not allowed; allowed: {option.allowed}"


def _shown(value: str) -> str:
    text = re.sub(r"//[^/]*@", "//…@", repr(value))  # a URL may hold a password
    return text if len(text) <= 80 else text[:79] + "…"
