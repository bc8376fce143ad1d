"""Checkpoints of every format, cut and with flipped bits: the reader's own error, or what the whole file says."""

import random
from pathlib import Path

import pytest
import torch

from mmrepvgg.checkpoints.convert import convert_checkpoint, read_translated
from mmrepvgg.checkpoints.reading import CheckpointError

FIXTURES = Path(__file__).parent / 'fixtures'
# Name of a file, and whether its format has checksums or a hash. In the others damage of the numbers can't be seen.
FILES = {
    'new.pth': True,
    'ours.safetensors': True,
    'old.pth': False,
    'mindcv_train.ckpt': False,
    'paddle_train.pdparams': False,
}
NUMBER, MANY = 10, 500


@pytest.fixture
def whole(request, tmp_path):
    """The content of a file, and the weights in it."""
    name = request.param
    path = FIXTURES / name
    if not path.exists():
        path = tmp_path / name
        if path.suffix == '.safetensors':
            convert_checkpoint(FIXTURES / 'mindcv_train.ckpt', path)
        else:
            weights = read_translated(FIXTURES / 'mindcv_train.ckpt').weights
            torch.save(dict(state_dict=weights), path, _use_new_zipfile_serialization=name != 'old.pth')
    return name, path.read_bytes(), read_translated(path).weights


def check(path, content, expected, has_checksum):
    """Read a damaged file; whether the damage was found."""
    path.write_bytes(content)
    try:
        weights = read_translated(path).weights
    except CheckpointError:
        return True
    same = weights.keys() == expected.keys() and all(
        torch.equal(value, expected[key]) and value.dtype == expected[key].dtype for key, value in weights.items()
    )
    assert same or not has_checksum
    return False


def damage(whole, folder, number):
    name, content, expected = whole
    path = folder / f'damaged_{name}'
    for i in range(number * 2 // 5):
        length = len(content) * i // (number * 2 // 5)
        assert check(path, content[:length], expected, True), f'{length} bytes of {name}'
    found = 0
    for place in random.Random(0).choices(range(len(content)), k=number):
        flipped = content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :]
        found += check(path, flipped, expected, FILES[name])
    print(f'{name}: {found} of {number} flipped bits were found')


@pytest.mark.parametrize('whole', FILES, indirect=True)
def test_cut_and_flipped_files(whole, tmp_path):
    damage(whole, tmp_path, NUMBER)


@pytest.mark.deep
@pytest.mark.parametrize('whole', FILES, indirect=True)
def test_many_cut_and_flipped_files(whole, tmp_path):
    damage(whole, tmp_path, MANY)
