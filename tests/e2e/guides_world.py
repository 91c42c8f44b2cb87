"""A newcomer who reads a guide: each fenced block in order, pasted as it stands, into one shell and one Python.

The word before the first space of a fence says what a block is, a word after it what becomes of it:

    sh            pasted into the shell; each must end with 0
    console       what follows `$ ` is pasted into the shell, and prints what stands below (see `looks_like`); it ends
                  with 0, unless what stands below is a refusal (`eyrie: ...`)
    python        pasted into one Python session, started from that shell
    LANGUAGE FILE the reader saves it as FILE
    python beside it runs in another terminal, until a block says `alone` or the guide ends
    text, json, yaml  only read
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE_S = 180.0  # until a command prints what the guide shows
LIMIT_S = 240  # one block
LOOKS = re.compile(
    r"eyrie (story|status|endpoints|top|insights|tail|logs|deployment show|shadow report)\b"
    r"|aws \S+ ((describe|list|get|filter)-|ls )"
)
OF_THE_MOMENT = re.compile(r" *[0-9.]+ s  ")  # progress, with its seconds: nobody sees just these lines again
VERDICTS = ("PASS", "INCONCLUSIVE")
UNIT = r"(?: (?:us|ms|s|min|h|B|kB|KB|MB|GB)\b)?"
NUMBER = rf"[-+]?[0-9a-f][-0-9a-f.,:%T]*{UNIT}"
PART = re.compile(rf"(\.\.\.|\b[0-9a-f]{{8,}}\b|[-+]?[0-9][-0-9.,:%T]*{UNIT}|{'|'.join(VERDICTS)}|\s+)")
OPEN = re.compile(r"^```(\S+)(?: (\S+))?$")
SESSION = """
import contextlib, io, json, sys, traceback
names = {"__name__": "__main__"}
for line in sys.stdin:
    block, failed = json.loads(line), ""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        try:
            exec(compile(block["text"], block["place"], "exec"), names)
        except Exception:
            failed = traceback.format_exc()
    print(json.dumps({"said": said.getvalue(), "failed": failed}), flush=True)
"""


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins (FILE:LINE), its language, the word after it, its text."""

    place: str
    language: str
    word: str
    text: str


@dataclass(frozen=True)
class Command:
    """A command of a console block, and the lines that the guide shows below it."""

    text: str
    shown: tuple[str, ...]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    found, body = [], None
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if body is None and line.startswith("```"):
            opened = OPEN.match(line)
            assert opened, f"{page.name}:{number}: a fence without a language"
            body, start = [], number
        elif body is not None and line == "```":
            found.append(Block(f"{page.name}:{start}", opened[1], opened[2] or "", "\n".join(body) + "\n"))
            body = None
        elif body is not None:
            body.append(line)
    assert body is None, f"{page.name}: the last fence is open"
    return found


def commands(block: Block) -> list[Command]:
    """The commands of a console block; a line that ends with a backslash goes on in the next."""
    found: list[Command] = []
    going_on = False
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append(Command(line[2:], ()))
        elif going_on:
            found[-1] = Command(f"{found[-1].text}\n{line}", ())
        else:
            assert found, f"{block.place}: a console block begins with `$ `"
            found[-1] = Command(found[-1].text, (*found[-1].shown, line))
            continue
        going_on = line.endswith("\\")
    return found


def looks_like(shown: str) -> re.Pattern[str]:
    """What a shown line is held to: its words in their order. Numbers with their units, times, ids and the verdicts of
    chance may be others, `...` stands for anything."""
    return re.compile("".join(_held(part) for part in PART.split(shown.strip())))


def _held(part: str) -> str:
    if part == "...":
        return ".*"
    if part in VERDICTS:
        return f"(?:{'|'.join(VERDICTS)})"
    if PART.fullmatch(part):
        return r"\s+" if part.isspace() else NUMBER
    return re.escape(part)


class Reader:
    """One reader of one guide: a folder, a shell whose variables last, a Python session."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self._variables = folder / ".variables"  # of the shell, from one paste to the next
        self._restore = f"[ ! -f {self._variables} ] || . {self._variables}"
        self._environment = environment
        self._session: subprocess.Popen[str] | None = None
        self._beside: list[subprocess.Popen[str]] = []

    def follow(self, block: Block) -> None:
        """Do what the block says."""
        if block.word not in ("", "beside", "alone"):
            path = self.folder / block.word
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
        elif block.word == "beside":
            self._beside.append(self._python(block.text, subprocess.STDOUT))
        elif block.language == "python":
            self._paste(block)
        elif block.language == "sh":
            self.shell(block.text, block.place)
        elif block.language == "console":
            if block.word == "alone":
                self._alone()
            for command in commands(block):
                self._see(command, block.place)
        else:
            assert block.language in ("text", "json", "yaml", "toml"), f"{block.place}: what is {block.language}?"

    def shell(self, text: str, place: str) -> str:
        """What a paste into the shell prints; it must end with 0."""
        done = self._shell(text)
        assert done.returncode == 0, f"{place}\n{text}\nended with {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def _shell(self, text: str) -> subprocess.CompletedProcess[str]:
        keep = f"trap 'export -p > {self._variables}' EXIT"
        return subprocess.run(
            ["bash", "-c", f"{self._restore}; set -ae; {keep}\n{text}"],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )

    def _see(self, command: Command, place: str) -> None:
        """Run it until it prints what is shown, where it only looks; else once."""
        deadline = time.monotonic() + PATIENCE_S
        patterns = [looks_like(line) for line in command.shown if line.strip() and not OF_THE_MOMENT.match(line)]
        while True:
            done = self._shell(command.text)
            said = done.stdout + done.stderr
            missing = [pattern.pattern for pattern in patterns if not pattern.search(said)]
            refused = any(line.startswith("eyrie: ") for line in command.shown)
            if (done.returncode != 0) == refused and not missing:
                return
            if not LOOKS.match(command.text) or time.monotonic() > deadline:
                ended = f"ended with {done.returncode}\n{said}\nlacks {missing}"
                raise AssertionError(f"{place}\n$ {command.text}\n{ended}")
            time.sleep(0.5)

    def _python(self, code: str, errors: int | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", "-c", f'{self._restore}; exec {sys.executable} -c "$0"', code],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )

    def _paste(self, block: Block) -> None:
        if self._session is None:
            self._session = self._python(SESSION)
        assert self._session.stdin is not None
        assert self._session.stdout is not None
        self._session.stdin.write(json.dumps({"text": block.text, "place": block.place}) + "\n")
        self._session.stdin.flush()
        answer: Any = json.loads(self._session.stdout.readline())
        assert not answer["failed"], f"{block.place}\n{answer['failed']}"

    def _alone(self) -> None:
        """End what runs beside; it must have lasted until now."""
        for process in self._beside:
            ended = process.poll()
            process.terminate()
            said = process.communicate()[0]
            assert ended is None, f"what should run beside has ended with {ended}:\n{said}"
        self._beside.clear()

    def leave(self) -> None:
        """The reader closes every terminal."""
        if self._session is not None:
            self._session.communicate()
        with contextlib.suppress(AssertionError):
            self._alone()
