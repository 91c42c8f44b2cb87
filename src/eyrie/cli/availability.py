"""`eyrie availability`, `eyrie objective`, `eyrie maintenance`: how available endpoints are, and how they should be.

Objective, maintenance and probe are tags of the endpoint, so any AWS client can set them; alarms on burn rates are
CloudWatch alarms like any other.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from eyrie.cli import data as datadir
from eyrie.cli.client import ControlClient
from eyrie.cli.documents import print_document
from eyrie.cli.errors import CommandError
from eyrie.cli.public import Public
from eyrie.cli.screen import show
from eyrie.decide import availability_tags as tags
from eyrie.decide.availability import Severity
from eyrie.domain.availability import Verdict

NAMESPACE = "Eyrie/Availability"
TAG_CHARS_MAX = 256
_STRIP = {Verdict.GOOD: ("█", "green"), Verdict.BAD: ("█", "bold red"), Verdict.UNKNOWN: ("·", "dim")}
_STRIP_MINUTES = 60
_SPAN = re.compile(r"(\d{1,5})(min|h|d)")
_UNITS = {"min": "minutes", "h": "hours", "d": "days"}
_OUTAGES_SHOWN = 20
_KEPT_MS = 3_600_000


def run(data: Path, endpoint: str, days: int | None, as_json: bool) -> None:
    """Print what is known of an endpoint's minutes. Raises CommandError."""
    client = ControlClient(data, str(datadir.running_env(data)["region"]), timeout_s=60.0)
    found = [client.availability(endpoint, some) for some in ((days,) if days else (30, 90))]
    if as_json:
        print_document(found[0] if days else {"30": found[0], "90": found[1]})
        return
    show(_table(found), whole=True)
    show(_last_hour(found[0]))
    show(_story(found[-1]), whole=True)


