"""Lay out a real data set of one's own: emoji of four vendors, a class a subgroup, one vendor for validation.

    for vendor in google twitter apple facebook; do npm pack emoji-datasource-$vendor@16.0.0; done
    python -m studies.emoji emoji-datasource-*-16.0.0.tgz data/emoji

It reads the packages as they are, and takes only the pictures of 64 pixels out of them. The classes are the subgroups
with 20 emoji or more, 50 of each at most, without variants of the skin. The vendor for validation is Facebook. So the
validation images are other drawings of emoji that are in the training images, too.
"""

import argparse
import json
import tarfile
from collections import defaultdict
from pathlib import Path

from mmrepvgg.checkpoints.writing import replacing

VALIDATION = 'facebook'
_LEAST, _MOST = 20, 50


def read_package(path: Path) -> tuple[str, list[dict], dict[str, bytes]]:
    """The vendor of a package, its emoji in their order, and its pictures by name."""
    vendor = path.name.removeprefix('emoji-datasource-').split('-')[0]
    pictures: dict[str, bytes] = {}
    with tarfile.open(path) as package:
        for member in package:
            name = member.name.removeprefix('package/')
            content = package.extractfile(member) if member.isfile() else None
            if content and name == 'emoji.json':
                emoji = json.load(content)
            elif content and name.startswith(f'img/{vendor}/64/'):
                pictures[Path(name).name] = content.read()
    return vendor, sorted(emoji, key=lambda each: each['sort_order']), pictures


def write_emoji(packages: list[Path], root: Path) -> dict[str, int]:
    """Write ``root/{train,val}/<subgroup>/<emoji>_<vendor>.png``; count the pictures of both."""
    counts = {'train': 0, 'val': 0}
    with replacing(root, 'val/heart') as folder:
        for path in packages:
            vendor, emoji, pictures = read_package(path)
            groups: dict[str, list[dict]] = defaultdict(list)
            for each in emoji:
                groups[each['subcategory']].append(each)
            split = 'val' if vendor == VALIDATION else 'train'
            for name, members in groups.items():
                if len(members) < _LEAST:
                    continue
                target = folder / split / name
                target.mkdir(parents=True, exist_ok=True)
                for each in members[:_MOST]:
                    if picture := pictures.get(each['image']):
                        (target / f'{Path(each["image"]).stem}_{vendor}.png').write_bytes(picture)
                        counts[split] += 1
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('packages', nargs='+', type=Path, metavar='PACKAGE')
    parser.add_argument('root', type=Path, help='folder to write')
    args = parser.parse_args()
    if args.root.exists():
        parser.error(f'{args.root} exists; name another folder')
    counts = write_emoji(args.packages, args.root)
    print(f'{args.root}: {counts["train"]} training and {counts["val"]} validation images')


if __name__ == '__main__':
    main()
