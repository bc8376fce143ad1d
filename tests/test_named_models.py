"""Models of other projects by their names: as configs, and on the command line."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from mmengine.registry import DefaultScope
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.utils import reparameterize_model
from tool_runs import fail_here, run_command, run_python, succeed_here

from mmrepvgg.checkpoints.reading import CheckpointError, read_checkpoint
from mmrepvgg.checkpoints.safetensors_files import write_safetensors
from mmrepvgg.data.images import ImageReader
from mmrepvgg.data.layout import has_class_folders
from mmrepvgg.models.building import build_model
from mmrepvgg.reparam.checkpoint import reparameterize_checkpoint
from mmrepvgg.reparam.forms import build_form, load_model, warn_of_branches
from mmrepvgg.reparam.report import SwitchReport
from mmrepvgg.runtimes.loading import load_exported
from mmrepvgg.zoo.named_models import load_model_config

# timm's smallest network with RepVGG's blocks
NAME = 'test_byobnet'
MODEL = ('--model', f'timm:{NAME}')


@pytest.fixture(scope='module')
def trained(digit_images, made_once, randomise) -> Path:
    """A folder with ``data`` and ``model.pth``, weights of timm's network for ten classes, whose scores differ."""

    def fill(folder: Path) -> None:
        torch.manual_seed(0)
        model = randomise(timm.create_model(NAME, num_classes=10))
        torch.nn.init.normal_(model.head.fc.weight)
        torch.save(model.state_dict(), folder / 'model.pth')
        (folder / 'data').symlink_to(digit_images.parent)
        options = ('--report', 'report.json')
        succeed_here('reparameterize', *MODEL, '--checkpoint', 'model.pth', 'deploy.pth', *options, cwd=folder)

    return made_once('named', fill)


@pytest.fixture
def folder(trained, tmp_path) -> Path:
    for name in ('model.pth', 'deploy.pth', 'data'):
        (tmp_path / name).symlink_to(trained / name)
    return tmp_path


class TestConfigs:
    @pytest.mark.parametrize('name', [NAME, 'mobileone_s0', 'fastvit_t8', 'coatnet_rmlp_2_rw_384'])
    def test_images_are_read_as_timm_reads_them(self, name, tmp_path):
        cfg = load_model_config(f'timm:{name}')
        pixels = np.random.default_rng(0).integers(0, 256, (9, 13, 3), np.uint8)
        image = Image.fromarray(pixels).resize((401, 317), Image.Resampling.BICUBIC)
        image.save(tmp_path / 'x.png')
        expected = create_transform(**resolve_data_config({}, pretrained_cfg=timm.get_pretrained_cfg(name).to_dict()))
        preprocessor = cfg.data_preprocessor
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            pixels = ImageReader(cfg)(tmp_path / 'x.png')['inputs'].flip(0).float()
        mean, std = (torch.tensor(preprocessor[key])[:, None, None] for key in ('mean', 'std'))
        assert preprocessor.to_rgb
        actual, wanted = (pixels - mean) / std, expected(image)
        assert actual.shape == wanted.shape
        # resizing rounds to bytes, by a step or two otherwise than Pillow
        assert ((actual - wanted) * std / 255).abs().max() < 2.5 / 255
        assert (actual - wanted).abs().mean() < 0.01

    def test_the_checkpoint_tells_the_number_of_classes(self, folder):
        cfg = load_model_config(f'timm:{NAME}', checkpoint=folder / 'deploy.pth')
        assert cfg.model.num_classes == cfg.data_preprocessor.num_classes == 10
        assert load_model_config(f'timm:{NAME}', options=['model.drop_rate=0.1']).model.drop_rate == 0.1

    def test_a_model_of_mmpretrain(self, tmp_path, randomise):
        name = 'mmpretrain:mobileone-s0_8xb32_in1k'
        cfg = load_model_config(name, options=['model.head.num_classes=7'])
        cfg.model.backbone.arch = arch = dict(
            num_blocks=[1, 1, 1, 1], width_factor=[0.5, 0.25, 0.25, 2], num_conv_branches=[2] * 4, num_se_blocks=[1] * 4
        )
        torch.save(randomise(build_model(cfg, deploy=False)).state_dict(), tmp_path / 'a.pth')
        cfg = load_model_config(name, checkpoint=tmp_path / 'a.pth')
        assert cfg.model.head.num_classes == 7
        cfg.model.backbone.arch = arch
        result = reparameterize_checkpoint(cfg, tmp_path / 'a.pth', tmp_path / 'b.pth')
        assert result.difference < 1e-5
        assert result.deploy_params < 0.8 * result.train_params
        switched = load_model(cfg, read_checkpoint(tmp_path / 'b.pth'))
        assert switched.is_deploy_form
        assert not any('norm' in key for key in switched.model.backbone.state_dict())
        # memory without numbers yet may hold some that can't be fused
        empty = build_form(cfg, deploy=True)
        assert empty.state_dict().keys() == switched.model.state_dict().keys()
        assert not any(value.any() for value in empty.state_dict().values())

    @pytest.mark.parametrize(
        ('model', 'message'),
        [
            ('timm:mobilone_s0', r'timm has no model .mobilone_s0.; did you mean timm:mobileone_s0, '),
            ('timm:xxxxxxxxxxxx', r'timm has no model .xxxxxxxxxxxx.$'),
            ('mmpretrain:mobileone-s0', r'did you mean mmpretrain:mobileone-s0_8xb32_in1k, '),
            ('keras:vgg', r'`model` must be SYSTEM:NAME with a system of timm, mmpretrain, .* got .keras:vgg.'),
            ('timm:vit_small_patch14_dinov2', r'must be a classifier, and .* of timm gives features'),
            ('timm:deepseek_vit_412m', r'the crop mode .*must be square and the mode one of center, squash'),
        ],
    )
    def test_names_that_are_refused(self, model, message):
        with pytest.raises(ValueError, match=message):
            load_model_config(model)


