"""Read outputs in texts: the classes of each image, best first. Imports no torch."""

import csv
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .listing import InputList
from .returned import MalformedError, Returned, place

# A line for one rank: 'val/n01/x.JPEG: Relay top-0 id: 65, prob: 0.98, class name: sea snake'. Its parts have a pattern
# each: a single pattern would take time quadratic in the length of a line.
_NAME_END = re.compile(r':\s')
_RANK = re.compile(r'\btop-(\d{1,9})\s+id:\s*(-?\d{1,9})\b')
_SCORE = re.compile(r'\bprob:\s*([^\s,]+)')

_LABEL = re.compile(r'(?P<label>-?\d{1,9})(?::(?P<score>\S+))?')
_Class = tuple[int, str | None]  # label, and score as it is written


@dataclass(frozen=True)
class _Answer:
    """An image's classes, best first."""

    name: str
    source: str
    classes: Sequence[_Class]


def read_text(path: Path, listing: InputList) -> Iterator[Returned]:
    """Read a text. An image is refused if it has not as many classes as most images."""
    answers: list[_Answer] = []
    ranks: dict[str, list[tuple[int, _Class]]] = {}
    try:
        with open(path, encoding='utf-8-sig', newline='') as file:
            for number, line in enumerate(file, 1):
                if not line.strip() or line.startswith('#'):
                    continue
                if ranked := _parse_rank(line):
                    name, rank = ranked
                    ranks.setdefault(name, []).append(rank)
                    continue
                name, classes = _parse_line(line, listing)
                if classes:
                    answers.append(_Answer(name, f'{path}:{number}', classes))
                else:
                    reason = f'must be an image and its classes, best first, got {_shorten(line.strip())}'
                    yield Returned(name, f'{path}:{number}', listing.find_image(name), reason=reason)
    except UnicodeDecodeError:
        yield Returned(path.name, str(path), reason='must be a text in UTF-8, .npz or .npy')
        return
    first = min((rank for pairs in ranks.values() for rank, _ in pairs), default=0)
    for name, pairs in ranks.items():
        try:
            answers += [_Answer(name, str(path), classes) for classes in _order_ranks(pairs, first)]
        except MalformedError as error:
            yield Returned(name, str(path), listing.find_image(name), reason=str(error))
    usual = Counter(len(answer.classes) for answer in answers).most_common(1)[0][0] if answers else 0
    for answer in answers:
        try:
            labels = _check(answer.classes, usual, listing.num_classes)
        except MalformedError as error:
            yield place(answer.name, answer.source, listing, reason=str(error))
        else:
            yield place(answer.name, answer.source, listing, labels=labels)


def _parse_rank(line: str) -> tuple[str, tuple[int, _Class]] | None:
    """The image's name, the rank and the class of a line for one rank. None for other lines."""
    end = _NAME_END.search(line, 1)
    match = end and _RANK.search(line, end.end())
    if not end or not match:
        return None
    score = _SCORE.search(line, match.end())
    return line[: end.start()].rstrip(), (int(match[1]), (int(match[2]), score[1] if score else None))


def _parse_line(line: str, listing: InputList) -> tuple[str, list[_Class]]:
    """The image's name and its classes. A malformed line has no classes."""
    separator = '\t' if '\t' in line else ','
    if separator in line:
        try:
            (row,) = csv.reader([line], delimiter=separator, skipinitialspace=True)
        except csv.Error:  # a field that is too long
            return line[:60], []
        parts = [part.strip() for part in row]
        # 'cat.jpg 3, 5, 8'
        name, _, first = parts[0].rpartition(' ')
        if name and _LABEL.fullmatch(first) and listing.find_image(parts[0]) is None:
            parts[:1] = [name.strip(), first]
    else:
        parts = _split_at_blanks(line, listing)
    while len(parts) > 1 and not parts[-1]:  # a separator at the end
        parts.pop()
    matches = [_LABEL.fullmatch(part) for part in parts[1:]]
    classes = [(int(match['label']), match['score']) for match in matches if match]
    return parts[0], classes if len(classes) == len(matches) else []


def _split_at_blanks(line: str, listing: InputList) -> list[str]:
    """The image's name, which may have blanks if an image is listed so, and its classes, from the right."""
    words = line.split()
    first = len(words)
    while first > 1 and _LABEL.fullmatch(words[first - 1]):
        first -= 1
    # 'my cat 7 3 5' may be the image 'my cat 7'; the longest name that is listed counts
    for end in range(min(first + 4, len(words) - 1), first - 1, -1):  # few, as a line may be long
        name = line.rsplit(None, len(words) - end)[0].strip()
        if end > 1 and listing.find_image(name) is not None:
            return [name, *words[end:]]
    return words


def _order_ranks(pairs: Sequence[tuple[int, _Class]], first: int) -> list[list[_Class]]:
    """Put the classes of an image in the order of their ranks. Several sets of ranks are several answers.

    Args:
        pairs: Ranks and classes of the image.
        first: The best rank in the text, which must be 0 or 1.
    """
    ranks = sorted(rank for rank, _ in pairs)
    repeats = ranks.count(ranks[0])
    expected = [rank for rank in range(first, first + len(ranks) // repeats) for _ in range(repeats)]
    if first > 1 or ranks != expected:
        raise MalformedError(f'ranks must be {first if first < 2 else 0} and the ones after it, got {_shorten(ranks)}')
    classes = [found for _, found in sorted(pairs, key=lambda pair: pair[0])]
    return [classes[repeat::repeats] for repeat in range(repeats)]


def _check(classes: Sequence[_Class], usual: int, num_classes: int) -> tuple[int, ...]:
    """Check the classes of an answer, and return their labels.

    Raises:
        MalformedError: If their number, labels or scores are wrong.
    """
    labels = tuple(label for label, _ in classes)
    if len(labels) != usual:
        raise MalformedError(f'must have {usual} classes as most images, got {len(labels)}')
    if not all(0 <= label < num_classes for label in labels):
        raise MalformedError(f'classes must be 0 to {num_classes - 1}, got {_shorten(labels)}')
    if len(set(labels)) != len(labels):
        raise MalformedError(f'classes must differ, got {_shorten(labels)}')
    scores = [_parse_score(score) for _, score in classes if score is not None]
    if scores != sorted(scores, reverse=True):
        raise MalformedError(f'classes must be the best first, got the scores {_shorten(scores)}')
    return labels


def _parse_score(text: str) -> float:
    try:
        score = float(text.rstrip('%'))
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise MalformedError(f'scores must be finite numbers, got {_shorten(text)}')
    return score


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f'{text[:77]}...'
