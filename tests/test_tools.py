"""The tools as users call them, on real images: each as a process; a further run of one in the process of the tests."""

import json
import os
import re
import shutil
from pathlib import Path

import cv2
import pytest
import torch
from sklearn.datasets import load_sample_images
from tool_runs import (
    CONFIGS,
    SMALL,
    SMALL_DEPLOY,
    fail,
    fail_here,
    run_command,
    run_tool,
    succeed,
    succeed_here,
    train,
)

DIGITS = CONFIGS / 'repvgg-a0_digits.py'
IMAGENET = CONFIGS / 'repvgg-a0_8xb32.py'
IMAGENET_DEPLOY = CONFIGS / 'deploy' / 'repvgg-a0_deploy.py'

# a few images of each digit, for runs in which accuracy does not matter
FEW = ['train_dataloader.dataset.indices=128', 'val_dataloader.dataset.indices=60']
ONE_EPOCH = ['train_cfg.max_epochs=1']


def read_metric(output, name):
    return float(re.search(rf'^{re.escape(name)}: ([\d.]+)$', output, re.MULTILINE)[1])


class TestMainPath:
    """What the fixture ``digits`` has made with the tools: a training, its checkpoint, and the deploy form of that."""

    def test_training_reaches_the_accuracy_and_shows_an_eta(self, digits):
        log = (digits / 'train.log').read_text()
        assert re.search(r'Epoch\(train\) .* eta: \d:\d\d:\d\d', log)
        assert float(re.findall(r'accuracy/top1: ([\d.]+)', log)[-1]) >= 97

    def test_conversion_reports_the_measured_difference(self, digits):
        match = re.fullmatch(
            r'new\.pth: 610,506 -> 547,818 parameters \(from state_dict\); '
            r'largest difference (\S+) of the largest output on 360 image\(s\)',
            (digits / 'reparameterize.log').read_text().splitlines()[-1],
        )
        assert match
        assert float(match[1]) <= 1e-5

    def test_both_forms_have_the_same_accuracy(self, workspace):
        results = {}
        for form, run, config, checkpoint in (
            ('train', succeed, SMALL, 'small.pth'),
            ('deploy', succeed_here, SMALL_DEPLOY, 'small_deploy.pth'),
        ):
            output = run(
                'test', config, checkpoint, '--metrics', 'accuracy', 'precision', 'f1-score', 'confusion-matrix',
                '--out', f'{form}.json', cwd=workspace,
            )  # fmt: skip
            results[form] = json.loads((workspace / f'{form}.json').read_text())
            top1 = read_metric(output, 'accuracy/top1')
            assert top1 >= 97
            correct = sum(p['label'] == p['prediction'] for p in results[form]['predictions'])
            assert top1 == pytest.approx(100 * correct / 360, abs=1e-3)
            assert results[form]['metrics']['accuracy/top1'] == pytest.approx(top1, abs=1e-3)
            assert {'single-label/precision', 'single-label/f1-score'} <= set(results[form]['metrics'])
            assert sum(map(sum, results[form]['metrics']['confusion_matrix/result'])) == 360
        labels = {form: [(p['image'], p['prediction']) for p in r['predictions']] for form, r in results.items()}
        assert labels['train'] == labels['deploy']
        assert all(str(p['label']) == Path(p['image']).parent.name for p in results['deploy']['predictions'])

    def test_the_table_of_both_forms(self, workspace):
        output = succeed('compare_forms', SMALL, 'small.pth', 'small_deploy.pth', cwd=workspace)
        rows = [re.split(r' *\| +', line.strip('| ')) for line in output.splitlines() if line.startswith('| ')]
        assert [row[:2] for row in rows[1:]] == [['train', '610,506'], ['deploy', '547,818']]
        assert all(float(row[3].rstrip('%')) >= 97 for row in rows[1:])
        assert float(rows[2][5]) < 1e-3
        assert '360 images, 0 predictions differ' in output

    def test_the_table_exposes_a_deploy_form_of_other_weights(self, workspace):
        other = torch.load(workspace / 'small_deploy.pth', weights_only=True)
        other['state_dict']['head.fc.bias'][3] += 10
        torch.save(other, workspace / 'other.pth')
        line = fail_here('compare', SMALL, 'small.pth', 'other.pth', cwd=workspace)
        assert re.search(r'predict different classes for \d+ of 360 images', line)

    def test_a_checkpoint_of_the_other_form(self, workspace):
        line = fail('test', SMALL_DEPLOY, 'small.pth', '--metrics', 'accuracy', cwd=workspace)
        assert 'the checkpoint is in train form' in line
        assert 'mmrepvgg reparameterize' in line
        line = fail_here('reparameterize', SMALL, 'small_deploy.pth', 'again.pth', cwd=workspace)
        assert 'in deploy form already' in line
        assert not (workspace / 'again.pth').exists()


