"""The searches of metric math: `{AWS/SageMaker,EndpointName,VariantName} MetricName="Invocations" (churn OR fraud)`.

The braces name a namespace and exactly the dimensions that a metric has. A word is found in a metric's name and in the
values of its dimensions, whatever its case; `Name="value"` is the whole value of MetricName or of a dimension. Words
side by side must all be found; OR, NOT and parentheses as anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from eyrie.decide.metric_grammar import MathError
from eyrie.domain.metrics import Metric
from eyrie.ports import Series

_SCHEMA = re.compile(r"\s*\{([^{}]*)\}")
_TOKEN = re.compile(
    r'\s*(?:(?P<sign>[()])|(?P<key>[\w./:-]+)\s*=\s*(?P<exact>"[^"]*"|[\w./:-]+)|(?P<word>"[^"]*"|[^\s()"=]+))'
)
_TOKENS_MAX = 200

Test = Callable[[Metric], bool]


def search(query: str, known: Sequence[Series]) -> list[tuple[str, Metric]]:
    """The metrics that a search finds, each with a label. Raises MathError."""
    schema = _SCHEMA.match(query)
    in_schema = _schema(schema[1]) if schema else _any
    wanted = _Reader(query[schema.end() :] if schema else query).whole()
    found = [series.metric for series in known if in_schema(series.metric) and wanted(series.metric)]
    return [(" ".join([*(value for _, value in metric.dimensions), metric.name]), metric) for metric in found]


def _any(metric: Metric) -> bool:
    return True


def _schema(text: str) -> Test:
    namespace, *names = [part.strip().strip('"') for part in text.split(",")]
    dimensions = sorted(name for name in names if name)
    return lambda metric: metric.namespace == namespace and sorted(n for n, _ in metric.dimensions) == dimensions


def _word(text: str) -> Test:
    part = text.lower()

    def found(metric: Metric) -> bool:
        return part in metric.name.lower() or any(part in value.lower() for _, value in metric.dimensions)

    return found


def _exact(key: str, value: str) -> Test:
    if key == "MetricName":
        return lambda metric: metric.name == value
    if key == "Namespace":
        return lambda metric: metric.namespace == value
    return lambda metric: (key, value) in metric.dimensions


class _Reader:
    """Recursive descent: alternatives of words that must all be found."""

    def __init__(self, text: str) -> None:
        self._tokens: list[re.Match[str]] = []
        at, text = 0, text.rstrip()
        while at < len(text):
            token = _TOKEN.match(text, at)
            if token is None or len(self._tokens) >= _TOKENS_MAX:
                raise MathError(f"the search cannot be read at {text[at : at + 20]!r}")
            self._tokens.append(token)
            at = token.end()
        self._at = 0

    def whole(self) -> Test:
        """The test of the whole text; nothing asks for nothing."""
        if not self._tokens:
            return _any
        test = self._either()
        if self._at < len(self._tokens):
            raise MathError(f"{self._tokens[self._at][0].strip()!r} is not expected in the search")
        return test

    def _is(self, *words: str) -> bool:
        return self._at < len(self._tokens) and self._tokens[self._at][0].strip() in words

    def _either(self) -> Test:
        tests = [self._all()]
        while self._is("OR"):
            self._at += 1
            tests.append(self._all())
        return tests[0] if len(tests) == 1 else lambda metric: any(test(metric) for test in tests)

    def _all(self) -> Test:
        tests = [self._one()]
        while self._at < len(self._tokens) and not self._is(")", "OR"):
            if self._is("AND"):
                self._at += 1
            tests.append(self._one())
        return lambda metric: all(test(metric) for test in tests)

    def _one(self) -> Test:
        if self._at >= len(self._tokens) or self._is(")", "AND", "OR"):
            raise MathError("the search ends where a word is expected")
        token = self._tokens[self._at]
        self._at += 1
        if token["sign"]:
            test = self._either()
            if not self._is(")"):
                raise MathError("a parenthesis of the search is not closed")
            self._at += 1
            return test
        if token["word"] == "NOT":
            denied = self._one()
            return lambda metric: not denied(metric)
        if token["key"]:
            return _exact(token["key"], token["exact"].strip('"'))
        return _word(token["word"].strip('"'))
