"""The language of Logs Insights: from text to commands. Pure; `query_run` says what they do.

A query is commands in a row, with `|` between them: fields, display, filter, parse, stats, sort, limit, dedup. A line
may end in a comment (`# ...`). What cannot be read is refused with the place where.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from eyrie.decide.regex import BadRegex, Regex

QUERY_CHARS_MAX = 10_000
COMMANDS_MAX = 50
DEPTH_MAX = 64
LIMIT_MAX = 10_000


class BadQuery(ValueError):
    """A query without meaning: the message is for people, `start` and `end` are offsets into the query's text."""

    def __init__(self, message: str, start: int, end: int) -> None:
        super().__init__(message)
        self.start = start
        self.end = end


@dataclass(frozen=True, slots=True)
class Literal:
    """3, "text", true, 5m (a span of time: milliseconds)"""

    value: str | float | int | bool | None


@dataclass(frozen=True, slots=True)
class Field:
    """@message, a.b.0, `a-b`"""

    name: str


@dataclass(frozen=True, slots=True)
class Expression:
    """/.../"""

    regex: Regex


@dataclass(frozen=True, slots=True)
class Call:
    """function(arguments); its text as written is the name of its column."""

    function: str
    arguments: tuple[Node, ...]
    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Operation:
    """left sign right: and or = != < <= > >= + - * / % ^ like; "not" and "negative" have no left."""

    sign: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Among:
    """value in [items]"""

    value: Node
    items: tuple[Node, ...]


Node = Literal | Field | Expression | Call | Operation | Among


@dataclass(frozen=True, slots=True)
class Column:
    """An expression and what it is called."""

    node: Node
    name: str
    start: int = 0
    end: int = 0


@dataclass(frozen=True, slots=True)
class Fields:
    """fields a, b as c"""

    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class Display:
    """display a, b: these alone are shown"""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Filter:
    """filter condition"""

    condition: Node


@dataclass(frozen=True, slots=True)
class Parse:
    """parse field "glob * of *" as a, b; or parse field /expression with (?<names>...)/"""

    source: Node
    regex: Regex
    names: tuple[str, ...]  # of the fields that it makes, in the order of the expression's groups
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stats:
    """stats count(*) as n by bin(5m), host"""

    columns: tuple[Column, ...]
    by: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class Sort:
    """sort a desc, b"""

    keys: tuple[tuple[Node, bool], ...]  # with whether it descends


@dataclass(frozen=True, slots=True)
class Limit:
    """limit 20"""

    count: int


@dataclass(frozen=True, slots=True)
class Dedup:
    """dedup a, b: the first of those that agree in all of them"""

    nodes: tuple[Node, ...]


Command = Fields | Display | Filter | Parse | Stats | Sort | Limit | Dedup

_UNITS_MS = {
    **dict.fromkeys(("ms", "msec", "millisecond", "milliseconds"), 1),
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1_000),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60_000),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3_600_000),
    **dict.fromkeys(("d", "day", "days"), 86_400_000),
    **dict.fromkeys(("w", "week", "weeks"), 604_800_000),
}
_TOKEN = re.compile(
    r"(?P<space>\s+|#[^\n]*)|(?P<span>\d+(?:ms|[a-z]+))|(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|\.\d+)"
    r"|(?P<name>@?[A-Za-z_][\w@]*(?:\.[\w@]+)*|`[^`]+`)|(?P<text>\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')"
    r"|(?P<sign>!=|<=|>=|==|=~|&&|\|\||[-+*/%^=<>(),\[\]|])"
)
_REGEX = re.compile(r"/((?:[^/\\]|\\.)+)/(i?)")
_LEVELS: tuple[tuple[str, ...], ...] = (("+", "-"), ("*", "/", "%"))
_COMPARED = {"=": "=", "==": "=", "!=": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">=", "=~": "like"}
_NOT_HERE = frozenset(("unnest", "pattern", "diff", "anomaly", "lookup", "join", "source", "unmask", "filterindex"))


