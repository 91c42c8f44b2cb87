"""`python -m eyrie.recommender`: one run of an inference recommendations job, as `adapters/job_program` begins and ends
it. Exit code 0: it is done, or nothing is left of it where that was all it had to see to.
"""

from __future__ import annotations

from pathlib import Path

from eyrie.adapters import job_program


def work(folder: Path) -> None:
    """Run the job to its end. Raises ProgramFailed."""
    from eyrie.recommender.run import Run

    Run(folder).run()


if __name__ == "__main__":
    job_program.main("eyrie.recommender", work)