class TestTraining:
    def test_resume_goes_on_where_it_stopped(self, workspace):
        args = [SMALL, '--work-dir', 'resumed', '--cfg-options', *FEW]
        short = ['default_hooks.checkpoint.interval=1', 'train_cfg.max_epochs=1']
        train(*args, *short, cwd=workspace)
        log = train(*args, *short[:1], 'train_cfg.max_epochs=2', '--resume', cwd=workspace)
        assert 'resumed epoch: 1' in log
        assert 'Epoch(train) [1]' not in log
        assert (workspace / 'resumed' / 'epoch_2.pth').is_file()
        line = fail_here('train', *args, '--resume', 'resumed/epoch_9.pth', cwd=workspace)
        assert line.endswith('resumed/epoch_9.pth does not exist')

    def test_resume_refuses_a_malicious_checkpoint(self, workspace, tmp_path):
        attack = make_attack(tmp_path)
        line = fail_here('train', SMALL, '--work-dir', 'attacked', '--resume', attack, cwd=workspace)
        assert 'was refused, and nothing in it was run' in line
        assert not (tmp_path / 'proof').exists()

    def test_mixed_precision_on_a_cpu(self, workspace):
        options = ['--cfg-options', *FEW, *ONE_EPOCH, 'experiment_name=amp']
        log = run_command('train', SMALL, '--work-dir', 'amp', '--amp', *options, cwd=workspace).stderr
        assert "type='mmrepvgg.AmpOptimWrapper'" in (workspace / 'amp/digits_small.py').read_text()
        assert 'Epoch(val) [1]' in log

    def test_missing_data_is_reported_before_the_model_is_built(self, tmp_path):
        line = fail('train', DIGITS, cwd=tmp_path)
        assert 'data/digits/train does not exist; write it with' in line
        line = fail_here('train', IMAGENET, cwd=tmp_path)
        assert 'data/imagenet/train does not exist; expected data/imagenet/train/<class>/<image>' in line
        line = fail_here('test', IMAGENET, make_attack(tmp_path), cwd=tmp_path)
        assert 'data/imagenet/val does not exist' in line
        assert not (tmp_path / 'work_dirs').exists()

    def test_weights_to_start_from_that_fit_nothing(self, workspace, tmp_path):
        torch.save({'stage0.rbr_dense.conv.weight': torch.ones(48, 3, 3, 3)}, tmp_path / 'official.pth')
        options = ['--cfg-options', f'load_from={tmp_path}/official.pth', *FEW, 'experiment_name=lost']
        line = fail_here('train', SMALL, '--work-dir', 'lost', *options, cwd=workspace)
        assert re.search(r'lacks (\d+) of the \1 tensors of the backbone', line)


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    """data/imagenet with pieces of scikit-learn's two photographs, as JPEG files."""
    workspace = tmp_path_factory.mktemp('photos')
    for name, photo in zip(('n01', 'n02'), load_sample_images().images, strict=True):
        for split, columns in (('train', (0, 100, 200, 300)), ('val', (50, 340))):
            folder = workspace / 'data' / 'imagenet' / split / name
            folder.mkdir(parents=True)
            for left in columns:
                cv2.imwrite(str(folder / f'{left}.JPEG'), photo[:, left : left + 300, ::-1])
    return workspace


