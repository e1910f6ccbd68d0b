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
    """The address to listen on; 0.0.0.0 means every IPv4 address of this machine."""

    port: Annotated[int, Field(ge=0, le=65_535, json_schema_extra={"also": "PORT"})] = 8765
    """The port to listen on; 0 selects a free port."""

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
    """Other origins whose pages may use this server, besides its own origin."""

    auth_tokens: Annotated[
        Annotated[SecretStr, AfterValidator(_tokens)] | None,
        Field(
            json_schema_extra={
                "allowed": "NAME:TOKEN,NAME:TOKEN, all of them different; a token has at least"
                f" {SHORTEST} characters of A-Z a-z 0-9 . _ ~ + / - ="
            }
        ),
    ] = None
    """Principals and their tokens. Use the variable: other users can see a flag."""

    jwt_key: Annotated[
        Annotated[SecretStr, Field(min_length=32)] | None,
        Field(json_schema_extra={"allowed": "at least 32 characters"}),
    ] = None
    """Shared secret that verifies JSON Web Tokens (HS256, HS384, HS512)."""

    jwt_public_key_file: Annotated[
        FilePath | None, Field(json_schema_extra={"allowed": "a PEM file that exists"})
    ] = None
    """File of the public key that verifies JSON Web Tokens."""

    jwt_jwks_url: Annotated[
        str | None,
        AfterValidator(lambda url: url and _web_address(url)),
        Field(json_schema_extra={"allowed": "http(s)://host[:port][/path]"}),
    ] = None
    """URL of the key set (JWKS) that verifies JSON Web Tokens; needs issuer and audience."""

    jwt_algorithms: Annotated[
        tuple[Algorithm, ...],
        NoDecode,
        BeforeValidator(_comma_separated),
        Field(json_schema_extra={"allowed": "names like RS256, ES256, EdDSA or HS256, by commas"}),
    ] = ()
    """Accepted signature algorithms; default: those of the public key, or HS256 for a secret."""

    jwt_issuer: Annotated[
        str | None, Field(min_length=1, json_schema_extra={"allowed": "any text"})
    ] = None
    """The claim `iss` that a token must have."""

    jwt_audience: Annotated[
        str | None, Field(min_length=1, json_schema_extra={"allowed": "any text"})
    ] = None
    """The claim `aud` that a token must have."""

    jwt_leeway: Annotated[float, Field(ge=0, le=300, allow_inf_nan=False)] = 10.0
    """Tolerated clock difference to the issuer of tokens, in seconds."""

    allow_anonymous: bool = False
    """Permit other machines to use a server without sign-in; each browser is one principal."""

    shared_conversations: bool = False
    """Permit all visitors without sign-in to read and delete all conversations."""

    cookie_secret: Annotated[
        Annotated[SecretStr, AfterValidator(_cookie_secrets)] | None,
        Field(
            json_schema_extra={
                "allowed": "SECRET or NEW,OLD; each has at least 32 printable ASCII characters"
            }
        ),
    ] = None
    """Secret that signs the cookies of visitors; default: a file beside the SQLite history."""

    login_seconds: Annotated[float, Field(ge=60, le=2_592_000, allow_inf_nan=False)] = 43_200.0
    """Lifetime of a browser's sign-in, in seconds."""

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
    """Reverse proxies whose X-Forwarded-For and X-Forwarded-Proto the server trusts."""

    operator_token: Annotated[
        Annotated[SecretStr, AfterValidator(_operator_token)] | None,
        Field(
            json_schema_extra={
                "allowed": f"a token of at least {SHORTEST} characters of A-Z a-z 0-9 . _ ~ + / - ="
            }
        ),
    ] = None
    """Token for /api/admin/streams and `jarvis-stream streams`; use the variable."""

    open_metrics: bool = True
    """Serve /metrics without a token to this machine (requests that did not pass a proxy)."""

    log_level: Annotated[Level, Field(json_schema_extra={"also": "LOG_LEVEL"})] = "INFO"
    """Lowest level of log records."""

    log_format: Literal["auto", "pretty", "json"] = "auto"
    """Log format on stderr; auto means pretty on a terminal and json elsewhere."""

    traces: Literal["off", "otlp"] = "off"
    """Export each stream as an OpenTelemetry span; the OTEL_ variables set the destination."""

    agent: Annotated[
        str,
        Field(
            pattern=r"^(auto|demo|openai|\w+(\.\w+)*:\w+(\.\w+)*)$",
            json_schema_extra={"allowed": "auto, demo, openai or module:callable"},
        ),
    ] = "auto"
    """The agent: an OpenAI-compatible server, the demo, your own callable, or automatic choice."""

    agent_name: Annotated[
        str,
        Field(
            max_length=200,
            json_schema_extra={"allowed": "a printable text of at most 200 characters"},
        ),
        AfterValidator(_printable),
    ] = ""
    """Name of the agent that clients and the page show; default: the name of the model."""

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
    """Base URL of the OpenAI-compatible model server, including /v1."""

    openai_api_key: Annotated[
        Annotated[SecretStr, AfterValidator(_header_safe)] | None,
        Field(
            json_schema_extra={
                "also": "OPENAI_API_KEY",
                "allowed": "printable ASCII characters without spaces",
            }
        ),
    ] = None
    """API key for the model server. Use the variable: other users can see a flag."""

    openai_model: Annotated[
        str | None,
        Field(
            min_length=1,
            json_schema_extra={"also": "OPENAI_MODEL", "allowed": "a model's name"},
        ),
    ] = None
    """Name of the model; default: the first model in the model server's list that can chat."""

    openai_ca_file: Annotated[
        FilePath | None,
        Field(json_schema_extra={"allowed": "a file of PEM certificates that exists"}),
    ] = None
    """Certificate authorities to trust for the model server, instead of the system's."""

    database_url: Annotated[
        SecretStr | None,
        Field(
            json_schema_extra={
                "also": "DATABASE_URL",
                "allowed": "a path, sqlite:///PATH, postgresql://USER:PASSWORD@HOST/NAME, memory:",
            }
        ),
    ] = None
    """Database of the conversations; default: a SQLite file in the user's data directory."""

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
    """Redis (or Redis Cluster) that several servers share, besides PostgreSQL."""

    workers: Annotated[int, Field(ge=1, le=256)] = 1
    """Number of worker processes on this machine; more than one requires --redis-url."""

    worker_port: Annotated[int, Field(ge=0, le=65_535)] = 0
    """Port of the first worker alone; the next workers use the next ports; 0: no such ports."""

    redis_wait: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 0.0
    """How long the start waits for a Redis that does not respond, in seconds."""

    lease: Annotated[float, Field(ge=1, le=60, allow_inf_nan=False)] = 3.0
    """Seconds without a heartbeat after which other servers consider a server dead."""

    system_prompt: Annotated[str | None, Field(json_schema_extra={"allowed": "any text"})] = None
    """System prompt: text for the model before every conversation."""

    first_token_timeout: Seconds = 120.0
    """Timeout for the first token of the model server, in seconds."""

    token_timeout: Seconds = 60.0
    """Timeout between two tokens of the model server, in seconds."""

    cancel_timeout: Annotated[float, Field(ge=0, le=60, allow_inf_nan=False)] = 2.0
    """Time for the cleanup of a cancelled agent, in seconds; then the next answer starts."""

    unwatched_timeout: Seconds = 600.0
    """How long an answer with on_disconnect "continue" runs without readers, in seconds."""

    heartbeat: Seconds = 15.0
    """Interval of heartbeats on a silent connection, in seconds."""

    stall_timeout: Seconds = 30.0
    """Seconds without progress after which the server disconnects a reader."""

    header_timeout: Seconds = 10.0
    """Timeout for the headers of a request from their first byte, in seconds."""

    body_timeout: Seconds = 10.0
    """Timeout for the body of a request from the end of its headers, in seconds."""

    idle_timeout: Seconds = 75.0
    """How long a connection may be idle before its next request, in seconds."""

    socket_idle_timeout: Seconds = 3600.0
    """How long a WebSocket that follows and watches no stream may be silent, in seconds."""

    max_connections: Count = 4096
    """Maximum number of connections; idle ones are closed to admit new ones."""

    shutdown_grace: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 5.0
    """How long running answers may continue during a shutdown, in seconds."""

    max_body_bytes: Count = 2**20
    """Maximum size of a request body or WebSocket message, in bytes."""

    max_prompt_chars: Count = 100_000
    """Maximum length of a prompt, in characters."""

    max_answer_bytes: Annotated[int, Field(ge=1, le=2**30)] = 4 * 2**20
    """Maximum size of an answer (UTF-8), in bytes; a longer one ends with the error too_long."""

    replay_seconds: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = 60.0
    """How long an ended stream can be replayed, in seconds."""

    replay_bytes: Count = 64 * 2**20
    """Memory for the replay of ended streams, in bytes, for all streams together."""

    history_messages: Count = 100
    """Maximum number of messages of a session that the agent receives."""

    history_chars: Count = 200_000
    """Maximum number of characters of these messages; the oldest ones are omitted first."""

    max_queue: Count = 8
    """Maximum number of waiting messages of a session (on_conflict "enqueue")."""

    max_streams_per_socket: Count = 64
    """Maximum number of streams that one WebSocket follows at a time."""

    max_streams: Count = 10_000
    """Maximum number of live answers."""

    max_streams_per_principal: Count = 64
    """Maximum number of live answers per principal; visitors without sign-in count by address."""

    max_sessions_per_principal: Count = 10_000
    """Maximum number of sessions per principal."""

    max_sessions_per_visitor: Count = 200
    """Maximum number of sessions per visitor without sign-in."""

    max_visitors_per_hour: Count = 120
    """Maximum number of new visitors per hour and address (IPv6: per /64) without sign-in."""

    max_sockets_per_address: Count = 256
    """Maximum number of WebSockets per address (IPv6: per /64); this machine has no limit."""

    max_sockets_per_principal: Count = 64
    """Maximum number of WebSockets per principal."""

    max_messages_per_second: Count = 200
    """Maximum rate of messages per second and WebSocket; a burst may have ten times as many."""

    max_starts_per_minute: Count = 120
    """Maximum number of starts per minute and principal, or per address of other machines."""

    max_reads_per_minute: Count = 1200
    """Maximum number of reads (lists, messages, exports) per minute and principal or address."""

    max_changes_per_minute: Count = 600
    """Maximum number of renamings and deletions per minute and principal or address."""

    max_searches_per_minute: Count = 120
    """Maximum number of searches per minute and principal or address."""

    max_answer_seconds: Seconds = 3600.0
    """Maximum duration of an answer, in seconds; a longer one ends with the error too_long."""

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
    """Return a sentence for each `JARVIS_…` variable that is set and is not a setting."""
    known = [name.upper() for name in options()]
    sentences = []
    for variable in sorted(os.environ):
        prefix, _, name = variable.upper().partition("_")
        if prefix + "_" == PREFIX and name not in known:
            near = [PREFIX + match for match in difflib.get_close_matches(name, known, n=2)]
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            sentences.append(f"the variable {variable} is not a setting{hint}")
    return sentences


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jarvis-stream",
        description="A streaming server for chat and agent UIs.",
        epilog="A flag overrides its variables, the first variable overrides the second."
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