class TestCheckpoints:
    def test_the_deploy_form_is_known_without_its_note(self, folder):
        cfg = load_model_config(f'timm:{NAME}', checkpoint=folder / 'deploy.pth')
        checkpoint = read_checkpoint(folder / 'deploy.pth')
        assert checkpoint.meta['mmrepvgg']['form'] == 'deploy'
        checkpoint.meta.clear()
        assert load_model(cfg, checkpoint).is_deploy_form

    def test_weights_of_another_model(self, folder):
        cfg = load_model_config('timm:repghostnet_050', checkpoint=folder / 'model.pth')
        with pytest.raises(CheckpointError, match='does not fit the model of the config: .* missing'):
            reparameterize_checkpoint(cfg, folder / 'model.pth', folder / 'x.pth')

    def test_weights_that_timm_has_switched(self, tmp_path):
        switched = reparameterize_model(timm.create_model('repvgg_a0', num_classes=2))
        torch.save(switched.state_dict(), tmp_path / 'x.pth')
        with pytest.raises(CheckpointError, match=r'was switched by timm itself \(it has stem\.reparam_conv\.weight\)'):
            load_model_config('timm:repvgg_a0', checkpoint=tmp_path / 'x.pth')

    def test_branches_that_are_left_are_said(self):
        report = SwitchReport((), {'a.b': 'it is curved'}, {}, {}, 0, (2, 2))
        with pytest.warns(UserWarning, match=r'1 sum.* are left: a\.b: it is curved\. .* all with `report`'):
            warn_of_branches(report)

    @pytest.mark.parametrize('wrapped', [False, True])
    def test_files_of_timm(self, wrapped, folder):
        weights = torch.load(folder / 'model.pth')
        if wrapped:
            torch.save(dict(state_dict_ema={f'module.{key}': value for key, value in weights.items()}), folder / 'x')
        else:
            write_safetensors(weights, folder / 'x.safetensors', {})
        name = 'x' if wrapped else 'x.safetensors'
        succeed_here('reparameterize', *MODEL, '--checkpoint', name, 'y.pth', cwd=folder)
        expected, actual = (read_checkpoint(folder / each).state_dict for each in ('deploy.pth', 'y.pth'))
        assert all(torch.equal(actual[key], value) for key, value in expected.items())
        if not wrapped:
            predicted = succeed_here('predict', *MODEL, '--checkpoint', name, 'data/digits/val/7', cwd=folder)
            assert predicted == succeed_here(
                'predict', *MODEL, '--checkpoint', 'model.pth', 'data/digits/val/7', cwd=folder
            )

    def test_a_deploy_form_is_not_switched_again(self, folder):
        line = fail_here('reparameterize', *MODEL, '--checkpoint', 'deploy.pth', 'x.pth', cwd=folder)
        assert 'deploy.pth is in deploy form already' in line
        assert line.endswith('with --equalize')


