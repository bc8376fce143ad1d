"""The steps that read and resize, compared with those of mmpretrain and mmcv whose place they take."""

import io

import cv2
import mmpretrain
import numpy as np
import pytest
from mmcv import transforms as mmcv_transforms
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS, DefaultScope
from mmpretrain import ImageClassificationInferencer
from mmpretrain.datasets import transforms
from PIL import Image
from sklearn.datasets import load_sample_images
from tool_runs import ROOT, run_python

from mmrepvgg import LoadImageFromFile, RandomResizedCrop, ResizeEdge
from mmrepvgg.data.faster_steps import use_faster_steps, use_own_reading
from mmrepvgg.data.images import UnreadableImageError
from mmrepvgg.data.resizing import resize_like_pillow

# What rounding may change, in levels of 255.
TOLERANCE = {'bilinear': 1, 'bicubic': 2}
PHOTO = load_sample_images().images[0]  # (427, 640, 3), not writable


def assert_close(ours: np.ndarray, theirs: np.ndarray, interpolation: str = 'bilinear') -> None:
    assert ours.dtype == theirs.dtype == np.uint8
    difference = np.abs(ours.astype(int) - theirs)
    assert difference.max() <= TOLERANCE[interpolation], 'these are other pixels'
    assert difference.mean() < 0.1


class TestCrops:
    """``rand_crop_params`` is mmpretrain's own method; what it is given and what is done with it is tested."""

    @pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
    @pytest.mark.parametrize('shape', [(375, 500), (427, 640), (300, 60), (40, 427), (9, 7), (1, 1)])
    def test_the_same_random_numbers_give_the_same_crops(self, shape, interpolation):
        settings = dict(scale=(64, 48), backend='pillow', interpolation=interpolation)
        image = PHOTO[: shape[0], : shape[1]]
        for seed in range(20):
            images, following = [], []
            for kind in (RandomResizedCrop, transforms.RandomResizedCrop):
                np.random.seed(seed)
                results = kind(**settings)(dict(img=image.copy()))
                assert results['img_shape'] == (64, 48, 3)
                images.append(results['img'])
                following.append(np.random.random())
            assert following[0] == following[1]
            assert images[0].flags.c_contiguous
            assert_close(*images, interpolation)

    def test_another_crop_would_be_noticed(self):
        ours, theirs = (resize_like_pillow(PHOTO[top : top + 200, :200], (64, 64)) for top in (0, 1))
        with pytest.raises(AssertionError, match='these are other pixels'):
            assert_close(ours, theirs)

    @pytest.mark.parametrize(
        'settings', [dict(backend='cv2'), dict(interpolation='lanczos'), dict(crop_ratio_range=(0.5, 0.6))]
    )
    def test_other_settings_are_those_of_mmpretrain(self, settings):
        images = []
        for kind in (RandomResizedCrop, transforms.RandomResizedCrop):
            np.random.seed(0)
            images.append(kind(**{'scale': 32, 'backend': 'pillow', **settings})(dict(img=PHOTO))['img'])
        assert_close(*images)
        assert 'crop_ratio_range' in settings or np.array_equal(*images)

    @pytest.mark.parametrize('image', [PHOTO[:, :, 0], PHOTO[:, :, :1].repeat(4, 2), PHOTO[:, ::-1]])
    def test_other_arrays(self, image):
        images = []
        for kind in (RandomResizedCrop, transforms.RandomResizedCrop):
            np.random.seed(0)
            images.append(kind(scale=32, backend='pillow')(dict(img=image))['img'])
        assert images[0].shape == images[1].shape
        np.testing.assert_allclose(*images, atol=1)

    def test_cpus_without_fast_filters_have_exactly_the_same_pixels(self):
        code = """
import numpy as np
from mmpretrain import ImageClassificationInferencer
from mmpretrain.datasets import transforms
from sklearn.datasets import load_sample_images
from mmrepvgg.data import resizing
assert not resizing._HAS_FAST_FILTERS
for seed in range(5):
    images = []
    for kind in (resizing.RandomResizedCrop, transforms.RandomResizedCrop):
        np.random.seed(seed)
        images.append(kind(scale=64, backend='pillow')(dict(img=load_sample_images().images[0]))['img'])
    assert np.array_equal(*images)
"""
        done = run_python('-c', code, ATEN_CPU_CAPABILITY='default')
        assert done.returncode == 0, done.stderr

    def test_a_whole_pipeline(self, tmp_path):
        cv2.imwrite(str(tmp_path / 'photo.jpg'), PHOTO)
        steps = Config.fromfile(ROOT / 'configs/_base_/datasets/imagenet_bs32.py').train_pipeline
        packed = []
        for pipeline in (steps, [{**step, 'type': step['type'].removeprefix('mmrepvgg.')} for step in steps]):
            with DefaultScope.overwrite_default_scope('mmpretrain'):
                pipeline = Compose([TRANSFORMS.build(step) for step in pipeline])
            np.random.seed(1)
            packed.append(pipeline(dict(img_path=str(tmp_path / 'photo.jpg'), gt_label=3)))
        assert_close(*(sample['inputs'].numpy() for sample in packed))
        assert packed[0]['data_samples'].to_dict().keys() == packed[1]['data_samples'].to_dict().keys()


