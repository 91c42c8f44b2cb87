"""Which zone a new instance goes to: the spread that lets an endpoint outlive a zone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence


def zone_for(zones: Sequence[str], of_variant: Iterable[str], of_all: Iterable[str] = ()) -> str:
    """The zone with the fewest instances of the variant; among those, with the fewest of all; then the first named.

    `of_variant` holds the zone of each instance that the variant counts on, `of_all` that of every instance on this
    compute (the variant's own may be among them). So two instances of a variant never share a zone while another has
    none of them. A zone that is no longer in `zones` is not chosen. Raises ValueError when there is no zone.
    """
    if not zones:
        raise ValueError("there is no zone to place an instance in")
    own, overall = Counter(of_variant), Counter(of_all)
    return min(zones, key=lambda zone: (own[zone], overall[zone]))
