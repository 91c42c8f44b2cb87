"""What the pages of shadow tests say, in HTML. Pure functions of what the API told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eyrie.console import shown
from eyrie.console.markup import Html, chip, figures, join, link, note, since, table, tag

Row = Mapping[str, Any]
SLICES_MAX = 12  # those that agree least, of all features
HOLDS = "Intervals are 95 % confidence sequences: they hold however often you look."
_VERDICT = {"better": "good", "worse": "bad", "undecided": ""}


def experiments(found: Sequence[Row], now_ms: float) -> Html:
    """A row an inference experiment. Each has, besides its summary, the `EndpointName` it is on."""
    rows = [
        (
            link(one["Name"], "shadow", one["EndpointName"], experiment=str(one["Name"])),
            chip(str(one["Status"])),
            link(one["EndpointName"], "endpoints", one["EndpointName"]),
            since(one["CreationTime"].timestamp() * 1000, now_ms),
            str(one.get("StatusReason", ""))[:300],
        )
        for one in found
    ]
    empty = join(["No shadow test yet: ", tag("code", "CreateInferenceExperiment"), " makes one."])
    return table("Shadow tests", ("Test", "Status", "Endpoint", "Made", "Why"), rows, empty=empty)


def shadowed(endpoints: Sequence[tuple[str, str, str]]) -> Html:
    """Endpoints that have a shadow variant by their own config: name, production variant, shadow."""
    rows = [(link(name, "shadow", name), production, shadow) for name, production, shadow in endpoints]
    empty = "No endpoint has a shadow variant of its own."
    return table("Endpoints with a shadow variant", ("Endpoint", "Production", "Shadow"), rows, empty=empty)


def head(report: Row) -> Html:
    """The figures on top of a report."""
    requests, agreement, latency = report["requests"], report["agreement"], report["latency"]["difference"]
    dropped = sum(requests["dropped"].values())
    errors = report["errors"]
    return figures(
        (
            ("Sampled", f"{shown.number(report['percent'])} %", ""),
            ("Copies compared", shown.number(requests["sent"]), ""),
            ("Copies dropped", shown.number(dropped), "busy" if dropped else ""),
            ("Predictions agree", shown.percent(agreement["value"]), ""),
            ("Latency, difference", _signed_us(latency["value"], requests), _VERDICT[latency["verdict"]]),
            ("Errors, difference", _signed_percent(errors["value"], requests), _VERDICT[errors["verdict"]]),
        )
    )


def _signed_us(value: float | None, requests: Row) -> str:
    if value is None or not requests["sent"]:
        return shown.NOTHING
    return f"{'+' if value > 0 else '−' if value < 0 else ''}{shown.latency(abs(value))}"


def _signed_percent(value: float | None, requests: Row) -> str:
    if value is None or not requests["sent"]:
        return shown.NOTHING
    return f"{'+' if value > 0 else '−' if value < 0 else ''}{shown.percent(abs(value))}"


def beside(report: Row) -> Html:
    """Production beside the shadow, line by line, with what is decided."""
    outcomes, latency = report["outcomes"], report["latency"]
    both = outcomes["BothFailed"]
    errors, agreement = report["errors"], report["agreement"]
    failed = [shown.number(outcomes[name] + both) for name in ("ProductionFailed", "ShadowFailed")]
    sides = [latency["production"], latency["shadow"]]
    means = [shown.latency(side["mean_us"]) for side in sides]
    rows: list[tuple[object, ...]] = [
        ("Requests failed", *failed, _between(errors, shown.percent), _verdict(errors)),
        (
            "Model latency, mean",
            *means,
            _between(latency["difference"], shown.latency),
            _verdict(latency["difference"]),
        ),
        *(
            (f"Model latency, {name}", *(shown.latency(side[f"{name}_us"]) for side in sides), "", "")
            for name in ("p50", "p99")
        ),
        ("Predictions that agree", "", shown.percent(agreement["value"]), _between(agreement, shown.percent), ""),
    ]
    difference = report["prediction_difference"]
    if "count" in difference:
        spread = f"p5 {shown.number(difference['p5'])}, p95 {shown.number(difference['p95'])}"
        rows.append(("Prediction, difference", "", spread, _between(difference, shown.number), ""))
    columns = (
        "",
        f"Production: {report['production']}",
        f"Shadow: {report['shadow']}",
        "Difference, interval",
        "Verdict",
    )
    return join([table("Production beside shadow", columns, rows, numbers=(1, 2, 3)), tag("p", HOLDS, class_="hint")])


def _between(told: Row, form: Any) -> str:
    """An interval, with its signs."""
    if told.get("low") is None:
        return "too few"
    return f"{_sign(told['low'])}{form(abs(told['low']))} to {_sign(told['high'])}{form(abs(told['high']))}"


def _sign(value: float) -> str:
    return "−" if value < 0 else ""


def _verdict(told: Row) -> Html:
    verdict = str(told["verdict"])
    states = {"better": "OK", "worse": "ALARM"}
    return chip(states.get(verdict, ""), f"the shadow is {verdict}" if verdict in states else verdict)


def lost(report: Row) -> Html:
    """What was not compared, and why."""
    told = [(f"dropped: {why}", count) for why, count in report["requests"]["dropped"].items()]
    told += [(f"not comparable: {why}", count) for why, count in report["requests"]["not_compared"].items()]
    if not told:
        return Html("")
    return tag("p", "; ".join(f"{shown.number(count)} {why}" for why, count in told), class_="hint")


def slices(report: Row) -> Html:
    """Where both agree least, by values of the requests' features."""
    every = [(feature["feature"], part) for feature in report["features"] for part in feature["slices"]]
    every.sort(key=lambda each: (each[1]["agreement"], -each[1]["count"]))
    rows = [
        (
            feature,
            part["slice"],
            shown.number(part["count"]),
            shown.percent(part["agreement"]),
            _between(part, shown.percent),
        )
        for feature, part in every[:SLICES_MAX]
    ]
    empty = "No feature was seen yet, or every prediction agrees."
    return table(
        "Where they agree least", ("Feature", "Value", "Rows", "Agreement", "Interval"), rows, (2, 3, 4), empty
    )


def standing(experiment: Row | None) -> Html:
    """Where an experiment stands, and why."""
    if experiment is None:
        return note("A shadow variant of the endpoint's own config; no experiment decides about it.")
    why = f" {experiment['reason']}" if experiment.get("reason") else ""
    return tag("p", f"Test {experiment['name']} ", chip(str(experiment["status"])), why)
