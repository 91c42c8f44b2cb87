"""What the commands of a Logs Insights query do: records go in one by one, rows come out. Pure.

Each command is a stage that hands on what it lets through; the last keeps what is shown. Where nothing else is asked
for, the newest records come first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from eyrie.decide.query_grammar import (
    LIMIT_MAX,
    Among,
    BadQuery,
    Call,
    Column,
    Command,
    Dedup,
    Display,
    Expression,
    Field,
    Fields,
    Filter,
    Limit,
    Literal,
    Node,
    Operation,
    Parse,
    Sort,
    Stats,
    parse_query,
)
from eyrie.decide.query_totals import QUANTILES, TOTALS, Held, Made, Quantile, TooMuch, Total
from eyrie.decide.query_values import FUNCTIONS, Moment, Record, equal, floored, number, order, shown, truth

__all__ = ["BadQuery", "Query", "Record", "Row", "TooMuch"]

ROWS_HELD_MAX = 200_000  # that a sort holds
GROUPS_MAX = 100_000  # of a stats
Value = Callable[[Record], Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a result: names and texts, and the event that it is, if it is one."""

    fields: tuple[tuple[str, str], ...]
    record: Record | None


class Stage(Protocol):
    """A command at work."""

    def feed(self, record: Record) -> None:
        """Take a record."""
        ...

    def end(self) -> None:
        """No further one comes."""
        ...


class Query:
    """A query, ready to be fed with records; fed once."""

    def __init__(self, text: str, limit: int = LIMIT_MAX) -> None:
        """`limit`: rows, where the query itself names none. Raises BadQuery."""
        commands = list(parse_query(text))
        _check_totals(commands)
        self.matched = 0
        self._rows: list[Record] = []
        self._columns = _shown_columns(commands)
        self._aggregated = any(isinstance(command, Stats) for command in commands)
        if not any(isinstance(command, Limit) for command in commands):
            commands.append(Limit(limit))
        self._first = self._linked(_in_order(commands))

    def feed(self, record: Record) -> None:
        """Take a record. Raises TooMuch."""
        self._first.feed(record)

    def rows(self) -> list[Row]:
        """What the records that were fed come to; no further one is fed."""
        self._first.end()
        return [self._row(record) for record in self._rows]

    def _row(self, record: Record) -> Row:
        pairs = [(name, record.get(name)) for name in self._columns]
        fields = tuple((name, shown(value)) for name, value in pairs if value is not None)
        return Row(fields, None if self._aggregated else record)

    def _linked(self, commands: Sequence[Command]) -> Stage:
        """The stages, each before the next; `matched` counts what no filter before a stats or an end left out."""
        stage: Stage = _Sink(self._rows)
        held = Held()
        first_stats = next((n for n, c in enumerate(commands) if isinstance(c, Stats | Sort | Limit)), len(commands))
        counted = max([n for n in range(first_stats) if isinstance(commands[n], Filter)], default=-1)
        room = LIMIT_MAX
        for n in range(len(commands) - 1, -1, -1):
            command = commands[n]
            if isinstance(command, Limit):
                room = command.count
            elif not isinstance(command, Fields | Display | Parse | Sort):
                room = 0  # a sort before it may not leave out what it sorts
            stage = _stage(command, stage, held, room)
            if n == counted + 1:
                stage = _Counting(self, stage)
        return stage if counted + 1 < len(commands) else _Counting(self, stage)


def _in_order(commands: list[Command]) -> list[Command]:
    """The commands, with the sort that is meant where none is named: the newest first."""
    for n, command in enumerate(commands):
        if isinstance(command, Sort | Stats):
            return commands
        if isinstance(command, Limit | Dedup):
            return [*commands[:n], Sort(((Field("@timestamp"), True),)), *commands[n:]]
    return commands


def _shown_columns(commands: Sequence[Command]) -> tuple[str, ...]:
    names: list[str] = []
    for command in commands:
        if isinstance(command, Display):
            names = list(command.names)
        elif isinstance(command, Stats):
            names = [column.name for column in (*command.by, *command.columns)]
        elif isinstance(command, Fields):
            names += [column.name for column in command.columns]
    return tuple(dict.fromkeys(names)) or ("@timestamp", "@message")


# --- stages -----------------------------------------------------------------------------------------------------------


