"""ExecuTorch's files: what XNNPACK computes, batches and sizes, threads, damage, and the versions that fit."""

import copy
import math
import os
import sys
from dataclasses import replace

import pytest
import torch
from int8_source import METADATA
from small_classifier import SMALL_CLASSIFIER
from tool_runs import run_python

from mmrepvgg import build_classifier, reparameterize
from mmrepvgg.checkpoints.reading import CheckpointError
from mmrepvgg.checkpoints.seals import OPEN_SEAL, close_seal
from mmrepvgg.runtimes.executorch import EXECUTORCH
from mmrepvgg.runtimes.executorch_core import catching_log
from mmrepvgg.runtimes.executorch_files import MAX_BATCH
from mmrepvgg.runtimes.executorch_program import Threads
from mmrepvgg.runtimes.format import MissingPackageError
from mmrepvgg.runtimes.loading import load_exported

FP32 = replace(METADATA, precision='fp32')
GROUPS = dict(num_blocks=[2, 1], width_factor=[1, 1], group_layer_map={2: 2})


@pytest.fixture(scope='module')
def model(randomise):
    """The deploy form of a classifier with SE layers, whose last feature map has 1 pixel for 32x32 images."""
    torch.manual_seed(0)
    return reparameterize(randomise(build_classifier(SMALL_CLASSIFIER)).eval())


@pytest.fixture(scope='module')
def path(model, tmp_path_factory):
    return write(model, tmp_path_factory.mktemp('pte') / 'net.pte')


def write(model, path, **changes):
    EXECUTORCH.write(copy.deepcopy(model), path, replace(FP32, **changes))
    return path


def list_operators(path):
    """The operators of a program that XNNPACK does not compute."""
    from executorch.exir._serialize._program import deserialize_pte_binary

    plan = deserialize_pte_binary(path.read_bytes()).program.execution_plan[0]
    assert {delegate.id for delegate in plan.delegates} == {'XnnpackBackend'}
    return {operator.name for operator in plan.operators}


@torch.no_grad()
def measure(exported, model, shape):
    """The largest difference, relative to the largest score."""
    x = torch.randn(shape)
    expected = model(x)
    return ((exported(x) - expected).abs().max() / expected.abs().max()).item()


class TestDelegation:
    # what is left reads and changes shapes only
    SHAPES = {'aten::sym_size', 'executorch_prim::et_view'}

    def test_xnnpack_computes_all(self, path):
        assert list_operators(path) <= self.SHAPES

    @pytest.mark.parametrize('precision', ['fp32', 'fp16'])
    def test_groups_strides_and_softmax(self, randomise, tmp_path, precision):
        backbone = dict(
            type='mmrepvgg.RepVGG', arch=GROUPS, base_channels=8, strides=(2, 2), dilations=(1, 1), out_indices=(1,)
        )
        model = build_classifier(
            dict(type='ImageClassifier', backbone=backbone, neck=dict(type='GlobalAveragePooling'),
                 head=dict(type='LinearClsHead', num_classes=10))
        )  # fmt: skip
        model = reparameterize(randomise(model).eval())
        path = write(model, tmp_path / 'net.pte', precision=precision, softmax=True)
        casts = {'dim_order_ops::_to_dim_order_copy'} if precision == 'fp16' else set()
        assert list_operators(path) <= self.SHAPES | casts
        exported = load_exported(path)
        assert exported.computes_in == precision
        x = torch.randn(3, 3, 32, 32)
        with torch.no_grad():
            expected = model(x).softmax(1)
        tolerance = 1e-5 if precision == 'fp32' else 5e-3
        torch.testing.assert_close(exported(x), expected, rtol=0, atol=tolerance)

    def test_preprocessing_is_the_only_other_computation(self, model, tmp_path):
        path = write(model, tmp_path / 'net.pte', with_preprocess=True, mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0))
        preprocessing = {'aten::flip', 'dim_order_ops::_to_dim_order_copy'}
        assert list_operators(path) - self.SHAPES == preprocessing


class TestBatches:
    def test_any_number_of_images(self, path, model):
        exported = load_exported(path)
        for num in (1, 3, MAX_BATCH, 2 * MAX_BATCH + 1, 2):
            assert measure(exported, model, (num, 3, 32, 32)) < 1e-5
        assert exported(torch.zeros(0, 3, 32, 32)).shape == (0, 10)

    def test_torch_does_not_limit_the_batch(self, path):
        """A convolution without stride would, if torch asked its backends whether they take it."""
        from executorch.runtime import Runtime

        with catching_log():
            method = Runtime.get().load_program(path.read_bytes()).load_method('forward')
        assert method.metadata.input_tensor_meta(0).sizes() == (MAX_BATCH, 3, 32, 32)

    def test_other_layouts_of_memory(self, path, model):
        exported = load_exported(path)
        x = torch.randn(4, 3, 64, 32)[:, :, ::2].to(memory_format=torch.channels_last)
        with torch.no_grad():
            expected = model(x)
        torch.testing.assert_close(exported(x), expected, rtol=0, atol=1e-5)


@pytest.fixture(scope='module')
def any_size(model, tmp_path_factory):
    return write(model, tmp_path_factory.mktemp('pte') / 'net.pte', dynamic_size=True)