def test_the_imagenet_config_on_a_small_folder_in_its_layout(photos):
    options = ['--cfg-options', *ONE_EPOCH, 'train_dataloader.batch_size=4', 'train_dataloader.num_workers=1']
    options += ['train_dataloader.persistent_workers=False']
    few_workers = [f'{name}_dataloader.num_workers=0' for name in ('val', 'test')]
    few_workers += [f'{name}_dataloader.persistent_workers=False' for name in ('val', 'test')]
    options += few_workers
    log = train(IMAGENET, *options, cwd=photos)
    assert 'Epoch(val) [1]' in log
    checkpoint = photos / 'work_dirs/repvgg-a0_8xb32/epoch_1.pth'
    report = succeed_here('reparameterize', IMAGENET, checkpoint, 'deploy.pth', '--data', 'data/imagenet', cwd=photos)
    assert '9,108,968 -> 8,309,384 parameters' in report
    assert 'on 12 image(s)' in report
    results = [
        succeed_here(
            'test', config, weights, '--metrics', 'accuracy', '--cfg-options', *few_workers, cwd=photos
        ).splitlines()[-2:]
        for config, weights in ((IMAGENET, checkpoint), (IMAGENET_DEPLOY, 'deploy.pth'))
    ]
    assert results[0] == results[1]
    assert results[0][0].startswith('accuracy/top1: ')


class RunsCommand:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.system, (f'touch {self.file}',)


def make_attack(folder):
    path = folder / 'attack.pth'
    torch.save({'state_dict': {'a': torch.ones(1)}, 'meta': RunsCommand(folder / 'proof')}, path)
    return path


class TestErrors:
    @pytest.mark.parametrize(
        ('args', 'message'),
        [
            (['train'], 'the following arguments are required: config'),
            (['train', DIGITS, '--cfg-options', 'nonsense'], "must be KEY=VALUE, got 'nonsense'"),
            (['test', DIGITS, 'a.pth', '--metrics', 'acuracy'], "invalid choice: 'acuracy'"),
            (['test', DIGITS, 'a.pth', '--out', 'a.pkl'], "must end in .json, got 'a.pkl'"),
            (['reparameterize_model', DIGITS, 'a.pth', 'b.onnx'], "must end in .pth or .pt, got 'b.onnx'"),
            (
                ['reparameterize_model', DIGITS, 'a.pth', 'b.pth', '--tolerance', '0'],
                "must be a number greater than 0, got '0'",
            ),
        ],
    )
    def test_wrong_usage_exits_with_2_before_torch_is_imported(self, args, message, tmp_path):
        done = run_tool(*args, cwd=tmp_path, without=['torch'])
        assert done.returncode == 2
        assert message in done.stderr

    def test_missing_files(self, tmp_path):
        assert fail('train', 'no.py', cwd=tmp_path).endswith('no.py does not exist')
        assert fail_here('test', DIGITS, 'no.pth', cwd=tmp_path).endswith('no.pth does not exist')
        assert fail_here('reparameterize', DIGITS, 'no.pth', 'o.pth', cwd=tmp_path).endswith('no.pth does not exist')
        attack = make_attack(tmp_path)
        line = fail_here('reparameterize', DIGITS, attack, 'o.pth', '--data', 'no', cwd=tmp_path)
        assert line.endswith('no does not exist')

    def test_a_file_that_is_no_config(self, tmp_path):
        (tmp_path / 'broken.py').write_text('model = dict(\n')
        assert 'broken.py is no usable config: SyntaxError' in fail_here('train', 'broken.py', cwd=tmp_path)

    def test_a_malicious_checkpoint_runs_nothing(self, workspace, tmp_path):
        attack = make_attack(tmp_path)
        for run, args in (
            (fail, ['test', SMALL, attack, '--metrics', 'accuracy']),
            (fail_here, ['reparameterize', SMALL, attack, 'o.pth']),
            (fail_here, ['compare', SMALL, attack, attack]),
        ):
            assert 'was refused, and nothing in it was run: it refers to posix.system' in run(*args, cwd=workspace)
            assert not (tmp_path / 'proof').exists()
        torch.load(attack, weights_only=False)
        assert (tmp_path / 'proof').exists(), 'the file must be a real attack, or this test shows nothing'

    def test_the_destination_must_not_be_the_source(self, tmp_path):
        attack = make_attack(tmp_path)
        before = attack.read_bytes()
        shutil.copy(attack, tmp_path / 'copy.pth')
        line = fail_here('reparameterize', DIGITS, attack, attack, cwd=tmp_path)
        assert 'dst must be another file than src' in line
        assert attack.read_bytes() == before

    def test_debug_gives_the_traceback(self, tmp_path):
        done = run_tool('train', 'no.py', '--debug', cwd=tmp_path)
        assert done.returncode == 1
        assert 'Traceback' in done.stderr
