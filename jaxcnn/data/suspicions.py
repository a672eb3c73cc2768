"""What is wrong with a data set, as lines to read: from one pass over each split."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import combinations

from jaxcnn.data.scan import Scan
from jaxcnn.data.source import Source

_NAMED = 10
IMBALANCE = 10
"""A class of the training split with so many times the examples of another is told."""


def suspicions(splits: Mapping[str, Source], scans: Mapping[str, Scan]) -> list[str]:
    """Returns a line for each suspicious thing in the splits; none if there is nothing.

    Unreadable images; images not used as stored; duplicates across and within splits, by a hash of the decoded pixels;
    classes that are empty or in one split only; a class with IMBALANCE times the training examples of another.
    """
    lines = []
    for split, found in scans.items():
        where = splits[split].records.where
        told = [f"{where(place)} ({reason})" for place, reason in sorted(found.unreadable.items())]
        lines += _named(f"{split}: unreadable", told)
        by_kind: dict[str, list[str]] = defaultdict(list)
        for place, reason in sorted(found.odd.items()):
            by_kind[reason].append(where(place))
        for reason, names in by_kind.items():
            lines += _named(f"{split}: {reason}", names)
    return lines + _duplicates(splits, scans) + _classes(splits, scans)


def _named(what: str, names: list[str]) -> list[str]:
    """One line with the number and the first of the names; nothing if there are none."""
    if not names:
        return []
    more = f", and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return [f"{what}: {len(names):,}: {', '.join(names[:_NAMED])}{more}"]


def _duplicates(splits: Mapping[str, Source], scans: Mapping[str, Scan]) -> list[str]:
    """Equal images: within a split, and those of one split that are in another."""
    places: dict[str, dict[str, list[int]]] = {split: defaultdict(list) for split in scans}
    for split, found in scans.items():
        for place, digest in enumerate(found.digests()):
            if digest:
                places[split][digest].append(place)
    lines = []
    for split, own in places.items():
        where, labels = splits[split].records.where, splits[split].labels
        groups = [group for group in own.values() if len(group) > 1]
        lines += _named(f"{split}: images that are there more than once", [_equal(map(where, g)) for g in groups])
        mixed = [_equal(map(where, g)) for g in groups if len({int(labels[place]) for place in g}) > 1]
        lines += _named(f"{split}: equal images in different classes", mixed)
    for first, second in combinations(places, 2):
        one, other = splits[first].records.where, splits[second].records.where
        both = [digest for digest in places[first] if digest in places[second]]
        told = [_equal((one(places[first][d][0]), other(places[second][d][0]))) for d in both]
        lines += _named(f"{first} and {second}: images in both", told)
    return lines


def _equal(names: Iterable[str]) -> str:
    return " = ".join(names)


def _classes(splits: Mapping[str, Source], scans: Mapping[str, Scan]) -> list[str]:
    lines = []
    names = next(iter(splits.values())).class_names
    for label, name in enumerate(names):
        have = [split for split, found in scans.items() if found.counts[label]]
        if not have:
            lines.append(f"class {name!r} is empty")
        elif len(have) < len(scans):
            lines.append(f"class {name!r} is in {' and '.join(have)} only")
    counts = scans["train"].counts
    full = [label for label, count in enumerate(counts) if count]
    if full:
        most, least = max(full, key=counts.__getitem__), min(full, key=counts.__getitem__)
        if counts[most] >= IMBALANCE * counts[least]:
            lines.append(
                f"imbalance: {names[most]!r} has {counts[most]:,} training examples, {names[least]!r} "
                f"{counts[least]:,} (told from {IMBALANCE} times on)"
            )
    return lines
