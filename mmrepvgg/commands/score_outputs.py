"""Score the logits or probabilities that came back for the inputs of mmrepvgg export-inputs, matched by name.

OUTPUTS are folders of .npz or .npy files named like the input files, an .npz with an entry for each image (or with
names and one array), or texts with an image and its classes, best first, a line. Exit status 1 if any listed image
has no answer, more than one, or a malformed one.

example: mmrepvgg score-outputs inputs/ outputs/
         mmrepvgg score-outputs inputs/ top5.txt --out score.json
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..checkpoints.writing import replacing, require_writable
from ..handoff.listing import read_list
from ..printable import make_printable
from ..progress import starting, working
from .arguments import add_output

NUM_SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('inputs', help='folder that mmrepvgg export-inputs wrote (list.csv and info.json are enough)')
    parser.add_argument('outputs', nargs='+', help='what came back')
    parser.add_argument('--entry', metavar='NAME', help='which entry of an .npz is the output, if it has several')
    add_output(parser, '--out', ['.json'], 'write the score and every problem to this file')


def run(args: argparse.Namespace) -> None:
    require_writable(args.out)
    listing = read_list(args.inputs)

    with starting():
        from ..handoff.outputs import read_outputs
        from ..handoff.scoring import KINDS, score_outputs

    with working('scoring'):
        score = score_outputs(listing, read_outputs(args.outputs, listing, args.entry))
    print_score(score)
    found = {kind: [problem for problem in score.problems if problem.kind == kind] for kind in KINDS}
    for kind, problems in found.items():
        print_problems(kind, problems)
    if args.out is not None:
        write_score(args.out, score, found)
    if score.num_scored < score.num_listed:
        counts = ', '.join(f'{len(problems)} {kind}' for kind, problems in found.items() if problems)
        raise ValueError(f'{score.num_scored} of {score.num_listed} images have one good answer ({counts})')


def print_score(score: Any) -> None:
    """Print the score. A metric has its plain name only if all images are scored: scripts rely on that name."""
    print(f'{score.num_listed} images listed, {score.num_scored} scored')
    for k in score.num_correct:
        if score.num_scored == score.num_listed:
            print(f'accuracy/top{k}: {score.get_accuracy(k):.4f}')
        else:
            print(
                f'top-{k} of the {score.num_scored} scored images: {score.get_accuracy(k):.4f}; '
                f'with the others as wrong: {score.get_accuracy(k, of_all=True):.4f}'
            )
    if score.num_tied:
        print(f'{score.num_tied} images have another class with the score of the right one; the lower index is first')


def print_problems(kind: str, problems: Sequence[Any]) -> None:
    if problems:
        print(f'{kind}: {len(problems)}')
    for problem in problems[:NUM_SHOWN]:
        print(make_printable(f'  {problem.name}{f" ({problem.reason})" if problem.reason else ""}'))
    if len(problems) > NUM_SHOWN:
        print(f'  ... and {len(problems) - NUM_SHOWN} more; --out FILE.json lists all')


def write_score(path: Path, score: Any, found: dict[str, list[Any]]) -> None:
    content = dict(
        num_listed=score.num_listed,
        num_scored=score.num_scored,
        num_tied=score.num_tied,
        top={k: dict(correct=n, of_scored=score.get_accuracy(k), of_all=score.get_accuracy(k, True))
             for k, n in score.num_correct.items()} if score.num_scored else {},
        **{kind: [dict(name=p.name, reason=p.reason) for p in problems] for kind, problems in found.items()},
    )  # fmt: skip
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + '\n')
