"""Trainings with random crops, flips, mixup, momentum and EMA are the same bit by bit, interrupted or not.

The processes are killed for good. tests/configs/digits_tiny.py has three epochs of three steps.
"""

import copy
import pickle
import random
import signal

import numpy as np
import pytest
import torch
from forked_trainings import TINY, Server, hash_state, strike
from tiny_runner import NoiseDataset
from torch.utils.data import DataLoader

from mmrepvgg.engine.seeding import SeededImages, seed_batches

ONE_WORKER, NO_WORKER = ('train_dataloader.num_workers=' + number for number in '10')
BY_ITERATIONS = f"""
_base_ = {str(TINY)!r}
train_cfg = dict(by_epoch=False, max_iters=9, val_interval=9, _delete_=True)
train_dataloader = dict(sampler=dict(type='InfiniteSampler'))
param_scheduler = dict(by_epoch=False, convert_to_iter_based=False)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=3))
"""


@pytest.fixture(scope='module')
def server():
    with Server() as server:
        yield server


@pytest.fixture(scope='module')
def folder(digit_images, tmp_path_factory):
    folder = tmp_path_factory.mktemp('reproducible')
    (folder / 'data').symlink_to(digit_images.parent)
    return folder


@pytest.fixture(scope='module')
def expected(server, folder):
    """The state after the three epochs of a training that nothing interrupts."""
    assert server.run(TINY, '--work-dir', 'whole', cwd=folder)[0] == 0
    return hash_state(folder / 'whole/epoch_3.pth')


def test_two_trainings_are_the_same_with_any_number_of_workers(server, folder, expected):
    assert server.run(TINY, '--work-dir', 'again', '--cfg-options', ONE_WORKER, cwd=folder)[0] == 0
    assert hash_state(folder / 'again/epoch_3.pth') == expected
    assert server.run(TINY, '--work-dir', 'other', '--cfg-options', 'randomness.seed=1', cwd=folder)[0] == 0
    assert hash_state(folder / 'other/epoch_3.pth') != expected


@pytest.mark.parametrize('iteration', [4, pytest.param(8, marks=pytest.mark.deep)])
def test_killed_after_an_epoch(server, folder, expected, iteration):
    name = f'killed_{iteration}'
    options = strike(iteration, signal.SIGKILL)
    assert server.run(TINY, '--work-dir', name, '--cfg-options', *options, cwd=folder)[0] == -signal.SIGKILL
    status, output = server.run(TINY, '--work-dir', name, '--resume', cwd=folder)
    assert status == 0, output
    assert f'resumed epoch: {iteration // 3}, iter: {iteration // 3 * 3}' in output
    assert hash_state(folder / name / 'epoch_3.pth') == expected


def test_stopped_within_an_epoch(server, folder, expected):
    options = strike(5, signal.SIGHUP)
    status, output = server.run(TINY, '--work-dir', 'stopped', '--cfg-options', *options, cwd=folder)
    assert status == 128 + signal.SIGHUP, output
    # the images of the first two batches are not read again, whoever reads those of the last one
    status, output = server.run(TINY, '--work-dir', 'stopped', '--resume', '--cfg-options', NO_WORKER, cwd=folder)
    assert status == 0, output
    assert 'resumed epoch: 1, iter: 5' in output
    assert 'Epoch(train) [2][3/3]' in output
    assert 'Epoch(train) [2][1/3]' not in output
    assert hash_state(folder / 'stopped/epoch_3.pth') == expected
    assert not (folder / 'stopped/interrupted.pth').exists()


def test_a_training_by_iterations(server, folder):
    (folder / 'config.py').write_text(BY_ITERATIONS)
    assert server.run('config.py', '--work-dir', 'iterations', cwd=folder)[0] == 0
    options = strike(5, signal.SIGKILL)
    assert server.run('config.py', '--work-dir', 'cut', '--cfg-options', *options, cwd=folder)[0] == -signal.SIGKILL
    status, output = server.run('config.py', '--work-dir', 'cut', '--resume', cwd=folder)
    assert status == 0, output
    assert 'resumed epoch: 0, iter: 3' in output
    assert hash_state(folder / 'cut/iter_9.pth') == hash_state(folder / 'iterations/iter_9.pth')


def test_a_training_without_a_seed_goes_on_with_the_one_it_drew(server, folder):
    options = ['randomness.seed=None', 'train_cfg.max_epochs=2']
    assert server.run(TINY, '--work-dir', 'drawn', '--cfg-options', *options, cwd=folder)[0] == 0
    (folder / 'drawn_again').mkdir()
    (folder / 'drawn/epoch_1.pth').rename(folder / 'drawn_again/epoch_1.pth')
    assert server.run(TINY, '--work-dir', 'drawn_again', '--resume', '--cfg-options', *options, cwd=folder)[0] == 0
    assert hash_state(folder / 'drawn_again/epoch_2.pth') == hash_state(folder / 'drawn/epoch_2.pth')


class Draws(NoiseDataset):
    """Gives what each generator draws for an image."""

    pipeline = 'first'

    def __getitem__(self, index):
        return random.random(), np.random.rand(), torch.rand(()).item()


class SkippingSampler(list):
    """As the infinite sampler of newer versions of mmengine."""

    def __init__(self):
        super().__init__(range(32))

    def skip(self, num_images):
        del self[:num_images]


class TestBatches:
    def read(self, num_workers, persistent=False, skip=0):
        loader = DataLoader(Draws(), batch_size=8, num_workers=num_workers, persistent_workers=persistent)
        batches = seed_batches(loader, seed=0)
        batches.iteration = batches.skip = skip
        return [
            [image for batch in loader for image in zip(*map(torch.Tensor.tolist, batch), strict=True)] for _ in '12'
        ]

    def test_every_image_has_its_own_numbers(self):
        images = [image for epoch in self.read(0) for image in epoch]
        assert len(images) == 64
        for numbers in zip(*images, strict=True):
            assert len(set(numbers)) == 64

    def test_the_process_that_reads_makes_no_difference(self):
        expected = self.read(0)
        assert self.read(2) == self.read(3, persistent=True) == expected

    def test_what_was_seen_is_left_out_once(self):
        first, second = self.read(2, skip=3)
        expected = self.read(2)
        assert (first, len(second)) == (expected[0][24:], 32)
        assert second == expected[1]

    def test_a_sampler_that_skips_images_itself(self):
        expected = self.read(0)
        loader = DataLoader(Draws(), batch_size=8, sampler=SkippingSampler())
        seed_batches(loader, seed=0)
        loader.sampler.skip(16)
        assert [image for batch in loader for image in zip(*map(torch.Tensor.tolist, batch), strict=True)] == (
            expected[0][16:]
        )

    def test_the_main_process_draws_as_if_it_read_nothing(self):
        torch.manual_seed(7)
        expected = torch.rand(3)
        torch.manual_seed(7)
        loader = DataLoader(Draws(), batch_size=8)
        seed_batches(loader, seed=0)
        torch.manual_seed(7)
        loader.dataset.__getitems__(next(iter(loader.batch_sampler)))
        assert torch.equal(torch.rand(3), expected)

    def test_attributes_are_those_of_the_data_set(self):
        images = SeededImages(Draws())
        images.pipeline = 'second'  # as hooks that change the augmentation do
        assert images.pipeline == images._dataset.pipeline == 'second'
        assert not hasattr(images, 'nothing')
        for other in (copy.deepcopy(images), pickle.loads(pickle.dumps(images))):  # as for workers that are spawned
            assert type(other) is SeededImages
            assert other.pipeline == 'second'
        assert len(images) == 32
