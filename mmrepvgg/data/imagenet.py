"""ImageNet-1k and its subsets."""

import os

from mmengine.logging import print_log
from mmpretrain.datasets import ImageNet as FullImageNet


class ImageNet(FullImageNet):
    """mmpretrain's ``ImageNet`` that also takes a folder of fewer (or other) classes.

    If there are the 1000 class folders of ImageNet-1k, the classes have ImageNet's names. Otherwise they are named
    after their folders. Layout: ``data_root/{train,val}/<class>/<image>``, or flat folders with
    ``data_root/meta/{train,val}.txt``.
    """

    def _find_samples(self):
        with os.scandir(self.img_prefix) as entries:
            num_folders = sum(entry.is_dir() for entry in entries)
        names = self.METAINFO['classes']
        if num_folders != len(names) and names == self.CLASSES:
            print_log(
                f'{self.img_prefix} has {num_folders} class folders, not the 1000 of ImageNet-1k: '
                'the classes are named after their folders',
                logger='current',
            )
            self._metainfo['classes'] = None
        return super()._find_samples()
