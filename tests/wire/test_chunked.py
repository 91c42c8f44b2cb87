"""aws-chunked bodies: signed as the specification says (written out here a second time), cut anywhere, and tampered
with.
"""

from __future__ import annotations

import hashlib
import hmac
import io

import botocore.httpchecksum
import pytest
import test_auth
from botocore.awsrequest import AWSRequest
from test_auth import KEY, SECRET, claim, signed

from eyrie.wire.auth import Claim, Verifier
from eyrie.wire.chunked import ChunkedBody
from eyrie.wire.errors import ApiError

fixed_time = test_auth.fixed_time
SIGNED, SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
CHUNKS = [b"a" * 70, b"\r\n0;chunk-signature=\r\n\r\n", b"end"]
TRAILER = b"x-amz-checksum-crc32c:sOO8/Q==\n"


class _Streaming(test_auth.botocore.auth.S3SigV4Auth):
    mode = SIGNED

    def payload(self, request: AWSRequest) -> str:
        return self.mode


def head_claim(mode: str, verifier: Verifier | None = None) -> Claim:
    signer = type("Signer", (_Streaming,), {"mode": mode})
    head = signed(signer, method="PUT", url="http://127.0.0.1:7777/b/k", service="s3", body=b"")
    found = claim(head, "s3", verifier)
    found.check_signature()
    return found


def sign(previous: bytes, kind: str, *hashes: bytes) -> bytes:
    key = b"AWS4" + SECRET.encode()
    for part in (b"20261121", b"eu-west-1", b"s3", b"aws4_request"):
        key = hmac.new(key, part, hashlib.sha256).digest()
    scope = b"20261121/eu-west-1/s3/aws4_request"
    text = b"\n".join([b"AWS4-HMAC-SHA256-" + kind.encode(), b"20261121T084002Z", scope, previous, *hashes])
    return hmac.new(key, text, hashlib.sha256).hexdigest().encode()


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()


def signed_body(seed: bytes, trailer: bytes = b"") -> bytes:
    out = b""
    for chunk in [*CHUNKS, b""]:
        seed = sign(seed, "PAYLOAD", sha(b""), sha(chunk))
        out += b"%x;chunk-signature=%s\r\n" % (len(chunk), seed) + (chunk + b"\r\n" if chunk else b"")
    if not trailer:
        return out + b"\r\n"
    signature = sign(seed, "TRAILER", sha(trailer))
    return out + trailer.replace(b"\n", b"\r\n") + b"x-amz-trailer-signature:" + signature + b"\r\n\r\n"


def read(found: Claim, body: bytes, step: int = 1 << 20) -> tuple[bytes, dict[bytes, bytes]]:
    decoder = ChunkedBody(found)
    pieces = [piece for at in range(0, len(body), step) for piece in decoder.feed(body[at : at + step])]
    return b"".join(pieces), decoder.finish()


@pytest.mark.parametrize("step", [1, 2, 7, 64, 1 << 20])
def test_signed_chunks_wherever_they_are_cut(step: int) -> None:
    found = head_claim(SIGNED)
    assert read(found, signed_body(found.signature), step) == (b"".join(CHUNKS), {})


@pytest.mark.parametrize("step", [1, 5, 1 << 20])
def test_a_signed_trailer(step: int) -> None:
    found = head_claim(SIGNED_TRAILER)
    body = signed_body(found.signature, TRAILER)
    assert read(found, body, step) == (b"".join(CHUNKS), {b"x-amz-checksum-crc32c": b"sOO8/Q=="})


def test_no_byte_of_a_signed_body_may_change() -> None:
    found = head_claim(SIGNED_TRAILER)
    body = signed_body(found.signature, TRAILER)
    for at in range(len(body)):
        changed = bytearray(body)
        changed[at] ^= 1
        if body[at : at + 1].isalpha() and bytes(changed).lower() == body.lower():
            continue
        with pytest.raises(ApiError):
            read(found, bytes(changed))


def test_no_byte_may_be_missing_or_added() -> None:
    found = head_claim(SIGNED_TRAILER)
    body = signed_body(found.signature, TRAILER)
    for at in range(len(body) - 1):
        with pytest.raises(ApiError):
            read(found, body[:at])
    with pytest.raises(ApiError):
        read(found, body + b"x")


def test_chunks_may_not_be_swapped_or_replayed() -> None:
    found = head_claim(SIGNED)
    body = signed_body(found.signature)
    first = body[: body.index(b"\r\n") + 2 + 70 + 2]
    with pytest.raises(ApiError, match="SignatureDoesNotMatch"):
        read(found, first + body)


def test_what_botocore_sends_with_a_trailer() -> None:
    data = b"payload " * 9000
    wrapper = botocore.httpchecksum.AwsChunkedWrapper(
        io.BytesIO(data), checksum_cls=botocore.httpchecksum.Crc32Checksum, checksum_name="x-amz-checksum-crc32"
    )
    found = head_claim(UNSIGNED_TRAILER)
    expected = botocore.httpchecksum.Crc32Checksum()
    expected.update(data)
    assert read(found, wrapper.read(), 1000) == (data, {b"x-amz-checksum-crc32": expected.b64digest().encode()})


def test_without_authentication_signatures_are_not_looked_at() -> None:
    found = head_claim(SIGNED, Verifier(test_auth.KNOWN, auth=False))
    assert found.identity.access_key_id == KEY
    assert read(found, signed_body(b"0" * 64)) == (b"".join(CHUNKS), {})


@pytest.mark.parametrize(
    "body",
    [
        b"zz\r\nabc\r\n0\r\n\r\n",
        b"-1\r\n\r\n",
        b"3\nabc\r\n0\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"\r\n",
        b"f" * 13 + b"\r\n",
        b"3;" + b"x" * 2000,
        b"0\r\nno colon\r\n\r\n",
        b"0\r\n" + b"a:b\r\n" * 4000,
        b"",
    ],
)
def test_malformed_bodies_are_refused(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        read(head_claim(UNSIGNED_TRAILER), body)
    assert caught.value.status == 400


def test_lines_and_trailers_are_bounded() -> None:
    decoder = ChunkedBody(head_claim(UNSIGNED_TRAILER))
    with pytest.raises(ApiError, match="chunk header is too long"):
        decoder.feed(b"3;" + b"x" * 2000)
    decoder = ChunkedBody(head_claim(UNSIGNED_TRAILER))
    lines = b"".join(b"x-%d: y\r\n" % i for i in range(10_000))
    with pytest.raises(ApiError, match="trailer is too long"):
        decoder.feed(b"0\r\n" + lines)