@pytest.mark.parametrize('settings', [dict(edge='short'), dict(edge='long'), dict(interpolation='bicubic')])
@pytest.mark.parametrize('shape', [(427, 640), (301, 200), (20, 30)])
def test_the_edge_of_test_images(settings, shape):
    image = PHOTO[: shape[0], : shape[1]]
    ours, theirs = (
        kind(scale=256, backend='pillow', **settings)(dict(img=image)) for kind in (ResizeEdge, transforms.ResizeEdge)
    )
    assert_close(ours.pop('img'), theirs.pop('img'), settings.get('interpolation', 'bilinear'))
    assert ours == theirs


def save(image: Image.Image, name: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def make_files() -> dict[str, bytes]:
    photo = Image.fromarray(PHOTO[:90, :120])
    turned = Image.Exif()
    turned[0x0112] = 6
    deep = PHOTO[:90, :120].astype(np.uint16) * 257
    return dict(
        colour=save(photo, 'JPEG'),
        cmyk=save(photo.convert('CMYK'), 'JPEG'),
        grey=save(photo.convert('L'), 'JPEG'),
        progressive=save(photo, 'JPEG', progressive=True),
        turned=save(photo, 'JPEG', exif=turned),
        palette=save(photo.convert('P'), 'PNG'),
        alpha=save(photo.convert('RGBA'), 'PNG'),
        grey_alpha=save(photo.convert('LA'), 'PNG'),
        deep=cv2.imencode('.png', deep)[1].tobytes(),
        deep_grey=cv2.imencode('.png', deep[:, :, 0])[1].tobytes(),
        webp=save(photo, 'WEBP'),
        # OpenCV reads none of these
        float=save(photo.convert('F'), 'TIFF'),
        tga=save(photo, 'TGA'),
        pcx=save(photo, 'PCX'),
    )


FILES = make_files()


class TestReading:
    @pytest.mark.parametrize('name', FILES)
    def test_every_image_that_could_be_read(self, name, tmp_path):
        (tmp_path / name).write_bytes(FILES[name])
        image = LoadImageFromFile()(dict(img_path=str(tmp_path / name)))
        backend = 'pillow' if name in ('float', 'tga', 'pcx') else 'cv2'
        theirs = mmcv_transforms.LoadImageFromFile(imdecode_backend=backend)(dict(img_path=str(tmp_path / name)))
        assert np.array_equal(image.pop('img'), theirs.pop('img'))
        assert image == theirs
        assert image['img_shape'] == ((120, 90) if name == 'turned' else (90, 120))
        assert RandomResizedCrop(32)(dict(img=np.zeros((90, 120, 3), np.uint8)))['img'].shape == (32, 32, 3)

    @pytest.mark.parametrize(
        ('content', 'reason'),
        [
            (None, 'No such file or directory'),
            (b'', 'the file is empty, or no image of a known format'),
            (b'<html>not found</html>', 'the file is empty, or no image of a known format'),
            (FILES['colour'][: len(FILES['colour']) // 2], 'OSError: .*[Tt]runcated'),
            (FILES['alpha'][: len(FILES['alpha']) // 2], 'OSError: .*[Tt]runcated'),
        ],
    )
    def test_a_damaged_one_is_named(self, content, reason, tmp_path):
        path = tmp_path / 'photo.jpg'
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UnreadableImageError, match=f'^{path} can not be read: {reason}.*; repair') as error:
            LoadImageFromFile()(dict(img_path=str(path)))
        assert str(path) not in error.value.reason
        with pytest.raises((OSError, AssertionError, cv2.error), match=r'No such file|!buf\.empty|failed to load'):
            mmcv_transforms.LoadImageFromFile()(dict(img_path=str(path)))


class TestOtherConfigs:
    """Configs that name mmpretrain's steps are trained with the faster ones."""

    def test_one_that_inherits_from_mmpretrain(self):
        folder = f'{mmpretrain.__path__[0]}/.mim/configs/_base_/datasets'
        cfg = Config.fromfile(f'{folder}/imagenet_bs64_pil_resize_autoaug.py')
        before = cfg.train_dataloader.dataset.pipeline.copy()
        assert use_faster_steps(cfg) == ['RandomResizedCrop']
        pipeline = cfg.train_dataloader.dataset.pipeline
        assert [step.type for step in pipeline[:3]] == [
            'LoadImageFromFile', 'mmrepvgg.RandomResizedCrop', 'RandomFlip',
        ]  # fmt: skip
        assert [{**step, 'type': None} for step in pipeline] == [{**step, 'type': None} for step in before]
        assert cfg.val_dataloader.dataset.pipeline[1].type == 'ResizeEdge'

    def test_classes_wrappers_and_nested_steps(self):
        # the list of a step's own steps is looked into, too
        nested = dict(type='RandomApply', prob=0.5, transforms=[dict(type='ResizeEdge', scale=64, backend='pillow')])
        steps = [dict(type=mmcv_transforms.LoadImageFromFile), nested]
        inner = dict(type='CustomDataset', pipeline=steps)
        dataset = dict(type='ConcatDataset', datasets=[dict(type='RepeatDataset', times=2, dataset=inner)])
        cfg = Config(dict(train_dataloader=dict(dataset=dataset)))
        assert use_faster_steps(cfg) == ['ResizeEdge']
        assert use_faster_steps(cfg) == []

    @pytest.mark.parametrize('step', [dict(type='RandomResizedCrop', scale=8), dict(type='RandomCrop', crop_size=8)])
    def test_other_steps_stay(self, step):
        cfg = Config(dict(train_dataloader=dict(dataset=dict(type='CustomDataset', pipeline=[step]))))
        assert use_faster_steps(cfg) == []
        assert cfg.train_dataloader.dataset.pipeline == [step]

    def test_all_images_are_read_by_the_step_that_names_damaged_ones(self):
        own = dict(type='mine.LoadImageFromFile')
        steps = [dict(type='LoadImageFromFile', color_type='color'), dict(type=mmcv_transforms.LoadImageFromFile), own]
        parts = [dict(type='CustomDataset', pipeline=steps), dict(type='CIFAR10')]
        loader = dict(dataset=dict(type='ConcatDataset', datasets=parts))
        cfg = Config(dict(train_dataloader=loader, val_dataloader=None, test_dataloader=loader))
        use_own_reading(cfg)
        for name in ('train_dataloader', 'test_dataloader'):
            assert cfg[name].dataset.datasets[0].pipeline == [
                dict(type='mmrepvgg.LoadImageFromFile', color_type='color'),
                dict(type='mmrepvgg.LoadImageFromFile'),
                own,
            ]

    def test_the_configs_serve_mmpretrains_inferencer(self):
        """It takes the reading step out of the pipeline, which it knows by mmcv's name."""
        cfg = Config.fromfile(ROOT / 'configs/_base_/datasets/imagenet_bs32.py')
        pipeline = ImageClassificationInferencer._init_pipeline(None, cfg)
        assert pipeline(dict(img=PHOTO, img_shape=(427, 640)))['inputs'].shape == (3, 224, 224)
