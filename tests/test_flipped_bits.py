"""One flipped bit in an exported file, of every format that is written here: it is found, or the file says the same."""

import random
import shutil

import pytest
import torch
from file_kinds import RUNNABLE, list_files

from mmrepvgg.runtimes.loading import load_exported

# Of each format. A runtime that gets a damaged file may end the process, so the weights are the fewest that there are.
FLIPS, MANY_FLIPS = 9, 500
IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def flip(path, generator):
    """Flip one bit of one of the files that belong to ``path``; all bytes are as likely."""
    files = sorted(list_files(path))
    place = generator.randrange(sum(file.stat().st_size for file in files))
    for file in files:
        size = file.stat().st_size
        if place < size:
            with file.open('r+b') as stream:
                stream.seek(place)
                (byte,) = stream.read(1)
                stream.seek(place)
                stream.write(bytes([byte ^ 1 << generator.randrange(8)]))
            return
        place -= size


def find_flips(cfg, export_once, suffix, folder, number):
    """Flip ``number`` bits one by one; how many were found. All others left the same outputs and metadata."""
    source = export_once(cfg, suffix)[1]
    whole = load_exported(source)
    expected, metadata = whole(IMAGES), whole.metadata
    generator = random.Random(0)
    path = folder / source.name
    errors = []
    for _ in range(number):
        for file in list_files(source):
            shutil.copyfile(file, folder / file.name)
        flip(path, generator)
        try:
            damaged = load_exported(path)
        except ValueError as error:
            errors.append(str(error))
        else:
            assert damaged.metadata == metadata
            assert torch.equal(damaged(IMAGES), expected)
    assert all(path.stem in error for error in errors)
    return len(errors)


@pytest.mark.parametrize('suffix', RUNNABLE)
def test_a_flipped_bit_is_found(small_cfg, export_once, suffix, tmp_path):
    # the headers of ZIP archives have dates, and room between their members
    at_least = FLIPS * 2 // 3 if suffix in ('.pt2', '.ts', '.torchscript') else FLIPS
    assert find_flips(small_cfg, export_once, suffix, tmp_path, FLIPS) >= at_least


@pytest.mark.deep
@pytest.mark.parametrize('suffix', RUNNABLE)
def test_many_flipped_bits_are_found(small_cfg, export_once, suffix, tmp_path):
    print(suffix, find_flips(small_cfg, export_once, suffix, tmp_path, MANY_FLIPS), 'of', MANY_FLIPS)
