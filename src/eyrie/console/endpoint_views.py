"""What an endpoint's pages say, in HTML. Pure functions of what the API told."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from eyrie.console import shown
from eyrie.console.markup import Html, bar, chip, facts, figures, href, join, link, note, since, table, tag
from eyrie.domain.described import portions

Row = Mapping[str, Any]
SECTIONS = (
    ("", "Live"),
    ("deployment", "Deployment"),
    ("scaling", "Scaling"),
    ("availability", "Availability"),
    ("logs", "Logs"),
    ("invoke", "Invoke"),
    ("story", "Story"),
)
_PHASES = ("PENDING", "PROVISIONING", "SHIFTING", "BAKING", "TERMINATION_WAIT", "RETIRING", "SUCCEEDED")
_WORDS = {
    "PENDING": "Asked for", "PROVISIONING": "Instances start", "SHIFTING": "Traffic shifts", "BAKING": "Watched",
    "TERMINATION_WAIT": "Old fleet waits", "RETIRING": "Old fleet ends", "SUCCEEDED": "Done",
    "ROLLING_BACK": "Rolls back", "ROLLED_BACK": "Rolled back", "ROLLBACK_FAILED": "Roll-back failed",
}  # fmt: skip
_UPDATED = re.compile(r"UpdateEndpoint from (\S+) to ")
LINE_CHARS_MAX = 4_000


def subnav(name: str, here: str, more: Sequence[tuple[str, str]] = ()) -> Html:
    """The sections of an endpoint's page; `more`: those that only such endpoints have. A shadow has its own page."""
    links = [
        tag(
            "a",
            said,
            href=href("shadow", name)
            if section == "shadow"
            else href("endpoints", name, *([section] if section else [])),
            aria_current="page" if section == here else None,
        )
        for section, said in (*SECTIONS[:3], *more, *SECTIONS[3:])
    ]
    return tag("nav", *links, class_="subnav", aria_label=f"Sections of {name}")


def load(numbers: Mapping[str, float | None], ready: int, desired: int) -> Html:
    """The figures on top: rate, p50, p99 (µs), errors (a share), cpu and memory (percent)."""
    errors = numbers.get("errors")
    return figures(
        (
            ("Requests", shown.rate(numbers.get("rate")), ""),
            ("Latency p50", shown.latency(numbers.get("p50")), ""),
            ("Latency p99", shown.latency(numbers.get("p99")), ""),
            ("Errors (5xx)", shown.percent(errors), "bad" if errors and errors >= 0.01 else ""),
            ("Instances ready", f"{ready} of {desired}", "" if ready >= desired else "busy"),
        )
    )


def split(described: Row) -> Html:
    """Who gets how much of the traffic now: variants, and both fleets while a deployment shifts."""
    parts = [(portion.name, portion.share) for portion in portions(described)]
    if not parts:
        return note("No variant is described.")
    if sum(share for _, share in parts) <= 0:
        return note("No instance is routed yet: requests wait, or are refused.")
    return bar(parts, "Traffic")


def by_zone(instances: Sequence[Row], now_ms: float, used: Mapping[str, Mapping[str, float | None]]) -> Html:
    """Instances in their zones, with state and age. `used`: by instance, its cpu and memory in percent."""
    if not instances:
        return note("No instance runs.")
    zones: dict[str, list[Row]] = {}
    for one in sorted(instances, key=lambda i: (str(i["zone"]), str(i["variant"]), str(i["id"]))):
        zones.setdefault(str(one["zone"]), []).append(one)
    return tag("div", *(_zone(name, rows, now_ms, used) for name, rows in zones.items()), class_="zones")


def _zone(name: str, rows: Sequence[Row], now_ms: float, used: Mapping[str, Mapping[str, float | None]]) -> Html:
    items = [_instance(row, now_ms, used.get(str(row["id"]), {})) for row in rows]
    return tag(
        "section", tag("h3", f"Zone {name} · {shown.plural(len(rows), 'instance')}"), tag("ul", *items), class_="zone"
    )


