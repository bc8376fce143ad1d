"""The start on many images: how often the file system is asked about each, which takes long on network drives.

100,000 images of 10 folders were listed, and made a data set, in 3 s on a busy machine of 2 cores.
"""

import os
from collections import Counter

import pytest

from mmrepvgg import CustomDataset
from mmrepvgg.data.images import list_images
from mmrepvgg.data.relative_paths import list_relative
from mmrepvgg.handoff.listing import make_names
from mmrepvgg.prediction.pictures import PictureWriter

NUM_FOLDERS, NUM_IMAGES = 10, 1000


@pytest.fixture
def images(tmp_path):
    for folder in range(NUM_FOLDERS):
        (tmp_path / f'images/{folder}').mkdir(parents=True)
        for number in range(NUM_IMAGES // NUM_FOLDERS):
            (tmp_path / f'images/{folder}/{number:03d}.png').touch()
    return tmp_path / 'images'


@pytest.fixture
def calls(monkeypatch):
    """How often each function that asks the file system is called from here on."""
    counts: Counter[str] = Counter()

    def count(name):
        function = getattr(os, name)

        def counted(*args, **options):
            counts[name] += 1
            return function(*args, **options)

        monkeypatch.setattr(os, name, counted)

    for name in ('stat', 'lstat', 'scandir', 'listdir', 'open', 'readlink'):
        count(name)
    return counts


def test_lists_and_data_sets_look_at_folders_only(images, calls):
    assert len(list_images([images])) == NUM_IMAGES
    assert calls['scandir'] == NUM_FOLDERS + 1
    calls.clear()
    assert len(CustomDataset(data_root=str(images))) == NUM_IMAGES
    assert calls['scandir'] == NUM_FOLDERS + 1
    calls.clear()
    make_names([str(image) for image, _ in list_images([images])])
    assert calls.total() < 5 * NUM_FOLDERS


def test_pictures_look_once_at_each_image_and_each_copy(images, tmp_path, calls):
    found = list_images([images])
    calls.clear()
    PictureWriter(tmp_path / 'shown', found)
    assert calls.total() < 2.5 * NUM_IMAGES
    # all copies are there: of an earlier run
    for target in PictureWriter(tmp_path / 'shown', found).targets:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    calls.clear()
    PictureWriter(tmp_path / 'shown', found)
    assert calls.total() < 2.5 * NUM_IMAGES


@pytest.mark.parametrize(
    ('paths', 'relative'),
    [
        (['a/b/x.png', 'a/b/c/y.png'], ['x.png', 'c/y.png']),
        (['a/x.png', 'b/y.png'], ['a/x.png', 'b/y.png']),
        (['/a/x.png'], ['x.png']),
        (['/x.png', '/a/y.png'], ['x.png', 'a/y.png']),
        (['./a/x.png', './a/y.png'], ['x.png', 'y.png']),
        (['a/../b/x.png', 'a/c/x.png'], ['../b/x.png', 'c/x.png']),
        ([], []),
    ],
)
def test_paths_relative_to_the_folder_of_all(paths, relative):
    assert list_relative(paths) == relative
