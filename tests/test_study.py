"""The quantization study: what it trains, its tables, and one small run of the real tool."""

import json
import re
import shutil
from dataclasses import replace

import pytest
from tool_runs import SMALL, run_tool

from mmrepvgg import load_config
from studies.quantization.command import use_data
from studies.quantization.files import FILES
from studies.quantization.measuring import Measurement, read_measurement
from studies.quantization.report import format_study
from studies.quantization.subjects import KINDS, RECIPES, Subject, list_subjects
from studies.quantization.training import Plan, train_subject

OPTIONS = [
    *('--config', 'small.py', '--data', 'small', '--work-dir', 'work'),
    *('--kinds', 'repvgg', 'qat', '--seeds', 3, '--max-epochs', 2),
    *('--jobs', 2),  # with one thread each
]


@pytest.fixture(scope='module')
def workspace(digit_images, tmp_path_factory):
    """The config of a small network, and a few of the digits in small/."""
    folder = tmp_path_factory.mktemp('study')
    for split, step in (('train', 5), ('val', 6)):
        for path in sorted((digit_images / split).glob('*/*.png'))[::step]:
            link = folder / 'small' / split / path.parent.name / path.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    cfg = load_config(str(SMALL))
    cfg.model.backbone.arch = dict(num_blocks=[1, 2, 1, 1], width_factor=[0.25] * 4)
    for name in ('train', 'val', 'test'):
        cfg[f'{name}_dataloader'].update(num_workers=0, persistent_workers=False)
    cfg.train_dataloader.batch_size = 32
    cfg.dump(folder / 'small.py')
    return folder


@pytest.fixture
def cfg(workspace):
    cfg = load_config(str(workspace / 'small.py'))
    use_data(cfg, workspace / 'small')
    return cfg


def test_what_others_start_from_comes_first():
    subjects = list_subjects(['steep', 'gentle'], ['qat', 'repvgg'], [0, 1])
    assert len(subjects) == len({subject.name for subject in subjects}) == 8
    assert [subject.kind for subject in subjects] == ['repvgg'] * 4 + ['qat'] * 4
    assert list_subjects(['steep'], ['qat'], [0])[0] == Subject('steep', 'repvgg', 0)
    assert list_subjects(['steep', 'steep'], ['repvgg'], [0, 0]) == [Subject('steep', 'repvgg', 0)]


def test_epochs():
    assert Subject('steep', 'repvgg', 0).count_epochs() == RECIPES['steep'].epochs
    assert Subject('steep', 'qarepvgg', 0).count_epochs() == 60
    assert Subject('gentle', 'qat', 0).count_epochs() == KINDS['qat'].fine_tuning_epochs == 10
    assert Subject('gentle', 'repvgg', 0).count_epochs(max_epochs=3) == 3


@pytest.fixture(scope='module')
def failed(workspace):
    """A run of the tool in whose folder one of the models was trained otherwise."""
    broken = workspace / 'work/steep_repvgg_3'
    broken.mkdir(parents=True)
    (broken / 'trained.json').write_text('{"origin": "another", "epochs": 2, "checkpoint": "nowhere.pth"}')
    return run_tool('quantization_study', *OPTIONS, '--out', 'failed.md', cwd=workspace)


@pytest.fixture(scope='module')
def study(workspace, failed):
    """A second run, over the others."""
    before = read_times(workspace)
    done = run_tool('quantization_study', *OPTIONS, '--recipes', 'gentle', '--out', 'tables.md', cwd=workspace)
    assert done.returncode == 0, done.stderr[-3000:]
    assert read_times(workspace) == before, 'nothing is done again'
    return done


def read_times(workspace):
    paths = [*(workspace / 'work').rglob('*.pth'), *(workspace / 'work').rglob('measured.json')]
    assert paths
    return {path: path.stat().st_mtime_ns for path in paths}


def test_a_failure_stops_no_other_model_and_names_its_log(workspace, failed):
    assert failed.returncode == 1
    message = failed.stderr.splitlines()[-1]
    assert '1 of 4 models failed; the others are kept. steep_repvgg_3: ' in message
    assert 'is of another config, data set or length of training; give another ' in message
    assert 'log.txt' in message
    assert not (workspace / 'failed.md').exists()
    assert read_measurement(workspace / 'work/gentle_repvgg_3').epochs == 2
    assert not (workspace / 'work/steep_qat_3').exists(), 'what would start from it'


def test_the_tool_trains_measures_and_writes_its_tables(workspace, study):
    tables = (workspace / 'tables.md').read_text()
    assert study.stdout == f'{tables}tables.md: written\n'
    plain, trained = (read_measurement(workspace / f'work/gentle_{kind}_3') for kind in ('repvgg', 'qat'))
    assert (plain.subject, plain.epochs) == (Subject('gentle', 'repvgg', 3), 2)
    assert set(plain.files) == set(FILES)
    assert plain.simulated == plain.fp32
    # trained for int8: one granularity, and the file does what training showed
    assert set(trained.files) == {'t', 'ov t'}
    assert trained.files['t'] == pytest.approx(trained.simulated, abs=2)  # one of 60 images
    assert (trained.predicted, trained.traits) == ({}, {})
    assert (workspace / 'work/gentle_repvgg_3/analysis.png').read_bytes().startswith(b'\x89PNG')
    cfg = load_config(str(next((workspace / 'work/gentle_qat_3').glob('*-epochs/*.py'))))
    assert cfg.load_from.endswith('gentle_repvgg_3/2-epochs/epoch_2.pth')
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(0.005)
    assert f'| {KINDS["qat"].title} | {RECIPES["gentle"].title} | 3 | 2 |' in squeeze(tables)