def _instance(row: Row, now_ms: float, used: Mapping[str, float | None]) -> Html:
    cpu, memory = used.get("cpu"), used.get("memory")
    level = [] if cpu is None else [f"CPU {shown.number(cpu)} %"]
    level += [] if memory is None else [f"memory {shown.number(memory)} %"]
    more: list[object] = [str(row["variant"]), " · up ", since(float(row.get("started_ms") or now_ms), now_ms)]
    more += [f" · {' · '.join(level)}"] if level else []
    more += [] if row.get("routed") else [" · not routed"]
    return tag(
        "li",
        chip(str(row["state"])),
        " ",
        tag("span", row["id"], class_="id"),
        tag("div", *more, class_="more"),
        tag("div", str(row["reason"])[:200], class_="more") if row.get("reason") and row["state"] != "READY" else "",
    )


def deployment(described: Row, story: Sequence[Row], now_ms: float) -> Html:
    """Where the deployment that is on its way stands (or how the last one ended), as steps and as a timeline."""
    events = last_deployment(story)
    if not events:
        return note("Nothing was deployed since the endpoint was created.")
    pending = described.get("PendingDeploymentSummary")
    phases = [str(event["what"]).partition(" ")[2] for event in events if str(event["what"]).startswith("deployment ")]
    heading = (
        f"From {described['EndpointConfigName']} to {pending['EndpointConfigName']}"
        if pending
        else f"The last deployment: now {described['EndpointConfigName']}"
    )
    return join([tag("h2", heading), steps(phases), timeline(events, now_ms)])


def last_deployment(story: Sequence[Row]) -> list[Row]:
    """The events of the newest deployment: from the last UpdateEndpoint on, without the life of single instances."""
    began = next((at for at in range(len(story) - 1, -1, -1) if _UPDATED.match(str(story[at]["why"]))), None)
    if began is None:
        return []
    return [
        event
        for event in story[began:]
        if str(event["what"]).split(" ", 1)[0] in ("endpoint", "deployment", "variant", "artifact")
    ]


def steps(phases: Sequence[str]) -> Html:
    """The phases of a deployment, how far it came, and whether it turned back."""
    reached = phases[-1] if phases else "PENDING"
    back = reached in ("ROLLING_BACK", "ROLLED_BACK", "ROLLBACK_FAILED")
    forward = [phase for phase in phases if phase in _PHASES]
    furthest = max((_PHASES.index(phase) for phase in forward), default=0)
    now = _PHASES.index(reached) if reached in _PHASES else -1
    items = []
    for at, phase in enumerate(_PHASES[: furthest + 1] if back else _PHASES):
        state = "now" if at == now and phase != "SUCCEEDED" else "done" if at <= furthest else ""
        items.append(tag("li", _WORDS[phase], class_=state or None, aria_current="step" if state == "now" else None))
    if back:
        items.append(tag("li", _WORDS[reached], class_="back", aria_current="step"))
    return tag("ol", *items, class_="steps", aria_label="Deployment")


def timeline(events: Sequence[Row], now_ms: float, newest_first: bool = True, empty: str = "Nothing is told.") -> Html:
    """Events with their times and reasons."""
    if not events:
        return note(empty)
    told = list(reversed(events)) if newest_first else list(events)
    return tag("ol", *(_event(event, now_ms) for event in told), class_="timeline")


def _event(event: Row, now_ms: float) -> Html:
    at = float(event["at_ms"])
    when = tag("span", tag("span", shown.clock(at)[:8], title=f"{shown.stamp(at)} UTC"), class_="when")
    if now_ms - at > 20 * 3_600_000:
        when = tag("span", shown.stamp(at)[:16], class_="when")
    why = tag("p", str(event["why"])[:1_000], class_="why") if event.get("why") else ""
    return tag("li", when, tag("div", tag("p", tag("b", event["what"])), why))


def previous_config(described: Row, story: Sequence[Row]) -> str | None:
    """The config that the endpoint had before the present one, by its story; None where there was none."""
    present = described.get("EndpointConfigName")
    for event in reversed(story):
        before = _UPDATED.match(str(event.get("why", "")))
        if before is not None and before[1] != present:
            return before[1]
    return None


