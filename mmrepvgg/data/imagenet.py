"""ImageNet-1k and its subsets."""

from typing import Any

from mmengine.logging import print_log
from mmpretrain.datasets import ImageNet as FullImageNet

from .class_folders import FoundImages
from .folders import IMAGE_SUFFIXES, list_class_folders


class ImageNet(FoundImages, FullImageNet):
    """mmpretrain's ``ImageNet`` that also takes a folder of fewer (or other) classes.

    If there are the 1000 class folders of ImageNet-1k, the classes have ImageNet's names. Otherwise they are named
    after their folders. Layout: ``data_root/{train,val}/<class>/<image>``, or flat folders with
    ``data_root/meta/{train,val}.txt``. Images are found as :class:`~mmrepvgg.data.class_folders.CustomDataset` does.
    """

    IMG_EXTENSIONS = IMAGE_SUFFIXES

    def _find_samples(self) -> list[Any]:
        names = self.METAINFO['classes']
        if self.with_label and '://' not in self.img_prefix and names == self.CLASSES:
            num_folders = len(list_class_folders(self.img_prefix))
            if num_folders != len(names):
                print_log(
                    f'{self.img_prefix} has {num_folders} class folders, not the 1000 of ImageNet-1k: '
                    'the classes are named after their folders',
                    logger='current',
                )
                self._metainfo['classes'] = None
        return super()._find_samples()
