"""Every bound that `http1` keeps, in one frozen place; a limit is set before the first byte it concerns is read (law
15).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one server. Sizes in bytes, times in milliseconds; reaching one is answered (or the connection cut),
    never waited out.
    """

    head_bytes: int = 32_768  # request line and headers together: 431 beyond
    header_count: int = 100  # 431 beyond
    target_bytes: int = 8_192  # 414 beyond
    body_bytes: int = 26_214_400  # of a collected body when the application names no bound of its own: 413 beyond
    chunk_overhead_bytes: int = (
        65_536  # chunk sizes, extensions and trailers in a row, or beyond 16 bytes for each byte of body: 400
    )
    connections: int = 8_192  # a connection beyond gets 503 and is closed
    pipelined_bytes: int = 65_536  # read ahead of the request being answered; reading pauses beyond
    idle_ms: int = 75_000  # a connection without a request
    head_ms: int = 15_000  # from a head's first byte to its last: 408 beyond
    body_idle_ms: int = 30_000  # for each `body_step_bytes` of a body: 408 beyond
    body_step_bytes: int = 1_024  # a body that drips more slowly is not waited for
    collect_ms: int = 300_000  # of a collected body, from its head to its end: 408 beyond
    send_idle_ms: int = 60_000  # a client that takes no byte of its reply: cut
    half_closed_ms: int = 5_000  # a client that sends no more and may have left: how long its reply is worked on
    linger_ms: int = 5_000  # after an early answer: how long what the client still sends is read and dropped
    linger_bytes: int = 67_108_864  # ... and how much of it
    write_buffer_bytes: int = 262_144  # of a reply waiting for the client; the application is told to pause beyond
