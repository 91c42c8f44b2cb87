"""The pure parts of the S3 API: CRCs, checksums, XML, names, ranges, conditions."""

from __future__ import annotations

import base64
import zlib
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyrie.objects import checksums, conditions, names, xml
from eyrie.objects.crc import CRC32, CRC32C, CRC64NVME, Crc
from eyrie.objects.xml import Element, element
from eyrie.wire.dispatch import RESERVED_BUCKETS
from eyrie.wire.errors import ApiError


def code_of(error: pytest.ExceptionInfo[ApiError]) -> tuple[str, int]:
    return error.value.code, error.value.status


# --- CRCs


def test_crc_check_values() -> None:
    assert CRC32.update(b"123456789") == 0xCBF43926
    assert CRC32C.update(b"123456789") == 0xE3069283
    assert CRC64NVME.update(b"123456789") == 0xAE8B14860A799888


def bytewise(crc: Crc, data: bytes) -> int:
    reflected = int(format(crc.polynomial, f"0{crc.width}b")[::-1], 2)
    ones = (1 << crc.width) - 1
    state = ones
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = (state >> 1) ^ (reflected if state & 1 else 0)
    return state ^ ones


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 40), st.integers(0, 6000))
def test_crc_folding_equals_the_definition(seed: bytes, times: int, cut: int) -> None:
    data = (seed + b"\x80") * times
    for crc in (CRC32C, CRC64NVME):
        whole = bytewise(crc, data)
        assert crc.update(data) == whole
        assert crc.update(data[cut:], crc.update(data[:cut])) == whole
        assert crc.combine(crc.update(data[:cut]), crc.update(data[cut:]), len(data[cut:])) == whole


def test_crc_folding_of_megabytes_equals_zlib() -> None:
    folded = Crc(32, 0x04C11DB7, 1000)  # zlib's CRC, computed the long way
    data = bytes(range(251)) * 9000
    assert folded.update(data) == zlib.crc32(data)
    assert CRC32.combine(zlib.crc32(data[:777]), zlib.crc32(data[777:]), len(data) - 777) == zlib.crc32(data)


def test_claimed_checksums() -> None:
    good = base64.b64encode(b"1234").decode()
    assert checksums.claimed({"x-amz-checksum-crc32": good, "x-amz-checksum-type": "FULL_OBJECT"}) == {"CRC32": good}
    with pytest.raises(ApiError) as error:
        checksums.claimed({"x-amz-checksum-crc32": "AAAA"})
    assert code_of(error) == ("InvalidRequest", 400)
    with pytest.raises(ApiError):
        checksums.claimed({"x-amz-checksum-crc32": good, "x-amz-checksum-crc32c": good})
    with pytest.raises(ApiError) as error:
        checksums.claimed({"x-amz-checksum-xxhash64": good})
    assert code_of(error) == ("NotImplemented", 501)


@pytest.mark.parametrize(
    ("algorithm", "asked", "kind"),
    [
        ("CRC32", None, "COMPOSITE"),
        ("CRC32", "FULL_OBJECT", "FULL_OBJECT"),
        ("CRC64NVME", None, "FULL_OBJECT"),
        ("SHA256", None, "COMPOSITE"),
        ("SHA256", "FULL_OBJECT", None),
        ("CRC64NVME", "COMPOSITE", None),
    ],
)
def test_kinds_of_multipart_checksums(algorithm: str, asked: str | None, kind: str | None) -> None:
    if kind is not None:
        assert checksums.upload_type(algorithm, asked) == kind
        return
    with pytest.raises(ApiError):
        checksums.upload_type(algorithm, asked)


# --- XML


@given(st.text(st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="\ufffe\uffff"), max_size=40))
def test_written_xml_is_read_back(text: str) -> None:
    written = xml.document(element("Root", A=text, B=7, C=True, D=None))
    root = ElementTree.fromstring(written)
    name = "{" + xml.NAMESPACE + "}"
    assert [child.tag for child in root] == [name + "A", name + "B", name + "C"]
    assert (root.findtext(name + "A") or "") == text
    assert xml.parse(written, "Root").get("A") == text


def test_control_characters_are_references() -> None:
    assert b"a&#x1;b&#xd;c" in xml.document(Element("R", "a\x01b\rc"))


BOMB = b'<!DOCTYPE r [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><Delete>&b;</Delete>'


@pytest.mark.parametrize(
    "body",
    [
        BOMB,
        b'<!DOCTYPE Delete SYSTEM "file:///etc/passwd"><Delete/>',
        b"<Delete>" * 50 + b"</Delete>" * 50,
        b"<Delete>" + b"<a/>" * 100_001 + b"</Delete>",
        b"<Other/>",
        b"",
        b"<Delete>",
        b"\xff\xfe\x00",
        b'<?xml version="1.0" encoding="nonsense"?><Delete/>',
        b"<Delete>&undefined;</Delete>",
    ],
)
def test_bad_documents_are_refused(body: bytes) -> None:
    with pytest.raises(ApiError) as error:
        xml.parse(body, "Delete")
    assert code_of(error) == ("MalformedXML", 400)


def test_namespaces_and_prefixes_do_not_matter() -> None:
    for body in (
        b'<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Quiet>true</Quiet></Delete>',
        b'<x:Delete xmlns:x="urn:x"><x:Quiet>true</x:Quiet></x:Delete>',
        b"<Delete><!-- c --><Quiet>tr<![CDATA[ue]]></Quiet></Delete>",
    ):
        assert xml.parse(body, "Delete").get("Quiet") == "true"


# --- names