class TestCommands:
    def test_the_report_of_the_switch(self, trained):
        report = json.loads((trained / 'report.json').read_text())
        assert report['num_branches_left'] == report['num_norms_left'] == 0
        assert 'stages.0.0.conv2_1x1.bn' in ' '.join(layer for each in report['fused'] for layer in each['layers'])
        assert 0 < report['difference'] < 1e-5

    def test_both_forms_and_their_files_agree(self, folder):
        export = ('export', *MODEL, '--checkpoint', 'model.pth', 'train.onnx', '--with-preprocess')
        assert 'train form, switched to deploy form' in succeed_here(*export, cwd=folder)
        metadata = load_exported(folder / 'train.onnx').metadata
        assert (metadata.arch, metadata.num_classes, metadata.input_size) == (f'timm:{NAME}', 10, (160, 160))
        assert metadata.pipeline[1]['scale'] == 168
        assert metadata.to_rgb

        for number in range(10):
            (folder / f'few/{number}').mkdir(parents=True)
            for image in sorted((folder / f'data/digits/val/{number}').iterdir())[:3]:
                (folder / f'few/{number}' / image.name).symlink_to(image)
        scores = {}
        for file in ('model.pth', 'deploy.pth', 'train.onnx'):
            out = f'{file}.json'
            data = ('--data', 'few', '--out', out)
            succeed_here('test', *MODEL, '--checkpoint', file, *data, '--metrics', 'accuracy', cwd=folder)
            scores[file] = json.loads((folder / out).read_text())['metrics']
        assert len({json.dumps(each) for each in scores.values()}) == 1
        assert 'accuracy/top1' in scores['model.pth']

    def test_flops_are_the_published_ones(self, tmp_path):
        """Those of RepVGG-A0, as in test_complexity.py."""
        train, deploy = succeed_here('flops', '--model', 'timm:repvgg_a0', cwd=tmp_path).split('deploy form')
        totals = [re.search(r'\| total +\| +([\d,]+) \| ([\d.]+) \|', table).groups() for table in (train, deploy)]
        assert totals == [('9,108,968', '1.513'), ('8,309,384', '1.361')]
        assert '| model.stages ' in train

    def test_quantize(self, folder):
        command = ('quantize', *MODEL, '--checkpoint', 'deploy.pth', '--no-adaptive-rounding', '--num-samples', 32)
        tested = ('--data', 'data/digits', '--eval-samples', 40)
        printed = succeed_here(*command, 'a.onnx', *tested, cwd=folder)
        assert 'on 32 calibration images' in printed
        assert 'top-1 accuracy on 40 test images' in printed
        assert 'same images' not in printed
        printed = succeed_here(*command, 'b.onnx', '--data', 'data/digits/val/3', cwd=folder)
        assert 'top-1' not in printed
        assert printed.endswith('of 32 calibration images\n')

    def test_class_folders_of_other_classes(self, folder):
        """They are no test images, but images."""
        for name in '37':
            (folder / 'two').mkdir(exist_ok=True)
            (folder / 'two' / name).symlink_to(folder / f'data/digits/val/{name}')
        model = dict(model=f'timm:{NAME}', checkpoint=folder / 'model.pth')
        with pytest.warns(UserWarning, match='two has 2 class folders and the model 10 classes: .* without labels'):
            assert not has_class_folders(load_model_config(**model, data=folder / 'two'))
        assert not has_class_folders(load_model_config(**model, data=folder / 'two/3'))
        assert has_class_folders(load_model_config(**model, data=folder / 'data/digits'))
        assert load_model_config(**model, data=folder / 'data/digits/val').train_dataloader.dataset.with_label is False

    def test_without_weights_there_is_an_error(self, folder, monkeypatch):
        """Not random weights. This test has no network either way."""
        monkeypatch.setenv('HF_HUB_OFFLINE', '1')
        monkeypatch.setenv('TORCH_HOME', str(folder / 'cache'))
        monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
        line = fail_here('predict', *MODEL, 'data/digits/val/7', cwd=folder)
        assert "timm's weights for test_byobnet could not be downloaded" in line
        assert line.endswith('give a file of them with --checkpoint')
        line = fail_here('predict', '--model', 'timm:botnet50ts_256', 'data/digits/val/7', cwd=folder)
        assert line.endswith('give a file of them with --checkpoint')

    @pytest.mark.parametrize(
        ('args', 'message'),
        [
            (('export', '--model', 'keras:vgg', 'x.onnx'), 'argument --model: must be SYSTEM:NAME'),
            (('export', *MODEL, 'a.py', 'b.pth', 'x.onnx'), 'must end in'),
            (('export', 'a.py', '--checkpoint', 'b.pth', 'c.pth', 'x.onnx'), '--checkpoint goes with --model'),
            (('test', *MODEL), '--model needs --data'),
            (('test', 'a.py', 'b.pth', '--data', 'x'), '--data goes with --model; a config names its own data'),
            (('train', *MODEL, 'a.py'), 'unrecognized arguments: --model'),
        ],
    )
    def test_usage(self, args, message, tmp_path):
        done = run_command(*args, cwd=tmp_path)
        assert done.returncode == 2
        assert message in done.stderr

    def test_usage_errors_import_no_torch(self, tmp_path):
        done = run_python('-X', 'importtime', '-m', 'mmrepvgg', 'test', *MODEL, cwd=tmp_path)
        assert done.returncode == 2
        assert not [line for line in done.stderr.splitlines() if line.endswith('| torch') or line.endswith('| timm')]