def log_lines(events: Iterable[Row], pattern: str = "", empty: str = "No line matches.") -> Html:
    """Lines of instances: time, stream, text. Words of a plain pattern are marked."""
    words = (
        [word for word in re.findall(r'"([^"]+)"|([^\s?"-][^\s"]*)', pattern) if any(word)]
        if pattern and pattern[0] not in "{[%"
        else []
    )
    marked = re.compile(f"({'|'.join(re.escape(one or other) for one, other in words)})") if words else None
    lines = [_line(event, marked) for event in events]
    return tag("div", *lines, class_="log", tabindex="0", role="log", aria_label="Log lines") if lines else note(empty)


def _line(event: Row, marked: re.Pattern[str] | None) -> Html:
    said = str(event["message"])[:LINE_CHARS_MAX]
    pieces = marked.split(said) if marked is not None else [said]
    stream = str(event.get("logStreamName", ""))
    return tag(
        "div",
        tag("span", shown.clock(float(event["timestamp"])), class_="t"),
        tag("span", stream, class_="s") if stream else "",
        *(tag("mark", piece) if at % 2 else piece for at, piece in enumerate(pieces)),
    )


def policies(found: Sequence[Row]) -> Html:
    """Scaling policies, in words."""
    rows = [(one["PolicyName"], one["PolicyType"], policy_in_words(one)) for one in found]
    return table(
        "Scaling policies",
        ("Policy", "Kind", "What it does"),
        rows,
        empty="No scaling policy: the number of instances stays as it was set.",
    )


def policy_in_words(policy: Row) -> str:
    """One line on what a policy does."""
    tracking = policy.get("TargetTrackingScalingPolicyConfiguration")
    if tracking:
        return f"keeps {metric_of(tracking)} at {shown.number(float(tracking['TargetValue']))}"
    stepping = policy.get("StepScalingPolicyConfiguration")
    if stepping:
        count = len(stepping.get("StepAdjustments", ()))
        return f"{stepping.get('AdjustmentType', 'changes')} in {shown.plural(count, 'step')}, when its alarm rings"
    return "as it says"


def metric_of(tracking: Row) -> str:
    """The metric that a target tracking policy follows."""
    predefined = tracking.get("PredefinedMetricSpecification", {}).get("PredefinedMetricType")
    custom = tracking.get("CustomizedMetricSpecification", {})
    return str(predefined or custom.get("MetricName") or "an expression")


def activities(found: Sequence[Row], now_ms: float) -> Html:
    """Scaling activities, newest first."""
    rows = [
        (
            since(one["StartTime"].timestamp() * 1000, now_ms),
            chip(str(one["StatusCode"])),
            one.get("Description", ""),
            one.get("Cause") or one.get("StatusMessage", ""),
        )
        for one in found
    ]
    return table("Scaling activities", ("When", "Status", "What", "Why"), rows, empty="It has not scaled yet.")


def config_facts(described: Row, config: Row | None) -> Html:
    """What the endpoint is made of."""
    said: dict[str, object] = {
        "Endpoint config": described["EndpointConfigName"],
        "ARN": tag("code", described["EndpointArn"]),
    }
    for variant in (config or {}).get("ProductionVariants", ()):
        what = [link(variant["ModelName"], "models", variant["ModelName"])] if variant.get("ModelName") else []
        kind = (
            f" on {variant['InitialInstanceCount']} × {variant['InstanceType']}"
            if variant.get("InstanceType")
            else " (serverless)"
        )
        said[f"Variant {variant['VariantName']}"] = join([*what, kind])
    return facts(said)


def reply(status: str, took_ms: float, body: str, more: Mapping[str, object]) -> Html:
    """What an invocation answered, and how long it took."""
    head = tag(
        "p",
        chip("200" if status == "200" else "Failed", status),
        " ",
        tag("b", f"{shown.number(took_ms)} ms"),
        tag("span", " as the console saw it", class_="hint"),
    )
    return join(
        [
            head,
            tag("pre", body[:20_000], class_="body", tabindex="0", role="region", aria_label="Reply"),
            facts(more) if more else "",
        ]
    )