@pytest.mark.parametrize(
    ("host", "path", "bucket", "key"),
    [
        ("127.0.0.1:7777", "/b/a%20b//c%2Fd/", "b", b"a b//c/d/"),
        ("localhost:7777", "/", "", b""),
        ("localhost", "/b", "b", b""),
        ("localhost", "/b/", "b", b""),
        ("b.localhost:7777", "/b/x", "b", b"b/x"),
        ("my.bucket.localhost:7777", "//x", "my.bucket", b"/x"),
        ("b.s3.us-east-1.amazonaws.com", "/k", "b", b"k"),
        ("localhost", "/b/%C3%A9+", "b", "é+".encode()),
        ("localhost", "/b/../c", "b", b"../c"),
    ],
)
def test_places(host: str, path: str, bucket: str, key: bytes) -> None:
    assert names.place(host, path) == (bucket, key)


def test_keys_are_bounded_utf8() -> None:
    assert len(names.key_of("%C3%A9" * 512)) == 1024
    with pytest.raises(ApiError) as error:
        names.key_of("a" * 1025)
    assert code_of(error) == ("KeyTooLongError", 400)
    with pytest.raises(ApiError) as error:
        names.key_of("%ff")
    assert code_of(error) == ("InvalidURI", 400)


@pytest.mark.parametrize("name", ["abc", "a.b-c", "0" * 63, "sagemaker-us-east-1-123456789012"])
def test_good_bucket_names(name: str) -> None:
    names.check_new_bucket(name)


@pytest.mark.parametrize(
    "name",
    [
        "ab",
        "a" * 64,
        "Abc",
        "a_b",
        "-ab",
        "ab-",
        "a..b",
        "1.2.3.4",
        "xn--abc",
        "abc-s3alias",
        "a b",
        "é",
        *sorted(RESERVED_BUCKETS),
    ],
)
def test_bad_bucket_names(name: str) -> None:
    with pytest.raises(ApiError) as error:
        names.check_new_bucket(name)
    assert code_of(error) == ("InvalidBucketName", 400)


# --- ranges and conditions


@pytest.mark.parametrize(
    ("header", "size", "found"),
    [
        (None, 10, None),
        ("bytes=0-0", 10, (0, 1)),
        ("bytes=2-", 10, (2, 10)),
        ("bytes=2-100", 10, (2, 10)),
        ("bytes=-3", 10, (7, 10)),
        ("bytes=-30", 10, (0, 10)),
        ("bytes=5-4", 10, None),
        ("bytes=0-1,3-4", 10, None),
        ("items=0-1", 10, None),
        ("bytes=-", 10, None),
        ("bytes=10-", 10, "InvalidRange"),
        ("bytes=-0", 10, "InvalidRange"),
        ("bytes=0-", 0, "InvalidRange"),
        ("bytes=" + "9" * 18 + "-", 10, "InvalidRange"),
        ("bytes=" + "9" * 40 + "-", 10, "InvalidRange"),
        ("bytes=2-" + "9" * 40, 10, (2, 10)),
        ("bytes=-" + "9" * 40, 10, (0, 10)),
        ("bytes=" + "9" * 5000 + "-", 10, None),
    ],
)
def test_ranges(header: str | None, size: int, found: tuple[int, int] | str | None) -> None:
    if found == "InvalidRange":
        with pytest.raises(ApiError) as error:
            conditions.byte_range(header, size)
        assert code_of(error) == ("InvalidRange", 416)
    else:
        assert conditions.byte_range(header, size) == found


NOW_MS = 1_795_000_000_500
BEFORE, SAME, AFTER = (conditions.http_date(NOW_MS + shift) for shift in (-5000, 0, 5000))


@pytest.mark.parametrize(
    ("headers", "verdict"),
    [
        ({}, "proceed"),
        ({"if-match": '"e"'}, "proceed"),
        ({"if-match": "e"}, "proceed"),
        ({"if-match": '"x", "e"'}, "proceed"),
        ({"if-match": "*"}, "proceed"),
        ({"if-match": '"x"'}, "failed"),
        ({"if-none-match": '"e"'}, "not modified"),
        ({"if-none-match": '"x"'}, "proceed"),
        ({"if-modified-since": SAME}, "not modified"),
        ({"if-modified-since": BEFORE}, "proceed"),
        ({"if-unmodified-since": BEFORE}, "failed"),
        ({"if-unmodified-since": SAME}, "proceed"),
        ({"if-match": '"e"', "if-unmodified-since": BEFORE}, "proceed"),
        ({"if-none-match": '"x"', "if-modified-since": AFTER}, "proceed"),
        ({"if-modified-since": "yesterday"}, "proceed"),
        ({"if-unmodified-since": "Sat, 99 Nov 99999 99:99:99 GMT"}, "proceed"),
    ],
)
def test_read_conditions(headers: dict[str, str], verdict: str) -> None:
    if verdict == "failed":
        with pytest.raises(ApiError) as error:
            conditions.check_read(headers.get, "e", NOW_MS)
        assert code_of(error) == ("PreconditionFailed", 412)
    else:
        assert conditions.check_read(headers.get, "e", NOW_MS).value == verdict


def test_write_conditions() -> None:
    conditions.check_write(None, "*", None)
    conditions.check_write('"e"', None, "e")
    for if_match, if_none_match, etag, code in (
        (None, "*", "e", "PreconditionFailed"),
        ('"x"', None, "e", "PreconditionFailed"),
        ('"x"', None, None, "NoSuchKey"),
        (None, '"e"', None, "NotImplemented"),
    ):
        with pytest.raises(ApiError) as error:
            conditions.check_write(if_match, if_none_match, etag)
        assert error.value.code == code