def _stage(command: Command, after: Stage, held: Held, room: int) -> Stage:
    match command:
        case Fields(columns):
            return _Making(columns, after)
        case Filter(condition):
            return _Filtering(_condition(condition), after)
        case Parse():
            return _Parsing(command, after)
        case Stats():
            return _Grouping(command, after, held)
        case Sort(keys):
            return _Sorting(keys, after, room)
        case Limit(count):
            return _Limiting(count, after)
        case Dedup(nodes):
            return _Deduplicating([_value(node) for node in nodes], after, held)
    return after


class _Sink:
    def __init__(self, rows: list[Record]) -> None:
        self._rows = rows

    def feed(self, record: Record) -> None:
        self._rows.append(record)

    def end(self) -> None:
        pass


class _Counting:
    def __init__(self, query: Query, after: Stage) -> None:
        self._query, self._after = query, after

    def feed(self, record: Record) -> None:
        self._query.matched += 1
        self._after.feed(record)

    def end(self) -> None:
        self._after.end()


class _Making:
    """fields: what is no plain field is made, under its name."""

    def __init__(self, columns: Sequence[Column], after: Stage) -> None:
        self._made = [(c.name, _value(c.node)) for c in columns if c.node != Field(c.name)]
        self._after = after

    def feed(self, record: Record) -> None:
        for name, value in self._made:
            record.found[name] = value(record)
        self._after.feed(record)

    def end(self) -> None:
        self._after.end()


class _Filtering:
    def __init__(self, condition: Value, after: Stage) -> None:
        self._condition, self._after = condition, after

    def feed(self, record: Record) -> None:
        if truth(self._condition(record)):
            self._after.feed(record)

    def end(self) -> None:
        self._after.end()


class _Parsing:
    def __init__(self, command: Parse, after: Stage) -> None:
        self._source = _value(command.source)
        self._regex = command.regex
        self._pairs = list(zip(command.names, command.groups, strict=True))
        self._after = after

    def feed(self, record: Record) -> None:
        source = self._source(record)
        groups = self._regex.groups(shown(source)) if source is not None else None
        if groups is not None:
            for name, group in self._pairs:
                record.found[name] = groups[group]
        self._after.feed(record)

    def end(self) -> None:
        self._after.end()


class _Sorting:
    """sort. `room` is how many rows are of any interest after it; 0: all of them."""

    def __init__(self, keys: Sequence[tuple[Node, bool]], after: Stage, room: int) -> None:
        self._keys = [(_value(node), descends) for node, descends in keys]
        self._room, self._after = room, after
        self._held: list[Record] = []

    def feed(self, record: Record) -> None:
        self._held.append(record)
        if self._room and len(self._held) >= 2 * self._room + 1_000:
            self._sort()
            del self._held[self._room :]
        elif len(self._held) > ROWS_HELD_MAX:
            raise TooMuch(f"the query sorts more than {ROWS_HELD_MAX} records: filter first, or add a limit")

    def _sort(self) -> None:
        self._held.sort(key=lambda record: (record.at_ms, record.stream, record.ordinal), reverse=True)
        for value, descends in reversed(self._keys):
            self._held.sort(key=lambda record, value=value: order(value(record)), reverse=descends)  # type: ignore[misc]

    def end(self) -> None:
        self._sort()
        for record in self._held:
            self._after.feed(record)
        self._after.end()


class _Limiting:
    def __init__(self, count: int, after: Stage) -> None:
        self._left, self._after = count, after

    def feed(self, record: Record) -> None:
        if self._left:
            self._left -= 1
            self._after.feed(record)

    def end(self) -> None:
        self._after.end()


class _Deduplicating:
    def __init__(self, values: Sequence[Value], after: Stage, held: Held) -> None:
        self._values, self._after, self._held = values, after, held
        self._seen: set[tuple[str, ...]] = set()

    def feed(self, record: Record) -> None:
        values = [value(record) for value in self._values]
        if None in values:  # not the same as another that has none
            self._after.feed(record)
            return
        key = tuple(map(shown, values))
        if key not in self._seen:
            self._held.one()
            self._seen.add(key)
            self._after.feed(record)

    def end(self) -> None:
        self._after.end()


