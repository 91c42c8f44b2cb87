"""The coverage page: `python -m eyrie.control.coverage > docs/reference/coverage.md`.

It says of every operation of SageMaker whether it acts, is stored or refused, and what there is of the other
services; a test holds the page to what this writes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping

from eyrie.control import unsupported
from eyrie.control.coverage_lists import ACTS, COMPANIONS, KEPT, REFUSED, STORED
from eyrie.control.images import FRAMEWORK_OF_REPOSITORY

HEAD = """# Coverage

What this Eyrie does with each operation of the AWS APIs. This page is generated (`python -m eyrie.control.coverage`);
a test holds it to the code and to botocore's list of operations.

- **acts**: it does what it says.
- **stored**: the noun is a mere record; it is kept, listed, changed, tagged and given back, and starts nothing.
- **refused**: answered with HTTP 400, a ValidationException that says so. Where Create would have to start work that
  Eyrie cannot do yet, all operations of the noun are refused: there is nothing to describe, list or delete. An empty
  list would say that there could be something.
"""


def page() -> str:
    """The whole page, in Markdown."""
    total = len(ACTS) + len(STORED) + sum(len(area.operations) for area in REFUSED)
    parts = [
        HEAD,
        f"## sagemaker: {total} operations\n",
        f"### acts: {len(ACTS)}\n\n{_names(ACTS)}\n",
        f"### stored: {len(STORED)}\n\n{_names(STORED)}\n",
        f"### refused: {sum(len(area.operations) for area in REFUSED)}\n",
        *(f"**{area.title}** ({len(area.operations)}): {area.why}.\n\n{_names(area.operations)}\n" for area in REFUSED),
        _members(),
        _images(),
        _companions(),
    ]
    return "\n".join(parts)


def _members() -> str:
    tables: tuple[tuple[str, Mapping[str, str]], ...] = (
        ("CreateModel", unsupported.MODEL),
        ("a container", unsupported.CONTAINER),
        ("CreateEndpointConfig", unsupported.CONFIG),
        ("a production variant", unsupported.VARIANT),
        ("other values", unsupported.VALUES),
    )
    lines = ["## Members that are refused\n", "Each with a ValidationException that gives the reason.\n"]
    lines += ["| of | member | why |", "|---|---|---|"]
    lines += [f"| {of} | `{member}` | {why} |" for of, table in tables for member, why in table.items()]
    lines += ["", "## Members that are kept, and change nothing\n", "| member | why |", "|---|---|"]
    lines += [f"| `{member}` | {why} |" for member, why in KEPT.items()]
    return "\n".join(lines) + "\n"


def _images() -> str:
    lines = [
        "## Images\n",
        "Images of your own (`eyrie image add`) come first, by their whole name. Of the others the repository decides; "
        "account, region and tag may be any.\n",
        "| repository | runs |",
        "|---|---|",
    ]
    lines += [f"| `{name}` | model server, {framework} |" for name, framework in FRAMEWORK_OF_REPOSITORY.items()]
    return "\n".join(lines) + "\n"


def _companions() -> str:
    lines = ["## Other services\n", "Everything else is answered with UnknownOperationException.\n"]
    lines += ["| service | operation | what it does |", "|---|---|---|"]
    lines += [f"| {service} | {name} | {what} |" for service, rows in COMPANIONS.items() for name, what in rows.items()]
    return "\n".join(lines) + "\n"


def _names(operations: Iterable[str]) -> str:
    return ", ".join(sorted(operations))


if __name__ == "__main__":
    sys.stdout.write(page())
