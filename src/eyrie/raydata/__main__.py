"""`python -m eyrie.raydata`: one run of a transform job by a Ray cluster, begun and ended by `adapters/job_program`."""

from __future__ import annotations

from pathlib import Path

from eyrie.adapters import job_program


def work(folder: Path) -> None:
    """Run the job to its end. Raises Failed."""
    from eyrie.raydata.cluster import Cluster
    from eyrie.transform.run import Run

    Run(folder, Cluster).run()


if __name__ == "__main__":
    job_program.main("eyrie.raydata", work)
