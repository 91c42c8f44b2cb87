"""Session ids that tell where the session is."""

from __future__ import annotations

import re

import pytest
from botocore.session import get_session
from hypothesis import given, settings
from hypothesis import strategies as st

from eyrie.gateway.sessions import ID_CHARS_MAX, LASTS_S, SessionError, Sessions, expiry

SLUG = "123456789012.us-east-1.e"
NOW_S = 1_800_000_000
MODEL = get_session().get_service_model("sagemaker-runtime").operation_model("InvokeEndpoint")
IDS = st.from_regex(re.compile(r"\A[a-zA-Z0-9](-*[a-zA-Z0-9]){0,40}\Z"))


@given(IDS.filter(lambda text: len(text) <= ID_CHARS_MAX), st.from_regex(r"\Ai-[0-9a-f]{17}(\.[0-9]{1,2})?\Z"))
@settings(deadline=None)
def test_an_id_leads_back_and_is_one_that_the_api_allows(container_id: str, target: str) -> None:
    sessions = Sessions(b"key")
    begun = sessions.begin(f"{container_id}; Expires=2033-05-18T03:33:20Z", SLUG, target, NOW_S)
    assert begun.expires_s == 2_000_000_000
    found = Sessions(b"key").find(begun.token, SLUG, NOW_S)
    assert (found, found.container_id, found.target) == (begun, container_id, target)
    assert re.fullmatch(MODEL.input_shape.members["SessionId"].metadata["pattern"], begun.token)
    told = expiry(begun)
    assert told.endswith("; Expires=2033-05-18T03:33:20Z")
    assert len(told) <= 256
    assert re.fullmatch(MODEL.output_shape.members["NewSessionId"].metadata["pattern"], told)


def test_a_session_without_an_end_has_one() -> None:
    assert Sessions(b"k").begin("abc", SLUG, "i-1", NOW_S).expires_s == NOW_S + LASTS_S


@pytest.mark.parametrize(
    "said",
    [
        "",
        ";",
        "a b",
        "-a",
        "a-",
        "ä",
        "a_b",
        "x" * 129,
        "a; Expires=tomorrow",
        "a; Expires=2033-13-18T03:33:20Z",
        "a;b",
    ],
)
def test_an_id_that_the_api_does_not_allow_is_refused(said: str) -> None:
    with pytest.raises(SessionError):
        Sessions(b"k").begin(said, SLUG, "i-1", NOW_S)


def test_an_id_cannot_be_made_up_prolonged_or_used_elsewhere() -> None:
    sessions = Sessions(b"key")
    token = sessions.begin("abc; Expires=2033-05-18T03:33:20Z", SLUG, "i-1", NOW_S).token
    container_id, place, expires, mac = token.split("-")
    for bad in (
        "",
        "abc",
        "a-b-c-d",
        "----",
        "é-é-é-é",
        token[:-1],
        token + "0",
        f"abd-{place}-{expires}-{mac}",
        f"{container_id}-{place}-{int(expires) + 1}-{mac}",
        f"{container_id}-{place[:-1]}-{expires}-{mac}",
        "x" * 10_000,
    ):
        with pytest.raises(SessionError, match="not found"):
            sessions.find(bad, SLUG, NOW_S)
    with pytest.raises(SessionError, match="not found"):
        sessions.find(token, SLUG.replace(".e", ".f"), NOW_S)
    with pytest.raises(SessionError, match="not found"):
        Sessions(b"another").find(token, SLUG, NOW_S)
    with pytest.raises(SessionError, match="expired"):
        sessions.find(token, SLUG, 2_000_000_000)
    assert sessions.find(token, SLUG, 1_999_999_999).container_id == "abc"