def _table(found: Sequence[dict[str, Any]]) -> Table:
    table = Table(title=found[0]["endpoint"], title_justify="left", box=None, pad_edge=False, header_style="bold")
    shares, counts = ("availability", "good minutes", "good requests"), ("bad", "unknown", "planned")
    for name in ("", *shares, *counts, "requests", "failed"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for one in found:
        minutes = one["minutes"]
        table.add_row(
            f"last {one['days']} days",
            *(_percent(one[f"{name}_percent"]) for name in ("availability", "good_minutes", "good_requests")),
            *(f"{minutes[name]:,} min" for name in ("bad", "unknown", "planned")),
            *(f"{one[name]:,}" for name in ("requests", "failed")),
        )
    return table


def _percent(value: float | None) -> str:
    return "?" if value is None else f"{value:.4f} %"


def _last_hour(found: dict[str, Any]) -> Text:
    """The newest minutes, one sign each."""
    verdicts = [Verdict(what) for _, count, what in found["spells"] for _ in range(count)][-_STRIP_MINUTES:]
    text = Text("last hour  ")
    for verdict in verdicts:
        sign, style = _STRIP.get(verdict, ("m", "cyan"))
        text.append(sign, style=style)
    return text.append("  (█ good or, in red, bad, m planned maintenance, · unknown)", style="dim")


def _story(found: dict[str, Any]) -> Text:
    """Objective, budget, burn rates, outages, in words."""
    goal, text = found["objective"], Text()
    whose = "" if goal["own"] else " (EYRIE_OBJECTIVE)"
    left = found["budget_left_percent"]
    text.append(f"objective {goal['percent']:g} %{whose}: {left:.1f} % of 30 days' error budget is left; burn rates ")
    text.append(", ".join(f"{name} {rate:.2f}" for name, rate in found["burn_rates"].items()) + "\n")
    for severity, level in found["burning"].items():
        if level >= 1:
            text.append(f"burning: {severity}, {level:.1f} times its limit\n", style="bold red")
    if found["in_maintenance"]:
        text.append("in planned maintenance now\n", style="cyan")
    if found["trouble"]:
        text.append(f"now: {found['trouble']}\n", style="red")
    for fault in goal["faults"]:
        text.append(f"a tag is not followed: {fault}\n", style="yellow")
    for outage in found["outages"][-_OUTAGES_SHOWN:]:
        began = datetime.fromtimestamp(outage["start_ms"] / 1000, UTC)
        text.append(f"  {began:%Y-%m-%d %H:%M} UTC  {outage['minutes']} min bad ({outage['badness']:.2f} min lost")
        text.append(f"; {outage['failed']} of {outage['requests']} requests failed)\n" if outage["requests"] else ")\n")
    if not found["outages"]:
        text.append(f"no bad minute in {found['days']} days\n")
    return text


# --- what is wanted ---------------------------------------------------------------------------------------------------


def set_objective(
    data: Path,
    endpoint: str,
    percent: str,
    *,
    notify: str | None,
    alarms: bool,
    probe: Path | None,
    content_type: str,
    as_json: bool,
) -> None:
    """Set an objective, a probe where one is given, and the alarms on its burn rates. Raises CommandError."""
    public = Public.of(data)
    try:
        goal = tags.objective(percent.removesuffix("%").strip())
    except ValueError as fault:
        raise CommandError(str(fault), 2) from None
    added = {tags.OBJECTIVE: f"{goal:g}"}
    if probe is not None:
        added[tags.PROBE] = _probe(probe, content_type)
    _tag(public, endpoint, added)
    for severity in Severity if alarms else ():
        public.ask("cloudwatch", "put_metric_alarm", **alarm(endpoint, severity, notify))
    names = [alarm_name(endpoint, severity) for severity in Severity] if alarms else []
    if as_json:
        print_document({"endpoint": endpoint, "objective_percent": goal, "alarms": names})
        return
    told = f"; alarms {', '.join(names)}" if names else ""
    print(f"{endpoint}: {goal:g} % of its minutes{told}")


def _probe(path: Path, content_type: str) -> str:
    try:
        body = path.read_bytes()
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}") from None
    value = f"{content_type} {b64encode(body).decode()}"
    if len(value) > TAG_CHARS_MAX:
        room = (TAG_CHARS_MAX - len(content_type) - 1) // 4 * 3
        raise CommandError(f"{path} has {len(body)} bytes; a probe lives in a tag, which has room for {room}")
    return value


def alarm_name(endpoint: str, severity: Severity) -> str:
    """The name of the alarm on an endpoint's burn rates."""
    return f"{endpoint}-burn-rate-{severity}"


def alarm(endpoint: str, severity: Severity, notify: str | None) -> dict[str, Any]:
    """PutMetricAlarm on the burn rates of an endpoint: at once, and over as soon as the short windows are."""
    return {
        "AlarmName": alarm_name(endpoint, severity),
        "AlarmDescription": f"{endpoint} uses up its error budget too fast ({severity}): docs/concepts/availability.md",
        "Namespace": NAMESPACE,
        "MetricName": "Burning",
        "Dimensions": [{"Name": "EndpointName", "Value": endpoint}, {"Name": "Severity", "Value": str(severity)}],
        "Statistic": "Maximum",
        "Period": 60,
        "EvaluationPeriods": 1,
        "Threshold": 1.0,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "TreatMissingData": "ignore",
        **({"AlarmActions": [notify], "OKActions": [notify]} if notify else {}),
    }


def remove_objective(data: Path, endpoint: str, as_json: bool) -> None:
    """Forget an objective, its probe and its alarms; of an endpoint that was deleted, the alarms that it left behind.
    Raises CommandError.
    """
    public = Public.of(data)
    found = public.endpoint(endpoint)
    names = [alarm_name(endpoint, severity) for severity in Severity]
    there = public.ask("cloudwatch", "describe_alarms", AlarmNames=names)["MetricAlarms"]
    if found is None and not there:
        raise CommandError(f"there is no endpoint {endpoint!r}")
    if found is not None:
        keys = [tags.OBJECTIVE, tags.PROBE]
        public.ask("sagemaker", "delete_tags", ResourceArn=found["EndpointArn"], TagKeys=keys)
    if there:
        public.ask("cloudwatch", "delete_alarms", AlarmNames=[one["AlarmName"] for one in there])
    if as_json:
        print_document({"endpoint": endpoint, "alarms_deleted": [one["AlarmName"] for one in there]})
    else:
        print(f"{endpoint}: no objective of its own")