def parse_query(text: str) -> tuple[Command, ...]:
    """The commands of a query. Raises BadQuery."""
    if len(text) > QUERY_CHARS_MAX:
        raise BadQuery(f"a query has at most {QUERY_CHARS_MAX} characters", QUERY_CHARS_MAX, len(text))
    reader = _Reader(text)
    commands: list[Command] = []
    while True:
        while reader.word == "|":  # a query may begin with one
            reader.take()
        if not reader.kind:
            break
        if len(commands) == COMMANDS_MAX:
            raise reader.stray(f"a query has at most {COMMANDS_MAX} commands")
        commands.append(_command(reader))
        if reader.kind and reader.word != "|":
            raise reader.stray()
    if not commands:
        raise BadQuery("a query has one command at least", 0, len(text))
    return tuple(commands)


class _Reader:
    """Tokens one by one, and where each stands. A slash is a division after an operand, else it begins a regex."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.kind = ""  # of the next token; "" at the end
        self.word = ""
        self.start = self.end = 0
        self.before = 0  # where the token before ended
        self._operand = False
        self._regex: Regex | None = None
        self._look()

    def _look(self) -> None:
        while True:
            if self.end >= len(self.text):
                self.kind = self.word = ""
                self.start = self.end
                return
            if self.text[self.end] == "/" and not self._operand:
                self._look_regex()
                return
            found = _TOKEN.match(self.text, self.end)
            if found is None:
                raise BadQuery(
                    f"unexpected symbol found {self.text[self.end]!r}", self.end, min(self.end + 1, len(self.text))
                )
            self.start, self.end, self.kind = found.start(), found.end(), str(found.lastgroup)
            if self.kind != "space":
                self.word = found[0]
                return

    def _look_regex(self) -> None:
        found = _REGEX.match(self.text, self.end)
        if found is None:
            raise BadQuery("a regular expression is not closed by /", self.end, len(self.text))
        self.start, self.end, self.kind, self.word = found.start(), found.end(), "regex", found[0]
        try:
            self._regex = Regex(found[1].replace("\\/", "/"), ignore_case=bool(found[2]))
        except BadRegex as error:
            raise BadQuery(f"the regular expression {found[0]} is not one: {error}", self.start, self.end) from None

    def take(self, divides: bool = True) -> str:
        """The next token, passed; a slash after it begins a regex where it is no operand, or `divides` is False.
        Raises BadQuery at the end.
        """
        if not self.kind:
            raise self.stray()
        word = self.word
        self._operand = divides and self.kind in ("number", "span", "text", "name", "sign") and self._ends_value(word)
        self.before = self.end
        self._look()
        return word

    def _ends_value(self, word: str) -> bool:
        if self.kind == "sign":
            return word in (")", "]")
        return word.lower() not in ("like", "and", "or", "not", "in", "by", "filter")

    def regex(self) -> Regex:
        """The regular expression that is the next token, passed."""
        found = self._regex
        assert found is not None
        self._operand = True
        self.before = self.end
        self._look()
        return found

    def is_word(self, *words: str) -> bool:
        """Whether the next token is one of these words, in any case."""
        return self.kind in ("name", "sign") and self.word.lower() in words

    def taken(self, *words: str) -> bool:
        """Take the next token if it is one of these."""
        if self.is_word(*words):
            self.take()
            return True
        return False

    def expect(self, word: str) -> None:
        """Take this token. Raises BadQuery for another."""
        if not self.taken(word):
            raise self.stray(f"{word!r} is expected")

    def stray(self, why: str = "") -> BadQuery:
        """What to raise for the next token."""
        what = f"unexpected symbol found {self.word!r}" if self.kind else "unexpected end of the query"
        return BadQuery(f"{what}{': ' if why else ''}{why}", self.start, max(self.end, self.start + 1))

    def field(self) -> str:
        """The name of a field."""
        if self.kind != "name":
            raise self.stray("the name of a field is expected")
        return self.take().strip("`")


# --- commands ---------------------------------------------------------------------------------------------------------


def _command(reader: _Reader) -> Command:
    word = reader.word.lower()
    if reader.kind != "name" or word not in _COMMANDS:
        known = ", ".join(sorted(_COMMANDS))
        why = "this command is not supported by this Eyrie; it has " if word in _NOT_HERE else "commands are "
        raise reader.stray(why + known)
    start, end = reader.start, reader.end
    reader.take()
    if not reader.kind or reader.word == "|":
        raise BadQuery(f"{word} needs something to work on", start, end)
    return _COMMANDS[word](reader)


def _listed(reader: _Reader, one: Callable[[], Column]) -> tuple[Column, ...]:
    found = [one()]
    while reader.taken(","):
        found.append(one())
    return tuple(found)


def _column(reader: _Reader) -> Column:
    start = reader.start
    node = _either(reader, 0)
    written = reader.text[start : reader.before]
    if reader.taken("as"):
        return Column(node, reader.field(), start, reader.before)
    return Column(node, node.name if isinstance(node, Field) else written, start, reader.before)


def _fields(reader: _Reader) -> Command:
    return Fields(_listed(reader, lambda: _column(reader)))


def _display(reader: _Reader) -> Command:
    return Display(tuple(column.name for column in _listed(reader, lambda: _column(reader))))


def _filter(reader: _Reader) -> Command:
    return Filter(_either(reader, 0))


def _stats(reader: _Reader) -> Command:
    columns = _listed(reader, lambda: _column(reader))
    by = _listed(reader, lambda: _column(reader)) if reader.taken("by") else ()
    return Stats(columns, by)


def _sort(reader: _Reader) -> Command:
    reader.taken("by")
    keys = []
    while True:
        node = _either(reader, 0)
        descends = reader.taken("desc")
        if not descends:
            reader.taken("asc")
        keys.append((node, descends))
        if not reader.taken(","):
            return Sort(tuple(keys))


def _limit(reader: _Reader) -> Command:
    if reader.kind != "number" or not reader.word.isdigit() or not 1 <= int(reader.word) <= LIMIT_MAX:
        raise reader.stray(f"limit takes a whole number from 1 to {LIMIT_MAX}")
    return Limit(int(reader.take()))


def _dedup(reader: _Reader) -> Command:
    return Dedup(tuple(column.node for column in _listed(reader, lambda: _column(reader))))


def _parse(reader: _Reader) -> Command:
    source = Field("@message")
    if reader.kind == "name":
        source = Field(reader.take(divides=False).strip("`"))
    start, end = reader.start, reader.end
    if reader.kind == "regex":
        regex = reader.regex()
        if not regex.names:
            raise BadQuery("the expression of parse has no named groups, as (?<name>...)", start, end)
        return Parse(source, regex, regex.names, regex.names)
    if reader.kind != "text":
        raise reader.stray("parse takes a pattern with * in quotes, or a regular expression")
    glob = _unquoted(reader.take())
    reader.expect("as")
    names = [reader.field()]
    while reader.taken(","):
        names.append(reader.field())
    if glob.count("*") != len(names):
        raise BadQuery(f"the pattern of parse has {glob.count('*')} *, and {len(names)} names follow", start, end)
    groups = tuple(f"g{n}" for n in range(len(names)))
    return Parse(source, _of_glob(glob, groups, start, end), tuple(names), groups)


def _of_glob(glob: str, groups: tuple[str, ...], start: int, end: int) -> Regex:
    """Each * takes as little as it can, the last of all the rest where nothing follows it."""
    parts = glob.split("*")
    text = re.escape(parts[0])
    for n, (group, after) in enumerate(zip(groups, parts[1:], strict=True)):
        rest = n == len(groups) - 1 and not after
        text += f"(?P<{group}>(?s:.*{'' if rest else '?'})){re.escape(after)}"
    try:
        return Regex(text)
    except BadRegex as error:
        raise BadQuery(f"the pattern of parse is too long: {error}", start, end) from None


_COMMANDS: dict[str, Callable[[_Reader], Command]] = {
    "fields": _fields,
    "display": _display,
    "filter": _filter,
    "parse": _parse,
    "stats": _stats,
    "sort": _sort,
    "limit": _limit,
    "head": _limit,
    "dedup": _dedup,
}

# --- expressions, strongest first: calls and ( ), ^, minus, * / %, + -, comparisons, not, and, or ---------------------


def _either(reader: _Reader, depth: int) -> Node:
    if depth > DEPTH_MAX:
        raise reader.stray(f"expressions go at most {DEPTH_MAX} deep")
    node = _both(reader, depth)
    while reader.taken("or", "||"):
        node = Operation("or", node, _both(reader, depth))
    return node


def _both(reader: _Reader, depth: int) -> Node:
    node = _not(reader, depth)
    while reader.taken("and", "&&"):
        node = Operation("and", node, _not(reader, depth))
    return node


def _not(reader: _Reader, depth: int) -> Node:
    if reader.taken("not"):
        return _negated(_not(reader, depth + 1) if depth < DEPTH_MAX else _either(reader, DEPTH_MAX + 1))
    return _comparison(reader, depth)


def _negated(node: Node) -> Node:
    return Operation("not", Literal(None), node)


def _comparison(reader: _Reader, depth: int) -> Node:
    node = _sum(reader, 0, depth)
    if reader.word in _COMPARED and reader.kind == "sign":
        sign = _COMPARED[reader.take()]
        return Operation(sign, node, _sum(reader, 0, depth))
    negated = reader.taken("not")
    if reader.taken("like"):
        node = Operation("like", node, _sum(reader, 0, depth))
    elif reader.taken("in"):
        node = Among(node, _items(reader, depth))
    elif negated:
        raise reader.stray("like or in is expected after not")
    return _negated(node) if negated else node


def _items(reader: _Reader, depth: int) -> tuple[Node, ...]:
    reader.expect("[")
    items = [_sum(reader, 0, depth)]
    while reader.taken(","):
        items.append(_sum(reader, 0, depth))
    reader.expect("]")
    return tuple(items)


def _sum(reader: _Reader, level: int, depth: int) -> Node:
    if level == len(_LEVELS):
        return _signed(reader, depth)
    node = _sum(reader, level + 1, depth)
    while reader.kind == "sign" and reader.word in _LEVELS[level]:
        sign = reader.take()
        node = Operation(sign, node, _sum(reader, level + 1, depth))
    return node


def _signed(reader: _Reader, depth: int) -> Node:
    if reader.kind == "sign" and reader.taken("-"):
        if depth > DEPTH_MAX:
            raise reader.stray(f"expressions go at most {DEPTH_MAX} deep")
        return Operation("negative", Literal(None), _signed(reader, depth + 1))
    node = _primary(reader, depth)
    if reader.taken("^"):
        if depth > DEPTH_MAX:
            raise reader.stray(f"expressions go at most {DEPTH_MAX} deep")
        return Operation("^", node, _signed(reader, depth + 1))
    return node


def _primary(reader: _Reader, depth: int) -> Node:
    kind = reader.kind
    if kind == "number":
        word = reader.take()
        return Literal(int(word) if word.isdigit() else float(word))
    if kind == "span":
        found = re.fullmatch(r"(\d+)([a-z]+)", reader.word)
        assert found is not None
        if found[2] not in _UNITS_MS:
            raise reader.stray(f"{found[2]!r} is no unit of time")
        reader.take()
        return Literal(int(found[1]) * _UNITS_MS[found[2]])
    if kind == "text":
        return Literal(_unquoted(reader.take()))
    if kind == "regex":
        return Expression(reader.regex())
    if kind == "name":
        return _named(reader, depth)
    if reader.taken("("):
        node = _either(reader, depth + 1)
        reader.expect(")")
        return node
    raise reader.stray()


def _named(reader: _Reader, depth: int) -> Node:
    start, quoted = reader.start, reader.word.startswith("`")
    if not quoted and reader.is_word("by", "as", "and", "or", "in", "like", "desc", "asc"):
        raise reader.stray()
    name = reader.take().strip("`")
    if quoted or reader.word != "(":
        if not quoted and name.lower() in ("true", "false", "null"):
            return Literal({"true": True, "false": False, "null": None}[name.lower()])
        return Field(name)
    reader.take()
    arguments: list[Node] = []
    if reader.taken("*"):
        arguments.append(Field("*"))
    elif reader.word != ")":
        arguments.append(_either(reader, depth + 1))
    while reader.taken(","):
        arguments.append(_either(reader, depth + 1))
    reader.expect(")")
    return Call(name.lower(), tuple(arguments), start, reader.before, reader.text[start : reader.before])


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1])