class _Grouping:
    """stats: a row a group."""

    def __init__(self, command: Stats, after: Stage, held: Held) -> None:
        self._by = [(column.name, _value(column.node)) for column in command.by]
        self._totals: list[tuple[str, Value, Made, bool]] = []
        self._columns = [(column.name, _value(_over_totals(column.node, self._totals))) for column in command.columns]
        self._after, self._held = after, held
        self._groups: dict[tuple[Any, ...], list[Total]] = {}
        self._order = 0

    def feed(self, record: Record) -> None:
        self._order += 1
        values = tuple([value(record) for _, value in self._by])
        totals = self._groups.get(values)
        if totals is None:
            if len(self._groups) >= GROUPS_MAX:
                raise TooMuch(f"stats makes more than {GROUPS_MAX} groups: take a longer bin, or filter first")
            totals = self._groups[values] = [made(self._held) for _, _, made, _ in self._totals]
        at = (record.at_ms, self._order)
        for total, (_, value, _, every) in zip(totals, self._totals, strict=True):
            known = value(record)
            if every or known is not None:
                total.add(known, at)

    def end(self) -> None:
        if not self._groups and not self._by:
            self._groups[()] = [made(self._held) for _, _, made, _ in self._totals]
        groups = list(self._groups.items())
        for n in range(len(self._by) - 1, -1, -1):
            if any(isinstance(key[n], Moment) for key, _ in groups):
                groups.sort(key=lambda group, n=n: order(group[0][n]), reverse=True)  # type: ignore[misc]
        for key, totals in groups:
            self._after.feed(self._row(key, totals))
        self._after.end()

    def _row(self, key: tuple[Any, ...], totals: Sequence[Total]) -> Record:
        row = Record()
        row.found = dict(zip([name for name, _ in self._by], key, strict=True))
        for (name, _, _, _), total in zip(self._totals, totals, strict=True):
            row.found[name] = total.result()
        made = {name: value(row) for name, value in self._columns}
        row.found.update(made)
        return row


def _over_totals(node: Node, totals: list[tuple[str, Value, Made, bool]]) -> Node:
    """The expression with each function of stats in it replaced by a field that its result will be in."""
    if isinstance(node, Call) and (node.function in TOTALS or node.function in QUANTILES):
        name = f"\0{len(totals)}"
        totals.append((name, *_total(node)))
        return Field(name)
    if isinstance(node, Operation):
        return Operation(node.sign, _over_totals(node.left, totals), _over_totals(node.right, totals))
    if isinstance(node, Call):
        inner = tuple(_over_totals(argument, totals) for argument in node.arguments)
        return Call(node.function, inner, node.start, node.end, node.text)
    return node


def _total(call: Call) -> tuple[Value, Made, bool]:
    """What is taken in, how the total is made, and whether records count where that is not there. Raises BadQuery."""
    arguments = call.arguments
    if call.function in QUANTILES:
        if len(arguments) != 2 or not isinstance(arguments[1], Literal) or not _is_percent(arguments[1].value):
            raise BadQuery(f"{call.function} takes a field and a percent from 0 to 100", call.start, call.end)
        percent = float(number(arguments[1].value) or 0)
        return _value(arguments[0]), lambda held: Quantile(held, percent), False
    if call.function == "count" and arguments in ((), (Field("*"),)):
        return (lambda record: 1), TOTALS["count"], True
    if len(arguments) != 1:
        raise BadQuery(f"{call.function} takes one argument", call.start, call.end)
    return _value(arguments[0]), TOTALS[call.function], False


def _check_totals(commands: Sequence[Command]) -> None:
    """Functions of stats have their place in stats, or name its columns after it. Raises BadQuery."""
    for command in commands:
        if isinstance(command, Stats):
            for column in command.columns:
                if not list(_totals_in(column.node)):
                    raise BadQuery(f"{column.name!r} is no function of stats, as count(*)", column.start, column.end)
            return
        for node in _nodes(command):
            for call in _totals_in(node):
                raise BadQuery(f"{call.function} is a function of stats", call.start, call.end)


def _nodes(command: Command) -> tuple[Node, ...]:
    match command:
        case Fields(columns):
            return tuple(column.node for column in columns)
        case Filter(condition):
            return (condition,)
        case Sort(keys):
            return tuple(node for node, _ in keys)
        case Dedup(nodes):
            return nodes
    return ()


def _totals_in(node: Node) -> Iterator[Call]:
    if isinstance(node, Call):
        if node.function in TOTALS or node.function in QUANTILES:
            yield node
        for argument in node.arguments:
            yield from _totals_in(argument)
    elif isinstance(node, Operation):
        yield from _totals_in(node.left)
        yield from _totals_in(node.right)
    elif isinstance(node, Among):
        yield from _totals_in(node.value)


def _is_percent(value: Any) -> bool:
    known = number(value)
    return known is not None and 0 <= known <= 100


# --- expressions ------------------------------------------------------------------------------------------------------