def show_objective(data: Path, endpoint: str, as_json: bool) -> None:
    """Print what its tags say. Raises CommandError."""
    found = _tags(Public.of(data), endpoint)
    own = {key: found[key] for key in (tags.OBJECTIVE, tags.MAINTENANCE, tags.PROBE) if found.get(key)}
    if as_json:
        print_document(own)
        return
    for key, value in own.items():
        print(f"{key}  {value}")
    if not own:
        print(f"{endpoint}: nothing of its own (EYRIE_OBJECTIVE holds)")


def add_maintenance(data: Path, endpoint: str, start: str, length: str, now: datetime, as_json: bool) -> None:
    """Plan maintenance: what is over by now is forgotten. Raises CommandError."""
    public = Public.of(data)
    word = _window(start, length, now)
    kept = [w for w in _tags(public, endpoint).get(tags.MAINTENANCE, "").split() if not _over(w, now)]
    value = " ".join([*kept, word])
    if len(value) > TAG_CHARS_MAX:
        raise CommandError(f"{len(kept)} windows are planned already: there is no room for another one")
    _tag(public, endpoint, {tags.MAINTENANCE: value})
    _tell_maintenance(endpoint, [*kept, word], as_json)


def clear_maintenance(data: Path, endpoint: str, as_json: bool) -> None:
    """Plan none any more. What was planned maintenance stays what it was. Raises CommandError."""
    public = Public.of(data)
    public.ask("sagemaker", "delete_tags", ResourceArn=_arn(public, endpoint), TagKeys=[tags.MAINTENANCE])
    _tell_maintenance(endpoint, [], as_json)


def _tell_maintenance(endpoint: str, windows: list[str], as_json: bool) -> None:
    if as_json:
        print_document({"endpoint": endpoint, "maintenance": windows})
    else:
        print(f"{endpoint}: {' '.join(windows) or 'no planned maintenance'}")


def _window(start: str, length: str, now: datetime) -> str:
    """As the tag has it: of `now`, `2h` from now, a moment, or a day of the week."""
    span = _SPAN.fullmatch(start)
    if start == "now" or span is not None:
        at = now + (timedelta(**{_UNITS[span[2]]: int(span[1])}) if span else timedelta())
        start = f"{at:%Y-%m-%dT%H:%MZ}"
    word = f"{start}/{length}"
    try:
        tags.window(word)
    except ValueError as fault:
        raise CommandError(str(fault), 2) from None
    return word


def _over(word: str, now: datetime) -> bool:
    try:
        window = tags.window(word)
    except ValueError:
        return True
    ended_ms = window.start_ms + window.length_ms + _KEPT_MS  # its last minutes are judged a little later
    return not window.every_ms and ended_ms <= now.timestamp() * 1000


def _tags(public: Public, endpoint: str) -> dict[str, str]:
    found = public.ask("sagemaker", "list_tags", ResourceArn=_arn(public, endpoint))["Tags"]
    return {tag["Key"]: tag["Value"] for tag in found}


def _tag(public: Public, endpoint: str, added: dict[str, str]) -> None:
    given = [{"Key": key, "Value": value} for key, value in added.items()]
    public.ask("sagemaker", "add_tags", ResourceArn=_arn(public, endpoint), Tags=given)


def _arn(public: Public, endpoint: str) -> str:
    found = public.endpoint(endpoint)
    if found is None:
        raise CommandError(f"there is no endpoint {endpoint!r}")
    return str(found["EndpointArn"])
