"""Write the model table of configs/repvgg/README.md from configs/repvgg/metafile.yml.

example: python tools/update_model_table.py
"""

import argparse
import sys
from pathlib import Path

from mmrepvgg import cli

sys.path.insert(0, str(Path(__file__).parent.parent))  # studies/ is part of the repository, not of the package


def parse() -> argparse.ArgumentParser:
    parser = cli.make_parser(__doc__)
    parser.add_argument('--readme', default='configs/repvgg/README.md', help='file to update (default: %(default)s)')
    parser.add_argument(
        '--metafile', default='configs/repvgg/metafile.yml', help='model-index file to read (default: %(default)s)'
    )
    return parser


def main(args: argparse.Namespace) -> None:
    cli.require_file(args.readme)
    cli.require_file(args.metafile)

    from studies.model_table import update_table

    changed = update_table(args.readme, args.metafile)
    print(f'{args.readme}: {"updated" if changed else "up to date"}')


if __name__ == '__main__':
    cli.run(parse(), main)
