"""Settings: where they come from, which one wins, and what a wrong one says."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from jarvis_stream.errors import BadSettings
from jarvis_stream.settings import (
    Settings,
    from_command_line,
    options,
    unknown_variables,
)


def problems(*argv: str) -> tuple[str, ...]:
    with pytest.raises(BadSettings) as bad:
        from_command_line(argv)
    return bad.value.problems


def test_nothing_set_means_the_defaults() -> None:
    settings = from_command_line([])
    assert (settings.host, settings.port, settings.agent) == ("127.0.0.1", 8765, "auto")
    assert settings.cancel_timeout == 2.0
    assert settings.openai_api_key is None


def test_a_flag_wins_over_its_variable_over_the_usual_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PORT", "9001")
    assert from_command_line([]).port == 9001
    monkeypatch.setenv("JARVIS_PORT", "9002")
    assert from_command_line([]).port == 9002
    assert from_command_line(["--port", "9003"]).port == 9003


@pytest.mark.parametrize(
    ("variable", "value", "field"),
    [
        ("PORT", "9001", "port"),
        ("LOG_LEVEL", "DEBUG", "log_level"),
        ("OPENAI_BASE_URL", "http://localhost:11434/v1", "openai_base_url"),
        ("OPENAI_MODEL", "llama3", "openai_model"),
    ],
)
def test_the_usual_names_are_honoured(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, field: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert str(getattr(Settings(), field)) == value


@pytest.mark.parametrize("variable", ["JARVIS_PORT", "PORT", "jarvis_port", "Jarvis_Port"])
def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "")
    assert Settings().port == 8765


def test_other_programs_variables_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", "elsewhere")
    monkeypatch.setenv("AGENT", "bond")
    assert (Settings().host, Settings().agent) == ("127.0.0.1", "auto")


@pytest.mark.parametrize("name", options())
def test_every_setting_is_a_flag_and_a_variable(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    samples = {
        "log_level": "ERROR",
        "log_format": "json",
        "agent": "my.module:agent",
        "openai_base_url": "https://example.org/v1",
        "openai_ca_file": __file__,
        "allowed_origins": "https://a.example,https://b.example",
        "auth_tokens": "ann:0123456789abcdef,bob:fedcba9876543210",
        "allow_anonymous": "true",
        "shared_conversations": "true",
        "cookie_secret": "c" * 32,
        "login_seconds": "3600",
        "trusted_proxies": "10.0.0.0/8,::1",
        "open_metrics": "false",
        "traces": "otlp",
        "operator_token": "0123456789abcdef",
        "jwt_key": "0123456789abcdef0123456789abcdef",
        "jwt_public_key_file": __file__,
        "jwt_jwks_url": "https://login.example/keys",
        "jwt_algorithms": "ES256,RS256",
    }
    sample = samples.get(name, "17")
    by_flag = getattr(from_command_line([options()[name].flag, sample]), name)
    monkeypatch.setenv(options()[name].variables[0], sample)
    assert getattr(Settings(), name) == by_flag != Settings.model_fields[name].default


def test_origins_are_separated_by_commas() -> None:
    settings = from_command_line(["--allowed-origins", "https://a.example, http://b.example:81 ,"])
    assert settings.allowed_origins == ("https://a.example", "http://b.example:81")


def test_origins_are_understood_as_browsers_say_them() -> None:
    said = "HTTPS://Chat.Example:443,http://b.example:80,https://b.example:80,http://[::1]:8080"
    assert from_command_line(["--allowed-origins", said]).allowed_origins == (
        "https://chat.example",
        "http://b.example",
        "https://b.example:80",
        "http://[::1]:8080",
    )


def test_levels_are_spelt_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_LEVEL", "warning")
    assert Settings().log_level == "WARNING"


def test_a_base_url_loses_its_last_slash() -> None:
    assert Settings(openai_base_url="http://127.0.0.1:8080/v1/").openai_base_url == (
        "http://127.0.0.1:8080/v1"
    )


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1


@pytest.mark.parametrize(
    ("flag", "value", "allowed"),
    [
        ("--port", "65536", "a whole number from 0 to 65535"),
        ("--port", "-1", "a whole number from 0 to 65535"),
        ("--port", "http", "a whole number from 0 to 65535"),
        ("--log-level", "loud", "one of TRACE, DEBUG, INFO, WARNING, ERROR, CRITICAL"),
        ("--log-format", "xml", "one of auto, pretty, json"),
        ("--agent", "openai:", "auto, demo, openai or module:callable"),
        ("--agent", "gpt", "auto, demo, openai or module:callable"),
        ("--heartbeat", "nan", "seconds above 0, at most 86400"),
        ("--heartbeat", "0", "seconds above 0, at most 86400"),
        ("--cancel-timeout", "61", "seconds from 0 to 60"),
        ("--max-prompt-chars", "0", "a whole number of at least 1"),
        ("--openai-ca-file", "/no/such/file", "a file of PEM certificates that exists"),
        (
            "--openai-base-url",
            "localhost:11434",
            "http(s)://host[:port][/path], without user name or query",
        ),
        (
            "--openai-base-url",
            "http://[::1",
            "http(s)://host[:port][/path], without user name or query",
        ),
        (
            "--allowed-origins",
            "https://a.example,b.example",
            "origins like https://chat.example.org, separated by commas",
        ),
        (
            "--allowed-origins",
            "https://*.example.org",
            "origins like https://chat.example.org, separated by commas",
        ),
        (
            "--allowed-origins",
            "https://chat.example.org/",
            "origins like https://chat.example.org, separated by commas",
        ),
    ],
)
def test_a_wrong_value_names_the_flag_the_value_and_what_is_allowed(
    flag: str, value: str, allowed: str
) -> None:
    assert problems(f"{flag}={value}") == (f"{flag}: {value!r} is not allowed; allowed: {allowed}",)


@pytest.mark.parametrize("variable", ["JARVIS_PORT", "PORT"])
def test_a_wrong_value_names_the_variable_it_came_from(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "none")
    assert problems() == (
        f"{variable}: 'none' is not allowed; allowed: a whole number from 0 to 65535",
    )


def test_each_wrong_value_has_its_own_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JARVIS_HEARTBEAT", "often")
    found = problems("--port", "x", "--allowed-origins", "a,b,c")
    assert [problem.partition(":")[0] for problem in found] == [
        "--port",
        "--allowed-origins",
        "JARVIS_HEARTBEAT",
    ]


@given(st.text(max_size=300))
def test_a_wrong_value_is_told_in_one_short_line(value: str) -> None:
    (problem,) = problems(f"--log-format={value}_")
    assert len(problem.splitlines()) == 1
    assert len(problem) < 200


def test_a_wrong_key_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret with a space")
    assert problems() == (
        "OPENAI_API_KEY: the value is not allowed; allowed: "
        "printable ASCII characters without spaces",
    )
    with pytest.raises(ValidationError) as error:
        Settings()
    assert "sk-secret" not in str(error.value)


def test_a_key_is_not_in_the_repr() -> None:
    settings = Settings(openai_api_key="sk-secret\n")  # type: ignore[arg-type]
    assert settings.openai_api_key is not None
    assert settings.openai_api_key.get_secret_value() == "sk-secret"
    assert "sk-secret" not in f"{settings!r} {settings}"


def test_a_password_in_a_wrong_url_is_not_shown() -> None:
    (problem,) = problems("--openai-base-url", "http://me:sesame@example.org/v1")
    assert "sesame" not in problem


def test_an_unknown_variable_is_told_with_its_near_matches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("JARVIS_HEARTBEET", "3")
    monkeypatch.setenv("JARVIS_XYZZY_QUUX", "3")
    monkeypatch.setenv("JARVIS_PORT", "3")
    assert unknown_variables() == [
        "the variable JARVIS_HEARTBEET is not a setting; did you mean JARVIS_HEARTBEAT?",
        "the variable JARVIS_XYZZY_QUUX is not a setting",
    ]


@pytest.mark.parametrize("argv", [["--bogus"], ["--por", "1"], ["extra"], ["--port"]])
def test_an_unknown_flag_exits_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        from_command_line(argv)
    assert stopped.value.code == 2
    assert argv[0] in capsys.readouterr().err


def test_help_shows_every_flag_variable_and_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with pytest.raises(SystemExit) as stopped:
        from_command_line(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for option in options().values():
        assert f"{option.flag} {option.metavar}" in text
        assert option.meaning in text
        assert f"[{', '.join(option.variables)}; default: {option.default}]" in text
    assert "sk-secret" not in text


def test_the_documentation_agrees_with_the_code() -> None:
    made = subprocess.run(
        [sys.executable, ROOT / "docs" / "settings.py"], capture_output=True, check=True
    )
    assert (ROOT / "docs" / "settings.md").read_bytes() == made.stdout, "run `make docs`"
