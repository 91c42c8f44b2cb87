"""Inference recommendations jobs: their tests as they go on, what they recommend and what that costs, and their end."""

from __future__ import annotations

from typing import Any

from eyrie.console import job_page, recommendation_views
from eyrie.console.client import Client
from eyrie.console.job_page import Told
from eyrie.console.markup import Html, chip, facts, join, link, since, table, tag

ROWS_MAX = 100
STEPS_MAX = 300


def jobs_table(client: Client, now_ms: float) -> Html:
    """Every recommendations job, newest first. Raises Trouble."""
    found = client.call("sagemaker", "list_inference_recommendations_jobs", MaxResults=ROWS_MAX)
    rows = [
        (
            link(one["JobName"], "jobs", "recommendations", one["JobName"]),
            chip(str(one["Status"])),
            one["JobType"],
            since(one["CreationTime"].timestamp() * 1000, now_ms),
            str(one.get("FailureReason", ""))[:200],
        )
        for one in found["InferenceRecommendationsJobs"]
    ]
    empty = join(["None yet: ", tag("code", "eyrie recommend MODEL --payload FILE"), " starts one."])
    return table("Inference recommendations", ("Job", "Status", "Kind", "Made", "Why"), rows, empty=empty)


def steps_of(client: Client, name: str) -> list[Any]:
    """Every test of a job. Raises Trouble."""
    return client.every("sagemaker", "list_inference_recommendations_job_steps", "Steps", most=STEPS_MAX, JobName=name)


def look(client: Client, name: str) -> Told:
    """Ask for a job. Raises Trouble."""
    job = client.call("sagemaker", "describe_inference_recommendations_job", JobName=name)
    steps = steps_of(client, name)
    found = recommendation_views.candidates(job), recommendation_views.tests(steps)
    figures = recommendation_views.head(job, steps)
    parts = (*found, facts(recommendation_views.details(job)))
    return Told(str(job["Status"]), str(job.get("FailureReason", "")), figures, parts)


KIND = job_page.Kind(
    path="recommendations",
    cards=("Recommended", "Tests", "Made of"),
    look=look,
    stop="stop_inference_recommendations_job",
    named="JobName",
    meaning="What it has deployed for its tests is removed; what was measured stays.",
    under_way=frozenset({"PENDING", "IN_PROGRESS"}),
    log_group="/aws/sagemaker/InferenceRecommendationsJobs",
)
register = job_page.register(KIND)
