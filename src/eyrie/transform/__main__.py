"""`python -m eyrie.transform`: one run of a transform job by instances of this host, as `adapters/job_program`
begins and ends it. Exit code 0: every object has its output.

It is Eyrie's own code and may read the account's key, so it needs no sandbox; the models that answer it have theirs.
"""

from __future__ import annotations

from pathlib import Path

from eyrie.adapters import job_program


def work(folder: Path) -> None:
    """Run the job to its end. Raises Failed."""
    from eyrie.transform.instances import Instances
    from eyrie.transform.run import Run

    Run(folder, Instances).run()


if __name__ == "__main__":
    job_program.main("eyrie.transform", work)
