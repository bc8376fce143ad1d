"""The benchmark of training data."""

import json
from dataclasses import replace

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS
from mmpretrain.datasets import BaseDataset
from PIL import Image
from tool_runs import CONFIGS, SMALL, fail_here, succeed_here

from mmrepvgg import write_shards
from mmrepvgg.benchmark.data_photos import write_photos
from mmrepvgg.benchmark.data_pipelines import Part, name_plain_steps
from mmrepvgg.benchmark.data_report import give_verdict
from mmrepvgg.benchmark.data_run import DataReport, benchmark_data
from mmrepvgg.benchmark.data_workers import Loading, list_numbers
from mmrepvgg.data.wrappers import replace_reading
from mmrepvgg.measures.timing import Spread
from studies import jpeg_decoders

FEW = ['--workers', '1', '0', '--batch-size', '2', '--repeats', '2', '--seconds', '0.2']


def make_report(step: float, speeds: dict[int, float], gpu: str | None = 'a GPU', files: float = 9000) -> DataReport:
    return DataReport(
        source='images',
        parts=(Part('whole', 100, (1.0, 1.0)), Part('files', 100, (100 / files,))),
        loadings=tuple(Loading(number, speed) for number, speed in speeds.items()),
        step=Spread(step, step, step),
        batch_size=8,
        device='a GPU',
        machine=dict(gpu=gpu, cores=4),
        versions={},
    )


class TestVerdict:
    @pytest.mark.parametrize(
        ('step', 'verdict'),
        [
            (4, 'bound by compute: the step takes 4 img/s, and 0 worker(s) give 90'),
            # without workers the step waits for the images
            (50, 'bound by compute: the step takes 50 img/s, and 1 worker(s) give 100'),
            (90, 'bound by compute: the step takes 90 img/s, and 2 worker(s) give 190'),
            (350, 'bound by data: the step takes 350 img/s, and the fastest loader, with 4 worker(s), gives 360'),
            (1000, 'bound by data: the step takes 1000 img/s, and the fastest loader, with 4 worker(s), gives 360'),
        ],
    )
    def test_what_bounds_a_training(self, step, verdict):
        report = make_report(step, {0: 90, 1: 100, 2: 190, 4: 360})
        assert next(give_verdict(report)) == verdict

    def test_what_to_change(self):
        lines = list(give_verdict(make_report(1000, {0: 90, 4: 360}, files=200)))
        assert '- the pipeline needs 12.0 cores to keep up with this step, and this machine has 4' in lines
        assert any('the files themselves take 50% of the time' in line for line in lines)
        assert not any('files' in line for line in give_verdict(make_report(1000, {0: 90, 4: 360})))

    def test_on_a_cpu_the_workers_take_cores(self):
        lines = list(give_verdict(make_report(100, {0: 90, 4: 360}, gpu=None)))
        assert '- the step runs on the same cores as the workers, which take 30% of them' in lines


def test_numbers_of_workers():
    assert [list_numbers(cores) for cores in (1, 2, 6, 8)] == [[0, 1], [0, 1, 2], [0, 1, 2, 4, 6], [0, 1, 2, 4, 8]]


def test_the_ratio_is_of_rounds():
    part = Part('a', 10, (1.0, 2.0, 4.0), (3.0, 6.0, 4.0))
    assert part.ratio.median == 3
    assert part.speed == Spread(10 / 3, 5, 10 / 1.5)
    assert part.plain_speed.median == 2.5
    alone = replace(part, plain_seconds=())
    assert alone.ratio is alone.plain_speed is None


def test_the_steps_of_mmpretrain():
    cfg = Config.fromfile(CONFIGS / 'repvgg-a0_8xb32.py')
    pipeline = replace_reading(cfg.train_pipeline)
    plain = name_plain_steps(pipeline)
    assert [step['type'] for step in plain[:2]] == ['mmpretrain.LoadImageFromFile', 'mmpretrain.RandomResizedCrop']
    # mmpretrain's default is another one
    del pipeline[1]['backend']
    assert name_plain_steps(pipeline) == plain
    assert pipeline[1]['type'] == 'mmrepvgg.RandomResizedCrop'