class TestSizes:
    def test_a_map_that_had_one_pixel_grows(self, any_size, model):
        """XNNPACK goes on with the memory that it planned for one pixel, and gives wrong scores."""
        exported = load_exported(any_size)
        for shape in ((3, 3, 32, 32), (1, 3, 32, 64), (1, 3, 32, 32), (5, 3, 33, 70)):
            assert measure(exported, model, shape) < 1e-5

    def test_the_largest_image(self, any_size, model):
        exported = load_exported(any_size)
        assert measure(exported, model, (1, 3, 32, 2048)) < 1e-5
        with pytest.raises(ValueError, match=r'net\.pte takes images of at most 4194304 pixels, got \(8192, 1024\)'):
            exported(torch.zeros(1, 3, 1, 1).expand(1, 3, 8192, 1024))

    def test_one_batch_size(self, model, tmp_path):
        path = write(model, tmp_path / 'net.pte', dynamic_size=True, batch_size=2)
        exported = load_exported(path)
        assert measure(exported, model, (3, 3, 48, 40)) < 1e-5
        with pytest.raises(ValueError, match=r'takes images of at most 1048576 pixels, got \(4096, 512\)'):
            exported(torch.zeros(1, 3, 1, 1).expand(2, 3, 4096, 512))


class TestThreads:
    @pytest.fixture(autouse=True)
    def _put_back(self):
        from executorch.extension.pybindings import portable_lib

        before = portable_lib._threadpool_get_thread_count()
        yield
        Threads.set(before)

    def test_a_model_goes_on_after_their_number_has_changed(self, path, model):
        """It would end the process: its threads are gone."""
        from executorch.extension.pybindings import portable_lib

        models = [load_exported(path)]
        for num_threads in (1, 2, 1, 2, 2):
            models.append(load_exported(path, num_threads=num_threads))
            assert portable_lib._threadpool_get_thread_count() == num_threads
            for exported in models:
                assert measure(exported, model, (2, 3, 32, 32)) < 1e-5
        load_exported(path)
        assert portable_lib._threadpool_get_thread_count() == 2


class TestDamage:
    def test_a_file_that_was_cut(self, path, tmp_path):
        content, cut = path.read_bytes(), tmp_path / 'cut.pte'
        for part in (0, 1e-4, 0.001, 0.005, 0.01, 0.1, 0.5, 0.9, 0.99999):
            cut.write_bytes(content[: math.ceil(part * len(content))])
            with pytest.raises(CheckpointError, match=r'cut\.pte is (damaged or incomplete|no ExecuTorch program)'):
                load_exported(cut)

    def test_every_flipped_bit_is_found(self, path, tmp_path):
        content, flipped = path.read_bytes(), tmp_path / 'flipped.pte'
        places = torch.randint(len(content), (200,)).tolist() + list(range(40)) + [content.index(b'SHA-256 ') + 9]
        for place in places:
            changed = bytearray(content)
            changed[place] ^= 1 << place % 8
            flipped.write_bytes(changed)
            with pytest.raises((CheckpointError, ValueError), match=r'flipped\.pte (is|holds no metadata)'):
                load_exported(flipped)

    def test_what_has_a_right_hash_is_verified_by_the_runtime(self, path, tmp_path):
        content, crafted = path.read_bytes(), tmp_path / 'crafted.pte'
        start = content.index(b'SHA-256 ')
        changed = bytearray(content.replace(content[start : start + len(OPEN_SEAL)], OPEN_SEAL.encode()))
        changed[0:4] = (2**31).to_bytes(4, 'little')  # where the first table is
        crafted.write_bytes(close_seal(changed))
        with pytest.raises(CheckpointError, match=r'ExecuTorch can not load .*crafted\.pte: .*Verification failed'):
            load_exported(crafted)

    def test_a_program_of_others(self, tmp_path):
        from executorch.exir import to_edge

        program = to_edge(torch.export.export(torch.nn.ReLU(), (torch.zeros(1),))).to_executorch()
        (tmp_path / 'net.pte').write_bytes(program.buffer)
        with pytest.raises(ValueError, match=r'net\.pte holds no metadata of mmrepvgg'):
            load_exported(tmp_path / 'net.pte')


class TestSurroundings:
    def test_lines_of_others_are_not_lost(self, capfd):
        with catching_log() as lines:
            print('a word', file=sys.stderr)
            os.write(2, b'[threadpool.cpp:65] Resetting threadpool to 1 threads.\nanother\n')
        assert lines == ['[threadpool.cpp:65] Resetting threadpool to 1 threads.']
        assert sorted(capfd.readouterr().err.splitlines()) == ['a word', 'another']

    @pytest.mark.parametrize(
        ('package', 'version', 'got'),
        [('executorch', '1.5.1', 'executorch 1.5.1 with torch 2.'), ('torch', '2.13.0', 'with torch 2.13.0')],
    )
    def test_versions_that_do_not_fit(self, path, tmp_path, monkeypatch, package, version, got):
        folder = tmp_path / f'{package}-{version}.dist-info'
        folder.mkdir()
        (folder / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n')
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(
            MissingPackageError, match=rf'ExecuTorch files need executorch 1\.3 with torch 2\.12.* got .*{got}.*: pip'
        ):
            load_exported(path)

    def test_no_word_and_no_trace(self, small_cfg, small_source, tmp_path):
        """Nothing on stderr, no log handler, no program to be found by the path of the shell."""
        small_cfg.dump(tmp_path / 'config.py')
        code = (
            'import logging, sys\n'
            'from mmrepvgg.commands.main import main\n'
            'try:\n    main(sys.argv[1:])\n'
            'finally:\n    assert not logging.root.handlers\n'
        )
        arguments = ['export', 'config.py', small_source, 'net.pte', '--no-dynamic-batch']
        done = run_python('-c', code, *arguments, cwd=tmp_path, PATH='/nowhere')
        assert (done.returncode, done.stderr) == (0, '')
        assert {file.name for file in tmp_path.iterdir()} == {'config.py', 'net.pte'}
