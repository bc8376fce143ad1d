"""mmpretrain's data sets of class folders, in which nothing that looks like an image is left out in silence."""

import os
from collections.abc import Sequence
from typing import Any

from mmengine.logging import print_log
from mmpretrain import datasets

from .folders import IMAGE_SUFFIXES, find_images, list_class_folders
from .layout import DataError


class FoundImages(datasets.CustomDataset):
    """Finds the images of a folder for mmpretrain's ``CustomDataset`` and its subclasses."""

    @property
    def img_prefix(self) -> str:
        # of a data_root that is a Path, the onedl forks make a Path
        return os.fspath(super().img_prefix)

    def _find_samples(self) -> list[Any]:
        if '://' in self.img_prefix:  # not on a disk
            return super()._find_samples()
        suffixes = ', '.join(sorted(self.extensions))
        if not self.with_label:
            if not (images := find_images(self.img_prefix, self.extensions)):
                raise DataError(f'{self.img_prefix} holds no image ({suffixes})')
            return images
        classes = list_class_folders(self.img_prefix)
        self.folder_to_idx = {name: number for number, name in enumerate(classes)}
        if self.CLASSES is None:
            self._metainfo['classes'] = tuple(classes)
        elif len(self.CLASSES) != len(classes):
            raise DataError(
                f'{self.img_prefix} has {len(classes)} class folders ({", ".join(classes[:3])}, ...), and the config '
                f'names {len(self.CLASSES)} classes; leave out metainfo=dict(classes=[...]) of the data set, or give a '
                'name for each folder'
            )
        found = {name: find_images(os.path.join(self.img_prefix, name), self.extensions) for name in classes}
        if not any(found.values()):
            raise DataError(f'the class folders of {self.img_prefix} hold no image ({suffixes})')
        if empty := [name for name, images in found.items() if not images]:
            print_log(
                f'{len(empty)} class folders of {self.img_prefix} hold no image ({suffixes}): '
                f'{", ".join(empty[:5])}{", ..." if len(empty) > 5 else ""}',
                'current',
                level=30,
            )
        return [
            (os.path.join(name, image), self.folder_to_idx[name]) for name, images in found.items() for image in images
        ]


class CustomDataset(FoundImages):
    """mmpretrain's ``CustomDataset`` with the same arguments.

    Images are files with any suffix of an image, not only with the seven that mmpretrain knows, unless ``extensions``
    says which. Links that lead nowhere, and folders that are named like images, are images that can't be read. Folders
    whose names begin with a dot are no classes.

    Args:
        data_root: As mmpretrain's.
        data_prefix: As mmpretrain's.
        split: Subfolder, for configs of ``ImageNet``, if there is no ``data_prefix``.
        extensions: Endings of the names of images.
        **options: Other arguments of mmpretrain's class.
    """

    def __init__(
        self,
        data_root: str = '',
        data_prefix: str | dict = '',
        *,
        split: str = '',
        extensions: Sequence[str] = IMAGE_SUFFIXES,
        **options: Any,
    ):
        super().__init__(data_root=data_root, data_prefix=data_prefix or split, extensions=extensions, **options)
