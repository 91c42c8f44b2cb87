"""The models' patterns in Python: all of them compile, mean what they mean in Java, and none can be made to take
long.
"""

from __future__ import annotations

import itertools
import random
import re
import time
import warnings

import pytest
import samples
from test_round_trips import SPOKEN

from eyrie.wire import patterns
from eyrie.wire.model import Models

CPU_S_MAX = 1.0


def spoken_patterns(models: Models) -> dict[str, int]:
    """Every pattern of the services that we speak, with the longest text that it may meet."""
    found: dict[str, int] = {}
    for name in sorted({service for service, _ in SPOKEN}):
        for raw in models.service(name)._raw_shapes.values():
            if raw.get("pattern"):
                longest = int(raw.get("max", patterns.LONG_CHARS))
                found[raw["pattern"]] = max(longest, found.get(raw["pattern"], 0))
    return found


def test_every_pattern_compiles(models: Models) -> None:
    assert [pattern for pattern in spoken_patterns(models) if patterns._compiled(pattern) is None] == []


def test_no_text_takes_long(models: Models) -> None:
    slow = []
    for pattern, longest in spoken_patterns(models).items():
        rng = random.Random(pattern)
        start = time.process_time()
        for text in _attacks(samples.draw(pattern, rng, grow=1), min(longest, patterns.LONG_CHARS)):
            patterns.matches(pattern, text)
        took = time.process_time() - start
        if took > CPU_S_MAX:
            slow.append((pattern, took))
    assert slow == []


def _attacks(base: str, longest: int) -> list[str]:
    """Texts that begin as a match does, go on and on, and then do not end as one."""
    cuts = {len(base), len(base) // 2}
    pumps = ("a", "a-", "a/", base[-2:] or "-", " ")
    return [
        (base[:cut] + pump * (longest // len(pump)))[: longest - 1] + end
        for cut in cuts
        for pump in pumps
        for end in ("!", "\n")
    ]


@pytest.mark.parametrize(("pattern", "alphabet"), list(zip(patterns.SAFE, ("a-", "a/", "a \t", "a \t:"), strict=True)))
def test_the_safe_patterns_are_equal_to_the_models(models: Models, pattern: str, alphabet: str) -> None:
    assert pattern in spoken_patterns(models), "no longer needed"
    start = "https://" if pattern.startswith("https") else ""
    model = re.compile(patterns.translate(pattern), re.ASCII)
    for length in range(8):
        for letters in itertools.product(alphabet, repeat=length):
            text = start + "".join(letters)
            assert patterns.matches(pattern, text) == bool(model.fullmatch(text)), repr(text)


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        (r"[\p{L}\p{Nd}]+", "aä日9", "a-b"),
        (r"\p{Alnum}+", "aZ9", "ä"),
        (r"[\p{Alnum}\-]+", "a-b", "a_b"),
        (r"\d+", "123", "१२"),
        (r"\w+", "a_1", "ä"),
        (r"[\w-_]+", "a-_", "a b"),
        (r"[a[b]", "[", "]"),
        (r"[a&-]+", "a-&", "b"),
        (r"[\uD800\uDC00-\uDBFF\uDFFF]", "\U0001f600", "a"),
        (r"a\z", "a", "a\n"),
        (r"^a$", "a", "a\n"),
        (r"([a-z]*)${1,128}", "abc", "A"),
        (r"\p{Lu}", "Ä", "ä"),
        (r"\pL", "ä", "1"),
        (r"ab|a", "ab", "abc"),
    ],
)
def test_java_in_python(pattern: str, yes: str, no: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert patterns.matches(pattern, yes)
        assert not patterns.matches(pattern, no)


def test_a_long_text_without_a_maximum_meets_only_linear_patterns() -> None:
    assert patterns.matches(r"[\S\s]+", "x" * 100_000, bounded=False)
    assert not patterns.matches(r"/?.+/.+", "/a" * 10_000, bounded=False)
    assert patterns.matches(r"/?.+/.+", "/a" * 1000, bounded=False)


def test_a_pattern_that_python_cannot_express_refuses_nothing() -> None:
    assert patterns.matches(r"(?<=a+)b", "anything")
