"""What a batch transform job says of itself, in HTML. Pure functions of what the API told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from eyrie.console import shown
from eyrie.console.markup import Html, figures, join, link, tag

PROGRESS = "EYRIE_PROGRESS"  # of the job's Environment, as JSON
Row = Mapping[str, Any]


def progress_of(job: Row) -> dict[str, Any]:
    """How far a job is; empty before anything is known."""
    try:
        found = json.loads(job.get("Environment", {}).get(PROGRESS, "{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def bar(told: Row) -> Html:
    """How far a job is, as a bar with its number."""
    percent = float(told.get("percent", 0.0))
    filled = tag("span", style=f"width:{percent:.1f}%", class_="c0")
    said = f"{shown.number(percent)} %"
    return tag(
        "div", tag("div", filled, class_="bar", role="img", aria_label=f"Progress: {said}"), said, class_="split"
    )


def head(job: Row, told: Row, now_s: float) -> Html:
    """The figures on top."""
    bad, failed = int(told.get("bad_records", 0)), int(told.get("objects_failed", 0))
    return figures(
        (
            ("Done", f"{shown.number(float(told.get('percent', 0.0)))} %", ""),
            ("Records", shown.number(float(told.get("records", 0))), ""),
            ("Objects", f"{told.get('objects_done', 0)} of {told.get('objects', 0)}", ""),
            ("Records a second", shown.number(rate(job, told, now_s)), ""),
            ("Bad records", shown.number(bad), "bad" if bad else ""),
            ("Objects failed", shown.number(failed), "bad" if failed else ""),
        )
    )


def rate(job: Row, told: Row, now_s: float) -> float | None:
    """Records a second since the transform began; None before that."""
    begin, end = job.get("TransformStartTime"), job.get("TransformEndTime")
    if begin is None or not told.get("records"):
        return None
    seconds = (end.timestamp() if end is not None else now_s) - begin.timestamp()
    return float(told["records"]) / seconds if seconds > 0 else None


def details(job: Row, told: Row) -> dict[str, object]:
    """What a job is made of."""
    given, output, resources = job["TransformInput"], job["TransformOutput"], job["TransformResources"]
    source = given["DataSource"]["S3DataSource"]
    said: dict[str, object] = {
        "Model": link(job["ModelName"], "models", job["ModelName"]),
        "Reads": join(
            [tag("code", source["S3Uri"]), f", {source['S3DataType']}, {shown.size(told.get('bytes_total'))}"]
        ),
        "As": f"{given.get('ContentType', 'its objects’ own type')}, split by {given.get('SplitType', 'None')}",
        "Writes": join([tag("code", output["S3OutputPath"]), f", {shown.size(told.get('bytes_written'))} so far"]),
        "On": f"{resources['InstanceCount']} × {resources['InstanceType']}",
        "Strategy": job.get("BatchStrategy", "MultiRecord"),
    }
    if job.get("DataProcessing"):
        said["Data processing"] = tag("code", json.dumps(job["DataProcessing"]))
    if told.get("resumed"):
        said["Taken up again"] = shown.plural(int(told["resumed"]), "time")
    return said
