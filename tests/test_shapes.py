"""The generated data for segmentation and detection."""

import json

import cv2
import numpy as np
import pytest

from examples.segmentation.shapes import CLASSES, draw_shapes, prepare_shapes


def test_masks_fit_the_images_and_name_the_shapes():
    generator = np.random.default_rng(0)
    areas = np.zeros(len(CLASSES))
    for _ in range(50):
        image, mask = draw_shapes(generator)
        assert image.shape == (64, 64, 3)
        assert image.dtype == mask.dtype == np.uint8
        for label in range(1, len(CLASSES)):
            # one colour a shape: what the mask claims is uniform, up to the noise
            if (mask == label).any():
                assert image[mask == label].std(0).max() < 15
        areas += np.bincount(mask.ravel(), minlength=len(CLASSES))
    assert len(areas) == 4
    # background most, then the disc, the square in it, the triangle in that
    assert areas[0] > areas[1] > areas[2] > areas[3] > 0


def test_boxes_hold_what_is_visible_of_each_shape(tmp_path):
    prepare_shapes(tmp_path / 'shapes', num_train=4, num_val=1)
    boxes = json.loads((tmp_path / 'shapes/boxes/train.json').read_text())
    assert [image['file_name'] for image in boxes['images']] == [f'{index:04d}.jpg' for index in range(4)]
    assert [category['name'] for category in boxes['categories']] == list(CLASSES[1:])
    found = 0
    for image in boxes['images']:
        mask = cv2.imread(str(tmp_path / f'shapes/masks/train/{image["id"]:04d}.png'), cv2.IMREAD_UNCHANGED)
        annotations = [entry for entry in boxes['annotations'] if entry['image_id'] == image['id']]
        assert {entry['category_id'] for entry in annotations} == set(np.unique(mask)) - {0}
        for entry in annotations:
            left, top, width, height = entry['bbox']
            rows, columns = np.nonzero(mask == entry['category_id'])
            assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (
                left,
                top,
                left + width,
                top + height,
            )
            found += 1
    assert found == len(boxes['annotations']) >= 4


def test_files_are_whole_reproducible_and_left_alone(tmp_path):
    for name in ('first', 'second'):
        prepare_shapes(tmp_path / name, num_train=3, num_val=2)
    files = sorted(path.relative_to(tmp_path / 'first') for path in (tmp_path / 'first').rglob('*.*'))
    assert len(files) == 12
    assert all((tmp_path / 'first' / f).read_bytes() == (tmp_path / 'second' / f).read_bytes() for f in files)
    mask = cv2.imread(str(tmp_path / 'first/masks/train/0000.png'), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (64, 64)
    assert set(np.unique(mask)) <= {0, 1, 2, 3}

    prepare_shapes(tmp_path / 'first', num_train=3, num_val=2)
    (tmp_path / 'second/boxes/val.json').unlink()
    with pytest.raises(FileExistsError, match='or no boxes'):
        prepare_shapes(tmp_path / 'second', num_train=3, num_val=2)
    with pytest.raises(FileExistsError, match='is not the shapes data'):
        prepare_shapes(tmp_path / 'first', num_train=4, num_val=2)
