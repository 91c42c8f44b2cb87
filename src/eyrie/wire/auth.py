"""SigV4, verified: whose request it is, in two steps, since a body is read only after its head was accepted.

`Verifier.check_head` needs the head alone: the key is known, the scope has its shape and service, the date is near,
and host and every x-amz-* header are signed. It answers a Claim; `Claim.check_body` (the whole body at hand) or
`Claim.check_signature` (S3, where the head declares the body's hash and `eyrie.wire.chunked` checks it as it streams
by) then proves it. Light and fast: this is on the path of every InvokeEndpoint.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, NamedTuple

from eyrie.domain.names import DEFAULT_ACCOUNT, DEFAULT_REGION
from eyrie.wire.auth_canonical import canonical_targets, parse_date, query_pairs
from eyrie.wire.auth_errors import Fault, auth_error
from eyrie.wire.auth_v2 import check_v2
from eyrie.wire.credentials import Credentials, Identity
from eyrie.wire.dispatch import signing_name
from eyrie.wire.messages import HttpRequest

SKEW_MS = 15 * 60 * 1000
EXPIRES_MAX_S = 7 * 24 * 3600
UNSIGNED = b"UNSIGNED-PAYLOAD"
STREAMING = frozenset(
    {
        b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
        b"STREAMING-UNSIGNED-PAYLOAD-TRAILER",
    }
)
_ALGORITHM = b"AWS4-HMAC-SHA256"
_CACHED_MAX = 1024  # entries of each cache, which is emptied when full
_SHAPES_MAX = 8  # remembered sets of header names, for one scope, and of how many bytes together
_SHAPE_BYTES_MAX = 1024
_PATH_BYTES_MAX = 256  # of a path that is remembered
_PREFIX_BYTES_MAX = 4096
_MUST_DIFFER = frozenset((b"x-amz-date", b"authorization"))  # of a Form
_HEX = frozenset(b"0123456789abcdef")


class _Scope(NamedTuple):
    """What an Authorization header says before its signature: the same for a client all day long."""

    identity: Identity
    key: bytes  # signing key
    token: bytes  # session token that the request must carry
    day: bytes  # YYYYMMDD
    scope: bytes  # day/region/service/aws4_request
    names: tuple[bytes, ...]  # signed headers, as the client lists them
    named: frozenset[bytes]
    signed: bytes  # the same, as in SignedHeaders
    values: Callable[[Mapping[bytes, bytes]], Any]  # picks the signed headers' values
    lines: bytes  # their canonical lines and what follows, a %b in place of each value
    inner: Any  # SHA-256 that has read the key: copying it is half the price of an HMAC afresh
    outer: Any
    services: set[str]  # boto3's names of services that were found to fit
    passed: set[tuple[bytes, ...]]  # names of a request's headers that were found to be signed as they must


class Claim:
    """A request whose head is in order; its signature is still to be proven."""

    __slots__ = ("_heads", "_scope", "_stamp", "identity", "payload", "service", "signature", "trusted")

    def __init__(
        self,
        identity: Identity,
        service: str,
        payload: bytes,
        scope: _Scope | None = None,
        stamp: bytes = b"",
        signature: bytes = b"",
        heads: tuple[bytes, ...] = (),
    ) -> None:
        self.identity = identity
        self.service = service  # boto3's name, for the style of errors
        self.payload = payload  # declared hash (hex), UNSIGNED, one of STREAMING, or b"": not declared
        self.signature = signature  # hex, as the client sent it; the seed of chunk signatures
        self.trusted = scope is None  # nothing left to prove: authentication is off, or proven from the head alone
        self._scope = scope
        self._stamp = stamp
        self._heads = heads

    def check_body(self, body: bytes) -> Identity:
        """Prove the signature over the whole body. Raises ApiError."""
        digest = hashlib.sha256(body).hexdigest().encode()
        declared = self.payload
        if not declared or declared == digest:
            return self._prove(digest)
        if declared == UNSIGNED and self.service == "s3":
            return self._prove(declared)
        if self.trusted and (declared == UNSIGNED or declared in STREAMING):
            return self.identity
        raise auth_error(Fault.BAD_PAYLOAD, self.service, "The body is not the one that x-amz-content-sha256 declares.")

    def check_signature(self) -> Identity:
        """Prove the signature over the declared hash, before the body is read. Raises ApiError."""
        if not self.payload and not self.trusted:
            raise auth_error(
                Fault.INCOMPLETE, self.service, "Missing required header for this request: x-amz-content-sha256"
            )
        return self._prove(self.payload)

    def chunk_signature(self, previous: bytes, kind: bytes, digests: bytes) -> bytes:
        """The hex signature that follows `previous` in an aws-chunked body; `kind` is b"PAYLOAD" or b"TRAILER"."""
        assert self._scope is not None
        text = b"\n".join((_ALGORITHM + b"-" + kind, self._stamp, self._scope.scope, previous, digests))
        return hmac.digest(self._scope.key, text, "sha256").hex().encode()

    def _prove(self, payload: bytes) -> Identity:
        scope = self._scope
        if scope is None:
            return self.identity
        for head in self._heads:
            inner, outer = scope.inner.copy(), scope.outer.copy()
            digest = hashlib.sha256(head + payload).hexdigest().encode()
            inner.update(b"AWS4-HMAC-SHA256\n%b\n%b\n%b" % (self._stamp, scope.scope, digest))
            outer.update(inner.digest())
            if hmac.compare_digest(outer.hexdigest().encode(), self.signature):
                return self.identity
        raise auth_error(Fault.MISMATCH, self.service)


class Form:
    """The head of a request that was accepted, with room for what differs in the next: its claims take one step.

    Two requests of one form have the same method, target, key, scope and headers; but for the values of some.
    """

    __slots__ = (
        "_payload",
        "_payload_group",
        "_picked",
        "_scope",
        "_service",
        "_signature",
        "_stamp",
        "_stamps",
        "_text",
    )

    def __init__(
        self,
        scope: _Scope,
        service: str,
        text: bytes,
        groups: Mapping[bytes, int],
        payload: bytes,
        stamps: dict[bytes, int],
    ) -> None:
        self._scope = scope
        self._service = service
        self._text = text  # canonical, a %b in place of each signed value that differs
        self._picked = [groups[name] for name in scope.names if name in groups]
        self._stamp = groups[b"x-amz-date"]
        self._signature = groups[b"authorization"]
        self._payload = payload
        self._payload_group = groups.get(b"x-amz-content-sha256", 0)
        self._stamps = stamps

    def claim(self, values: re.Match[bytes], now_ms: int) -> Claim | None:
        """The claim of a head by the values that differ; None: not to be decided here, ask `check_head`."""
        scope = self._scope
        stamp = values[self._stamp]
        at_ms = self._stamps.get(stamp)
        if at_ms is None or not -SKEW_MS <= now_ms - at_ms <= SKEW_MS or stamp[:8] != scope.day:
            return None
        payload = values[self._payload_group] if self._payload_group else self._payload
        head = self._text % values.group(*self._picked)
        return Claim(scope.identity, self._service, payload, scope, stamp, values[self._signature], (head,))


class Verifier:
    """Checks signatures against the known credentials; caches what repeats, within bounds. One a process."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        auth: bool = True,
        account: str = DEFAULT_ACCOUNT,
        region: str = DEFAULT_REGION,
    ) -> None:
        self._credentials = credentials
        self._auth = auth
        self._account = account
        self._region = region
        self._scopes: dict[bytes, _Scope] = {}
        self._keys: dict[bytes, bytes] = {}
        self._stamps: dict[bytes, int] = {}
        self._targets: dict[bytes, tuple[bytes, ...]] = {}

    def check(self, request: HttpRequest, service: str, now_ms: int) -> Identity:
        """Both steps at once, for whoever has the whole request. Raises ApiError."""
        headers = {name.encode("latin-1"): value.encode("latin-1") for name, value in request.headers.items()}
        claim = self.check_head(
            request.method.encode(),
            request.path.encode("latin-1"),
            request.query.encode("latin-1"),
            headers,
            service,
            now_ms,
        )
        return claim.check_body(request.body)

    def check_head(
        self, method: bytes, path: bytes, query: bytes, headers: Mapping[bytes, bytes], service: str, now_ms: int
    ) -> Claim:
        """The claim of a request's head (header names lower case, repeated ones joined by ","). Raises ApiError.

        `service` is boto3's name, as `dispatch.destination` found it; "" accepts any. `now_ms` is wall-clock time,
        since the epoch.
        """
        if not self._auth:
            return self._trust(query, headers, service)
        authorization = headers.get(b"authorization")
        if authorization is None:
            return self._check_query(method, path, query, headers, service, now_ms)
        prefix, _, signature = authorization.rpartition(b"Signature=")
        scope = self._scopes.get(prefix)
        if scope is None or len(signature) != 64:
            scope, signature = self._read_authorization(authorization, service)
            self._remember(prefix, scope)
        if service not in scope.services:
            _check_service(scope, service)
            scope.services.add(service)
        stamp = headers.get(b"x-amz-date", b"")
        if stamp[:8] != scope.day:
            stamp = self._stamp(headers, scope, service)
        at_ms = self._stamps.get(stamp)
        if at_ms is None or not -SKEW_MS <= now_ms - at_ms <= SKEW_MS:
            self._check_skew(stamp, now_ms, service)
        token = headers.get(b"x-amz-security-token", b"")
        if token or scope.token:
            self._check_token(scope, token, service)
        heads = self._heads(method, path, query, headers, scope, service)
        payload = headers.get(b"x-amz-content-sha256", b"")
        return Claim(scope.identity, service, payload, scope, stamp, signature, heads)

    def form(
        self, claim: Claim, method: bytes, path: bytes, fields: Mapping[bytes, bytes], groups: Mapping[bytes, int]
    ) -> Form | None:
        """The form of a head without a query whose claim was proven; `groups`: the headers whose values differ from
        request to request (of Authorization the signature), by their numbers in a match. None where it has none.
        """
        scope = claim._scope
        targets = canonical_targets(path, b"", False)
        if scope is None or len(targets) != 1 or not groups.keys() >= _MUST_DIFFER:
            return None
        if b"authorization" in scope.named or not scope.named <= fields.keys():
            return None
        values = {name: _trimmed(fields[name]) for name in scope.names}
        room = {name: b"%b" if name in groups else _escaped(value) for name, value in values.items()}
        lines = [b"%b:%b\n" % (_escaped(name), value) for name, value in room.items()]
        text = b"%b\n%b\n%b\n%b\n" % (method, _escaped(targets[0]), b"".join(lines), _escaped(scope.signed))
        if (text % tuple(values[name] for name in values if name in groups),) != claim._heads:
            return None
        return Form(scope, claim.service, text, groups, fields.get(b"x-amz-content-sha256", b""), self._stamps)

    def _heads(
        self, method: bytes, path: bytes, query: bytes, headers: Mapping[bytes, bytes], scope: _Scope, service: str
    ) -> tuple[bytes, ...]:
        """The canonical request up to its payload hash, in each form that a client may have signed."""
        names = tuple(headers)
        if names not in scope.passed:
            _check_signed(names, scope, service)
            if sum(map(len, names)) <= _SHAPE_BYTES_MAX:
                if len(scope.passed) >= _SHAPES_MAX:
                    scope.passed.clear()
                scope.passed.add(names)
        try:
            values = scope.values(headers)
            tail = scope.lines % values
            if b" " in tail or b"\t" in tail:  # rarely, so the few that have blanks may take longer
                tail = b"%b\n\n%b\n" % (_canonical_lines(headers, scope, service), scope.signed)
        except KeyError:
            tail = b"%b\n\n%b\n" % (_canonical_lines(headers, scope, service), scope.signed)
        targets = self._targets.get(path) if not query and service != "s3" else None
        if targets is None:
            targets = canonical_targets(path, query, service == "s3")
            if not query and service != "s3" and len(path) <= _PATH_BYTES_MAX:
                if len(self._targets) >= _CACHED_MAX:
                    self._targets.clear()
                self._targets[path] = targets
        if len(targets) == 1:
            return (b"%b\n%b\n%b" % (method, targets[0], tail),)
        return tuple([b"%b\n%b\n%b" % (method, target, tail) for target in targets])

    def _read_authorization(self, authorization: bytes, service: str) -> tuple[_Scope, bytes]:
        algorithm, _, rest = authorization.partition(b" ")
        if algorithm != _ALGORITHM or len(authorization) > _PREFIX_BYTES_MAX:
            what = "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."
            raise auth_error(Fault.UNSUPPORTED, service, what)
        parts = dict(part.strip().partition(b"=")[::2] for part in rest.split(b","))
        for name in (b"Credential", b"SignedHeaders", b"Signature"):
            if not parts.get(name):
                what = f"Authorization header requires '{name.decode()}' parameter."
                raise auth_error(Fault.INCOMPLETE, service, what)
        signature = parts[b"Signature"]
        _check_hex(signature, service)
        return self._read_scope(parts[b"Credential"], parts[b"SignedHeaders"], service), signature

    def _read_scope(self, credential: bytes, signed: bytes, service: str) -> _Scope:
        access_key_id, _, scope = credential.partition(b"/")
        parts = scope.split(b"/")
        if len(parts) != 4 or parts[3] != b"aws4_request" or len(parts[0]) != 8 or not parts[1] or not access_key_id:
            what = "Credential must be KEY/YYYYMMDD/REGION/SERVICE/aws4_request."
            raise auth_error(Fault.INCOMPLETE, service, what)
        known = self._credentials.get(access_key_id)
        if known is None:
            raise auth_error(Fault.UNKNOWN_KEY, service)
        names = tuple(signed.split(b";"))
        if b"host" not in names:
            raise auth_error(
                Fault.UNSIGNED_HEADERS, service, "'Host' must be a 'SignedHeader' in the AWS Authorization."
            )
        region, signer = parts[1].decode("latin-1"), parts[2].decode("latin-1")
        identity = Identity(known.access_key_id, known.account, region, signer)
        key = self._key(credential, known.secret_access_key.encode(), parts)
        return _Scope(
            identity,
            key,
            known.session_token.encode(),
            parts[0],
            scope,
            names,
            frozenset(names),
            signed,
            itemgetter(*names),
            _template(names, signed),
            _keyed(key, 0x36),
            _keyed(key, 0x5C),
            set(),
            set(),
        )

    def _key(self, credential: bytes, secret: bytes, parts: list[bytes]) -> bytes:
        key = self._keys.get(credential)
        if key is None:
            key = b"AWS4" + secret
            for part in parts:
                key = hmac.digest(key, part, "sha256")
            if len(self._keys) >= _CACHED_MAX:
                self._keys.clear()
            self._keys[credential] = key
        return key

    def _remember(self, prefix: bytes, scope: _Scope) -> None:
        if len(self._scopes) >= _CACHED_MAX:
            self._scopes.clear()
        self._scopes[prefix] = scope

    def _stamp(self, headers: Mapping[bytes, bytes], scope: _Scope, service: str) -> bytes:
        """The time that was signed, as YYYYMMDDTHHMMSSZ: X-Amz-Date, else Date."""
        stamp = headers.get(b"x-amz-date")
        if stamp is None:
            stamp = headers.get(b"date", b"") if b"date" in scope.named else b""
            at_ms = parse_date(stamp)
            if at_ms is None:
                what = "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header."
                raise auth_error(Fault.INCOMPLETE, service, what)
            stamp = _basic(at_ms)
        if stamp[:8] != scope.day:
            raise auth_error(
                Fault.WRONG_SCOPE, service, "Date in Credential scope does not match YYYYMMDD from the request."
            )
        return stamp

    def _time_of(self, stamp: bytes, service: str) -> int:
        at_ms = self._stamps.get(stamp)
        if at_ms is None:
            parsed = parse_date(stamp) if len(stamp) == 16 else None
            if parsed is None:
                raise auth_error(
                    Fault.INCOMPLETE, service, "Date must be in ISO-8601 'basic format': YYYYMMDDTHHMMSSZ."
                )
            at_ms = parsed
            if len(self._stamps) >= _CACHED_MAX:
                self._stamps.clear()
            self._stamps[stamp] = at_ms
        return at_ms

    def _check_skew(self, stamp: bytes, now_ms: int, service: str) -> None:
        apart_ms = now_ms - self._time_of(stamp, service)
        if -SKEW_MS <= apart_ms <= SKEW_MS:
            return
        given, now = stamp.decode("latin-1"), _basic(now_ms).decode()
        if apart_ms > 0:
            limit = _basic(now_ms - SKEW_MS).decode()
            what = f"Signature expired: {given} is now earlier than {limit} ({now} - 15 min.)"
        else:
            limit = _basic(now_ms + SKEW_MS).decode()
            what = f"Signature not yet current: {given} is still later than {limit} ({now} + 15 min.)"
        raise auth_error(Fault.SKEWED, service, what)

    def _check_token(self, scope: _Scope, token: bytes, service: str) -> None:
        if token != scope.token and not hmac.compare_digest(token, scope.token):
            raise auth_error(Fault.BAD_TOKEN, service)

    def _check_query(
        self, method: bytes, path: bytes, query: bytes, headers: Mapping[bytes, bytes], service: str, now_ms: int
    ) -> Claim:
        """A presigned URL."""
        given = query_pairs(query)
        if b"X-Amz-Signature" not in given:
            if b"AWSAccessKeyId" in given and service == "s3":
                identity = check_v2(self._credentials, self._region, method, path, query, headers, now_ms)
                return Claim(identity, service, UNSIGNED)
            raise auth_error(Fault.MISSING, service)
        for name in (b"X-Amz-Algorithm", b"X-Amz-Credential", b"X-Amz-Date", b"X-Amz-SignedHeaders"):
            if not given.get(name):
                raise auth_error(Fault.INCOMPLETE, service, f"The query must have the parameter {name.decode()}.")
        if given[b"X-Amz-Algorithm"] != _ALGORITHM:
            raise auth_error(Fault.UNSUPPORTED, service, "X-Amz-Algorithm must be AWS4-HMAC-SHA256.")
        signature = given[b"X-Amz-Signature"]
        _check_hex(signature, service)
        scope = self._read_scope(given[b"X-Amz-Credential"], given[b"X-Amz-SignedHeaders"], service)
        _check_service(scope, service)
        stamp = given[b"X-Amz-Date"]
        if stamp[:8] != scope.day:
            raise auth_error(
                Fault.WRONG_SCOPE, service, "Date in Credential scope does not match YYYYMMDD from the request."
            )
        self._check_expiry(stamp, given.get(b"X-Amz-Expires"), now_ms, service)
        token = given.get(b"X-Amz-Security-Token") or headers.get(b"x-amz-security-token", b"")
        self._check_token(scope, token, service)
        heads = self._heads(method, path, query, headers, scope, service)
        payload = headers.get(b"x-amz-content-sha256") or given.get(b"X-Amz-Content-Sha256", b"")
        if not payload and service == "s3":
            payload = UNSIGNED
        return Claim(scope.identity, service, payload, scope, stamp, signature, heads)

    def _check_expiry(self, stamp: bytes, expires: bytes | None, now_ms: int, service: str) -> None:
        if expires is None and service != "s3":
            return self._check_skew(stamp, now_ms, service)
        if expires is None or not expires.isdigit() or len(expires) > 7 or not 1 <= int(expires) <= EXPIRES_MAX_S:
            what = f"X-Amz-Expires must be a number of seconds from 1 to {EXPIRES_MAX_S}."
            raise auth_error(Fault.INCOMPLETE, service, what)
        at_ms = self._time_of(stamp, service)
        if now_ms > at_ms + int(expires) * 1000:
            raise auth_error(Fault.EXPIRED, service, f"Signature expired: it was valid for {int(expires)} s.")
        if at_ms > now_ms + SKEW_MS:
            self._check_skew(stamp, now_ms, service)
        return None

    def _trust(self, query: bytes, headers: Mapping[bytes, bytes], service: str) -> Claim:
        """Authentication is off: read account and region from whatever credentials there are, and believe them."""
        authorization = headers.get(b"authorization", b"")
        credential = authorization.partition(b"Credential=")[2].partition(b",")[0]
        if not credential:
            given = query_pairs(query)
            credential = given.get(b"X-Amz-Credential") or given.get(b"AWSAccessKeyId", b"")
        parts = credential.decode("utf-8", "replace").strip().split("/")
        access_key_id = parts[0]
        known = self._credentials.get(access_key_id.encode())
        account = self._account
        if len(access_key_id) == 12 and access_key_id.isascii() and access_key_id.isdigit():
            account = access_key_id
        elif known is not None:
            account = known.account
        region = parts[2] if len(parts) >= 5 and parts[2] else self._region
        signer = parts[3] if len(parts) >= 5 else signing_name(service)
        return Claim(
            Identity(access_key_id, account, region, signer), service, headers.get(b"x-amz-content-sha256", b"")
        )