def test_generated_images_are_the_same_each_time(tmp_path):
    for name in 'ab':
        write_photos(tmp_path / name)
    first, second = (sorted((tmp_path / name).rglob('*.jpg')) for name in 'ab')
    assert len(first) == 64
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert {Image.open(path).size for path in first} == {(500, 375)}


def test_images_of_the_config(digit_images, tmp_path):
    (tmp_path / 'data').symlink_to(digit_images.parent)
    output = succeed_here('benchmark-data', SMALL, *FEW, '--out', 'report.json', cwd=tmp_path)
    assert "images: the config's own training images" in output
    assert output.splitlines()[-1] == 'report.json: written'
    report = json.loads((tmp_path / 'report.json').read_text())
    assert [loading['num_workers'] for loading in report['loadings']] == [0, 1]
    assert all(loading['speed'] > 0 for loading in report['loadings'])
    assert [part['title'] for part in report['parts']] == [
        'training pipeline', 'test pipeline', 'files read and decoded', 'files read',
    ]  # fmt: skip
    assert [(len(part['seconds']), len(part['plain_seconds'])) for part in report['parts']] == [(2, 2)] * 2 + [
        (2, 0)
    ] * 2
    assert report['parts'][0]['ratio']['median'] > 0
    assert report['step']['median'] > 0
    assert report['verdict'][0].startswith('bound by ')
    assert {'torch', 'opencv-python'} <= set(report['versions'])


def test_images_that_are_not_there_are_generated(tmp_path):
    output = succeed_here('benchmark-data', CONFIGS / 'repvgg-a0_8xb32.py', *FEW, cwd=tmp_path)
    assert 'images: generated JPEGs of 500 x 375 pixels' in output
    assert 'data/imagenet/train does not exist)' in output
    assert not list(tmp_path.iterdir())


def test_a_damaged_image_is_named(tmp_path):
    (tmp_path / 'data/digits/train/0').mkdir(parents=True)
    (tmp_path / 'data/digits/train/0/1.png').touch()
    line = fail_here('benchmark-data', SMALL, *FEW, cwd=tmp_path)
    assert 'data/digits/train/0/1.png can not be read: the file is empty' in line


def test_the_study_of_decoders():
    lines = jpeg_decoders.main(((40, 30), (700, 500)), repeats=1).splitlines()
    assert lines[0].endswith(' 40 x 30 | 700 x 500 |')
    names = [line.split('|')[1].strip() for line in lines[2:]]
    assert names[:3] == ['OpenCV', 'Pillow', 'torchvision']
    assert names[-2:] == ['OpenCV, 1/2', 'OpenCV, 1/4']


def test_images_in_shards(digit_images, tmp_path):
    cfg = Config.fromfile(SMALL)
    cfg.train_dataloader.dataset.update(data_root=str(digit_images), indices=20)
    write_shards(cfg, tmp_path / 'shards', ['train'])
    options = ['train_dataloader.dataset.type=mmrepvgg.ShardedImages', 'train_dataloader.dataset.data_root=shards']
    output = succeed_here('benchmark-data', SMALL, *FEW, '--cfg-options', *options, cwd=tmp_path)
    assert "images: the config's own training images" in output


def test_data_without_files_are_an_error():
    cfg = Config.fromfile(SMALL)
    cfg.train_dataloader.dataset = dict(type='Arrays', ann_file='', pipeline=cfg.train_pipeline)
    with DATASETS.switch_scope_and_registry('mmpretrain') as registry:
        registry.register_module('Arrays', module=Arrays, force=True)
        with pytest.raises(ValueError, match='^the training data must be image files, got Arrays, which has none$'):
            benchmark_data(cfg)


class Arrays(BaseDataset):
    """Images that are in memory, as those of CIFAR10 are."""

    def load_data_list(self) -> list[dict]:
        return [dict(img=np.zeros((8, 8, 3), np.uint8), gt_label=0)]