def _condition(node: Node) -> Value:
    if isinstance(node, Expression):  # filter /.../ is about the message
        return _value(Operation("like", Field("@message"), node))
    return _value(node)


def _value(node: Node) -> Value:
    """How an expression is worked out of a record. Raises BadQuery for one that has no meaning."""
    match node:
        case Literal(value):
            return lambda record: value
        case Field(name):
            return lambda record: record.get(name)
        case Call():
            return _call(node)
        case Among(inner, items):
            wanted, values = _value(inner), [_value(item) for item in items]
            return lambda record: _among(wanted(record), [value(record) for value in values])
        case Operation():
            return _operation(node)
    raise BadQuery("a regular expression stands only after like, =~ or parse", 0, 0)


def _among(value: Any, items: Sequence[Any]) -> bool:
    return value is not None and any(item is not None and equal(value, item) for item in items)


def _operation(node: Operation) -> Value:
    if node.sign == "like":
        return _like(node)
    right = _condition(node.right) if node.sign in ("and", "or", "not") else _value(node.right)
    if node.sign == "not":
        return lambda record: not truth(right(record))
    if node.sign == "negative":
        return lambda record: None if (known := number(right(record))) is None else -known
    left = _condition(node.left) if node.sign in ("and", "or") else _value(node.left)
    match node.sign:
        case "and":
            return lambda record: truth(left(record)) and truth(right(record))
        case "or":
            return lambda record: truth(left(record)) or truth(right(record))
        case "=":
            return lambda record: _both(left(record), right(record), equal)
        case "!=":
            return lambda record: _both(left(record), right(record), lambda a, b: not equal(a, b))
        case "<" | "<=" | ">" | ">=":
            compare = _ORDERED[node.sign]
            return lambda record: _both(left(record), right(record), lambda a, b: compare(order(a), order(b)))
    calculate = _ARITHMETIC[node.sign]
    return lambda record: _calculated(calculate, number(left(record)), number(right(record)))


def _both(left: Any, right: Any, compare: Callable[[Any, Any], bool]) -> bool:
    """What is not there compares with nothing."""
    return left is not None and right is not None and compare(left, right)


def _power(left: float, right: float) -> Any:
    return float(left) ** float(right)  # of floats, so that it overflows instead of growing


_ORDERED: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
_ARITHMETIC: dict[str, Callable[[float, float], Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "%": lambda a, b: a % b,
    "^": _power,
}


def _calculated(calculate: Callable[[float, float], Any], left: float | None, right: float | None) -> Any:
    if left is None or right is None:
        return None
    try:
        result = calculate(left, right)
    except (ZeroDivisionError, OverflowError, ValueError):
        return None
    return None if isinstance(result, complex) or abs(result) > 1e300 else result


def _like(node: Operation) -> Value:
    left = _value(node.left)
    if isinstance(node.right, Expression):
        regex = node.right.regex
        return lambda record: (value := left(record)) is not None and regex.found(shown(value))
    right = _value(node.right)
    return lambda record: _both(left(record), right(record), lambda a, b: shown(b) in shown(a))


def _call(call: Call) -> Value:
    if call.function == "bin":
        if len(call.arguments) != 1:
            raise BadQuery("bin takes one span of time, as 5m", call.start, call.end)
        period = _value(call.arguments[0])
        made: Value = lambda record: floored(record.at_ms, period(record)) if record.log else None  # noqa: E731
    elif call.function == "now":
        raise BadQuery("now() is not supported by this Eyrie: name the time", call.start, call.end)
    elif call.function in TOTALS or call.function in QUANTILES:
        made = _absent
    else:
        made = _applied(call)
    text = call.text
    return lambda record: record.found[text] if text in record.found else made(record)


def _absent(record: Record) -> Any:
    """A function of stats after stats: the column of that name is meant, and there is none."""
    return None


def _applied(call: Call) -> Value:
    if call.function not in FUNCTIONS:
        raise BadQuery(f"there is no function {call.function}", call.start, call.end)
    function, fewest, most = FUNCTIONS[call.function]
    if not fewest <= len(call.arguments) <= most:
        wanted = str(fewest) if fewest == most else f"{fewest} to {most}"
        raise BadQuery(f"{call.function} takes {wanted} arguments", call.start, call.end)
    values = [_value(argument) for argument in call.arguments]
    if len(values) == 1:
        only = values[0]
        return lambda record: function(only(record))
    return lambda record: function(*[value(record) for value in values])