def _check_hex(signature: bytes, service: str) -> None:
    if len(signature) != 64 or not _HEX.issuperset(signature):
        raise auth_error(Fault.INCOMPLETE, service, "Signature must be 64 lower-case hex digits.")


def _check_service(scope: _Scope, service: str) -> None:
    expected = signing_name(service)
    if service and scope.identity.service != expected:
        raise auth_error(Fault.WRONG_SCOPE, service, f"Credential should be scoped to correct service: '{expected}'.")


def _basic(at_ms: int) -> bytes:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y%m%dT%H%M%SZ").encode()


def _check_signed(names: tuple[bytes, ...], scope: _Scope, service: str) -> None:
    """Every x-amz-* header of a request must be signed."""
    for name in names:
        if name[:6] == b"x-amz-" and name not in scope.named:
            what = f"'{name.decode('latin-1')}' must be a 'SignedHeader' in the AWS Authorization."
            raise auth_error(Fault.UNSIGNED_HEADERS, service, what)


def _canonical_lines(headers: Mapping[bytes, bytes], scope: _Scope, service: str) -> bytes:
    """The signed headers, their values trimmed and their blanks made single."""
    lines = []
    for name in scope.names:
        value = headers.get(name)
        if value is None:
            if name != b"content-length" and name != b"expect":
                raise auth_error(Fault.MISMATCH, service)
            value = b""
        lines.append(name + b":" + _trimmed(value))
    return b"\n".join(lines)


def _trimmed(value: bytes) -> bytes:
    """A header's value without blanks around it, and single ones within."""
    value = value.strip()
    return b" ".join(value.split()) if b"  " in value or b"\t" in value else value


def _escaped(text: bytes) -> bytes:
    return text.replace(b"%", b"%%")


def _template(names: tuple[bytes, ...], signed: bytes) -> bytes:
    """The canonical headers and the list of their names, with a %b for each value."""
    lines = [_escaped(name) + b":%b\n" for name in names]
    return b"".join([*lines, b"\n", _escaped(signed), b"\n"])


def _keyed(key: bytes, pad: int) -> Any:
    """One of the two hashes of an HMAC (RFC 2104) that has read its padded key, which is shorter than a block."""
    return hashlib.sha256(bytes(byte ^ pad for byte in key.ljust(64, b"\0")))
