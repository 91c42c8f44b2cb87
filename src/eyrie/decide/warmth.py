"""Warm slots: which kinds are kept and how many of each, which is started next, which one a claim takes.

Asked by adapters/warm_pool. Every kind that is deployed, or was lately, has a slot of its own; what is left of the
number that was set goes to the kinds of which most instances run, and to the first kind, which is there before
anything is known. See docs/concepts/instances.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from eyrie.domain.kinds import FRAMEWORKS, frameworks_of, kind_of

KINDS_MAX = 8  # that are kept warm at once because they are or were deployed
RECENT_MS = 7 * 24 * 3_600_000  # a kind that nobody deployed for so long is kept warm no more
_PICKLES = FRAMEWORKS["sklearn"].files


class How(StrEnum):
    """How a claim found its slot."""

    WARM = "warm"  # it waited, with all that was needed
    EARLY = "early"  # it was still importing that
    PART = "part"  # it waited, with a part of that or nothing imported
    MISSED = "missed"  # there was none: one was started


@dataclass(frozen=True, slots=True)
class Use:
    """How much a kind is used."""

    instances: int  # that run now
    last_ms: int  # when one was last started


@dataclass(frozen=True, slots=True)
class Need:
    """What an instance wants of its slot."""

    kind: str
    avoids: frozenset[str] = frozenset()  # frameworks that it brings itself: a slot that has imported them is no use


@dataclass(frozen=True, slots=True)
class Contents:
    """What is known of one container before it runs."""

    image: str
    files: tuple[str, ...] = ()  # names at the top of its model's folder, folders ending in "/"
    brings: tuple[str, ...] = ()  # distributions of its requirements, normalised


def need_of(containers: Iterable[Contents], installed: Iterable[str]) -> Need:
    """The kind of slot for these containers; a wrong guess costs time, nothing else."""
    wanted: set[str] = set()
    avoids: set[str] = set()
    for contents in containers:
        wanted |= _frameworks(contents)
        avoids |= {name for name, known in FRAMEWORKS.items() if known.distribution in contents.brings}
    return Need(kind_of((wanted & set(installed)) - avoids), frozenset(avoids))


def _frameworks(contents: Contents) -> set[str]:
    if "compiled/" in contents.files:
        return {"onnx"}
    image = contents.image.lower()
    named = next((name for name, known in FRAMEWORKS.items() if any(word in image for word in known.images)), None)
    found = named or next((n for n, known in FRAMEWORKS.items() if _has(contents.files, known.files)), None)
    whole = "code/" in contents.files or _has(contents.files, _PICKLES)
    if found in ("xgboost", "lightgbm") and whole:
        return {found, "sklearn"}
    return {found} if found is not None else set()


def _has(files: Iterable[str], endings: tuple[str, ...]) -> bool:
    return any(name.lower().endswith(endings) for name in files) if endings else False


def wanted(uses: Mapping[str, Use], first: str, slots: int, now_ms: int) -> dict[str, int]:
    """How many slots of each kind to keep, the most urgent kind first. None at all where `slots` is 0; otherwise
    `slots` in all, or one a kind that is or was lately deployed where those are more.
    """
    if slots <= 0:
        return {}
    lately = {k: u for k, u in uses.items() if u.instances > 0 or now_ms - u.last_ms <= RECENT_MS}
    ranked = sorted(lately, key=lambda k: (lately[k].instances == 0, -lately[k].instances, -lately[k].last_ms, k))
    counts = dict.fromkeys(ranked[:KINDS_MAX], 1)
    if len(counts) < slots:
        counts.setdefault(first, 1)
    while sum(counts.values()) < slots:
        counts[max(counts, key=lambda k: _instances(lately, k) / (counts[k] + 1))] += 1
    return counts


def _instances(uses: Mapping[str, Use], kind: str) -> int:
    return uses[kind].instances if kind in uses else 0


def next_start(wants: Mapping[str, int], have: Mapping[str, int]) -> str | None:
    """The kind to start a slot of: one of which there is none before another of which there are too few."""
    lacking = [kind for kind, count in wants.items() if have.get(kind, 0) < count]
    return next((kind for kind in lacking if not have.get(kind, 0)), lacking[0] if lacking else None)


def surplus(wants: Mapping[str, int], have: Mapping[str, int]) -> str | None:
    """A kind of which one slot is to go: only once nothing is lacking any more."""
    if next_start(wants, have) is not None:
        return None
    return next((kind for kind, count in have.items() if count > wants.get(kind, 0)), None)


def choose(need: Need, waiting: Sequence[str], starting: Sequence[str] = ()) -> tuple[int, How] | None:
    """Which slot a claim takes: its place among those that wait (or, where EARLY, that start); None: start one.

    One that waits with all that is needed, the one with the least besides; else one that is still importing that; else
    one that waits with a part of it. Never one that holds what the instance brings itself, or what it has no use for
    beside too little.
    """
    needed = set(frameworks_of(need.kind))
    for kinds, how in ((waiting, How.WARM), (starting, How.EARLY), (waiting, How.PART)):
        fit: list[tuple[int, int]] = []
        for place, kind in enumerate(kinds):
            has = set(frameworks_of(kind))
            good = has < needed if how is How.PART else has >= needed
            if good and not has & need.avoids:
                fit.append((abs(len(has) - len(needed)), place))
        if fit:
            return min(fit)[1], how
    return None
