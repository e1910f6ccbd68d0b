"""Static tokens: what is one, and whose."""

from __future__ import annotations

import pytest

from jarvis_stream.identity.base import Principal
from jarvis_stream.identity.tokens import StaticTokens, parse_tokens

ANNS = "0123456789abcdef"
BOBS = "fedcba9876543210=="


def test_names_and_tokens_are_parsed() -> None:
    assert parse_tokens(f" ann:{ANNS} , bob:{BOBS},") == {"ann": ANNS, "bob": BOBS}


@pytest.mark.parametrize(
    "text",
    [
        "",
        " , ",
        ANNS,
        f":{ANNS}",
        f"a b:{ANNS}",
        "ann:short",
        "ann:with a blank in it",
        f"ann:{ANNS}\u00e9",
        f"ann:{ANNS},ann:{BOBS}",
        f"ann:{ANNS},bob:{ANNS}",
    ],
)
def test_what_is_no_list_of_tokens_is_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(ValueError, match=r"name|token") as refused:
        parse_tokens(text)
    assert ANNS not in str(refused.value)


async def test_a_token_is_its_owners() -> None:
    tokens = StaticTokens({"ann": ANNS, "bob": BOBS})
    assert await tokens.verify(ANNS) == Principal("ann")
    assert await tokens.verify(BOBS) == Principal("bob")
    for wrong in ("", "ann", ANNS[:-1], ANNS + "0", BOBS.strip("="), "\ud800"):
        assert await tokens.verify(wrong) is None
    assert ANNS not in repr(tokens)


async def test_a_principal_is_known_while_their_token_stays() -> None:
    ann = await StaticTokens({"ann": ANNS, "bob": BOBS}).verify(ANNS)
    assert ann is not None
    assert ANNS not in ann.source
    assert StaticTokens({"ann": ANNS}).knows(ann)
    for tokens in ({"bob": BOBS}, {"ann": BOBS}, {"bob": ANNS}):
        assert not StaticTokens(tokens).knows(ann)
    assert not StaticTokens({"ann": ANNS}).knows(Principal("ann"))


@pytest.mark.parametrize("name", ["", "a b", "a\nb", "a\x00", "a\u2028b", "x" * 257, "\ud800"])
def test_a_name_that_could_not_stand_in_a_line_is_none(name: str) -> None:
    with pytest.raises(ValueError, match="256 characters"):
        Principal(name)