def test_a_model_below_the_target_is_trained_anew_for_longer(cfg, tmp_path):
    plan = Plan(min_accuracy=100.1, max_epochs=1)  # out of reach
    trained, checkpoint = train_subject(cfg, Subject('steep', 'repvgg', 0), tmp_path, plan)
    folder = tmp_path / 'steep_repvgg_0'
    assert sorted(path.name for path in folder.glob('*-epochs')) == ['1-epochs', '2-epochs', '3-epochs']
    assert (trained.train_cfg.max_epochs, checkpoint.name) == (3, 'epoch_3.pth')
    assert json.loads((folder / 'trained.json').read_text())['epochs'] == 3


def test_few_classes(cfg, workspace, tmp_path):
    for split in ('train', 'val'):
        for label in '01':
            shutil.copytree(workspace / f'small/{split}/{label}', tmp_path / split / label)
    use_data(cfg, tmp_path)
    trained, checkpoint = train_subject(cfg, Subject('gentle', 'repvgg', 0), tmp_path / 'work', Plan(max_epochs=1))
    assert checkpoint.exists()
    assert trained.model.head.num_classes == 2


@pytest.mark.parametrize(
    ('arguments', 'code', 'message'),
    [
        (['--kinds', 'resnet'], 2, "invalid choice: 'resnet'"),
        (['--data', 'nowhere', '--out', 'small.py/tables.md'], 1, 'small.py/tables.md can not be written: '),
        (['--data', 'nowhere', '--work-dir', 'small.py/work'], 1, 'small.py/work/log.txt can not be written: '),
        (['--out', 'tables.txt'], 2, "must end in .md, got 'tables.txt'"),
        (
            ['--config', 'small.py', '--data', 'nowhere'],
            1,
            'nowhere/train has no class folders; expected nowhere',
        ),
    ],
)
def test_bad_usage(workspace, arguments, code, message):
    done = run_tool('quantization_study', *arguments, cwd=workspace)
    assert done.returncode == code
    assert message in done.stderr


def squeeze(text):
    """Without the spaces that align a table."""
    return re.sub(' +', ' ', text)


def make_measurement(kind='repvgg', seed=0, fp32=98.0, tensor=97.5, predicted=0.5, trait=1.0):
    return Measurement(
        subject=Subject('steep', kind, seed),
        epochs=20,
        fp32=fp32,
        simulated=fp32,
        bf16=fp32,
        files={name: tensor if name == 't plain' else 98.0 for name in FILES},
        predicted={'t plain': predicted, 't eq': 0.0, 't': 0.0, 'c plain': 0.0},
        traits={'spread': trait},
    )


class TestTables:
    def test_agreement_and_correlation(self):
        measurements = [
            make_measurement(seed=0, trait=2.0),
            make_measurement(seed=1, tensor=20.0, predicted=75.0, trait=300.0),
            make_measurement(seed=2, tensor=93.0, predicted=0.2, trait=30.0),
        ]
        text = squeeze(format_study(measurements, 97.5))
        assert 'agrees with the measured drop in 11 of 12 cases' in text
        assert '| 75.00 collapses | 78.00 collapses | yes |' in text
        assert '| 0.20 safe | 5.00 at risk | NO |' in text
        assert 'over the 1 models that plain per-tensor int8 leaves safe and the 2 others' in text
        assert '| spread | 2 | 165 | 1.00 |' in text
        assert f'| {KINDS["repvgg"].title} | {RECIPES["steep"].title} | 27.83, 78.00 | 0.00, 0.00 |' in text
        assert '| RepVGG, with and without custom L2 | both | 27.83, 78.00 |' in text

    def test_training_for_int8_is_set_against_the_model_it_started_from(self):
        base = make_measurement(fp32=98.0)
        trained = replace(
            make_measurement('qat', fp32=20.0),
            files={'t': 97.75, 'ov t': 97.75},
            predicted={},
        )
        text = squeeze(format_study([base, trained], 97.5))
        row = f'| {KINDS["qat"].title} | {RECIPES["steep"].title} |'
        assert f'{row} - | - | - | - | 0.25, 0.25 | - | - | - | - | 0.25, 0.25 | - | - |' in text
        assert 'not trained to the end' not in text

    def test_a_model_that_is_not_trained_to_the_end_is_marked(self):
        text = squeeze(format_study([make_measurement(fp32=97.0)], 97.5))
        assert '| 97.00 * |' in text
        assert '\\* below 97.5% in float32: not trained to the end.' in text
        assert '*' not in format_study([make_measurement(fp32=97.0)], None)
