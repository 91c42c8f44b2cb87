"""Batch transform jobs: how far each is, what it reads and writes, what went wrong, and its end."""

from __future__ import annotations

import time

from eyrie.console import job_page, shown, transform_views
from eyrie.console.client import Client
from eyrie.console.job_page import Told
from eyrie.console.markup import Html, chip, facts, join, link, note, since, table, tag

ROWS_MAX = 100
ASKED_MAX = 20  # jobs on their way whose progress the list shows
UNDER_WAY = ("InProgress", "Stopping")


def jobs_table(client: Client, now_ms: float) -> Html:
    """Every transform job, newest first, those under way with their progress. Raises Trouble."""
    found = client.call("sagemaker", "list_transform_jobs", MaxResults=ROWS_MAX)["TransformJobSummaries"]
    asked = [one["TransformJobName"] for one in found if one["TransformJobStatus"] in UNDER_WAY][:ASKED_MAX]
    told = {
        name: transform_views.progress_of(client.call("sagemaker", "describe_transform_job", TransformJobName=name))
        for name in asked
    }
    rows = [
        (
            link(one["TransformJobName"], "jobs", "transform", one["TransformJobName"]),
            chip(str(one["TransformJobStatus"])),
            transform_views.bar(told[one["TransformJobName"]]) if one["TransformJobName"] in told else shown.NOTHING,
            since(one["CreationTime"].timestamp() * 1000, now_ms),
            str(one.get("FailureReason", ""))[:200],
        )
        for one in found
    ]
    empty = join(["None yet: ", tag("code", "eyrie transform MODEL s3://FROM s3://TO"), " starts one."])
    return table("Batch transform jobs", ("Job", "Status", "Progress", "Made", "Why"), rows, empty=empty)


def look(client: Client, name: str) -> Told:
    """Ask for a job. Raises Trouble."""
    job = client.call("sagemaker", "describe_transform_job", TransformJobName=name)
    told = transform_views.progress_of(job)
    bar = transform_views.bar(told) if told else note("Nothing was read yet.")
    made_of = facts(transform_views.details(job, told))
    figures = transform_views.head(job, told, time.time())
    return Told(str(job["TransformJobStatus"]), str(job.get("FailureReason", "")), figures, (bar, made_of))


KIND = job_page.Kind(
    path="transform",
    cards=("Progress", "Made of"),
    look=look,
    stop="stop_transform_job",
    named="TransformJobName",
    meaning="What was written stays; the job cannot be continued.",
    under_way=frozenset({"InProgress"}),
    log_group="/aws/sagemaker/TransformJobs",
    log_suffix="/",
    every_s=1.5,
)
register = job_page.register(KIND)
