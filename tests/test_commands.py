"""The command line: what it lists, what it imports, configs by name, and errors in its own words."""

import argparse
import json
from pathlib import Path

import pytest
from tool_runs import ROOT, fail_here, run_command, run_python

import mmrepvgg
from mmrepvgg import load_config
from mmrepvgg.commands import convert, export, quantize, train
from mmrepvgg.commands.errors import UsageError, checking_usage, describe, translate
from mmrepvgg.commands.table import COMMANDS
from mmrepvgg.zoo.configs import find_config, list_configs

SLOW = ['torch', 'numpy', 'mmengine', 'mmcv', 'mmpretrain', 'rich', 'cv2']


class TestTable:
    @pytest.mark.parametrize('args', [[], ['--help']])
    def test_all_commands_are_listed_with_a_line_each(self, args, tmp_path):
        done = run_command(*args, cwd=tmp_path)
        assert done.returncode == 0
        lines = done.stdout.splitlines()
        assert all(len(line) < 100 for line in lines)
        for command in COMMANDS.values():
            assert sum(line.split() == [command.name, *command.summary.split()] for line in lines) == 1

    def test_the_version(self, tmp_path):
        done = run_command('--version', cwd=tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (0, f'mmrepvgg {mmrepvgg.__version__}\n', '')

    @pytest.mark.parametrize(
        ('name', 'hint'),
        [
            ('trian', 'did you mean train?'),
            ('get_flops', 'did you mean flops?'),
            ('reparameterize_model', 'did you mean reparameterize?'),
            ('xyzzy', 'it must be one of new, train, test, reparameterize'),
        ],
    )
    def test_an_unknown_command(self, name, hint, tmp_path):
        done = run_command(name, 'a', '--b', cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, '')
        assert done.stderr.splitlines()[-1].startswith(f"mmrepvgg: error: there is no command '{name}'; {hint}")

    def test_each_function_that_is_public_here_is_so_in_the_package(self):
        internal = {'measure_cost', 'run_benchmark', 'benchmark_data', 'ImageCheck', 'examine_environment'}
        assert {command.function for command in COMMANDS.values()} - internal <= set(mmrepvgg.__all__)

    def test_commands_have_one_script_in_tools_or_none(self):
        scripts = {path.stem: path.read_text() for path in (ROOT / 'tools').glob('*.py')}
        counts = {
            command.name: sum(f'import {command.name.replace("-", "_")}\n' in text for text in scripts.values())
            for command in COMMANDS.values()
        }
        # those that OpenMMLab's users know as scripts
        assert [counts[name] for name in ('train', 'test', 'reparameterize', 'flops')] == [1] * 4
        assert max(counts.values()) == 1
        assert all(len(text.splitlines()) < 14 for text in scripts.values())


def test_help_and_wrong_usage_import_nothing_slow_and_need_no_mmcv(tmp_path):
    code = f"""
import json, sys
sys.modules.update(dict.fromkeys({SLOW}))  # an import of one of them is an error
from contextlib import redirect_stdout
from io import StringIO
from mmrepvgg.commands.main import main
from mmrepvgg.commands.table import COMMANDS
found = {{}}
for name in COMMANDS:
    for option in ('--help', '--no-such-option'):
        out = StringIO()
        with redirect_stdout(out):
            try:
                main([name, option])
            except SystemExit as end:
                found[name + ' ' + option] = end.code, out.getvalue()
print(json.dumps(found))
"""
    done = run_python('-c', code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for name in COMMANDS:
        status, text = found[f'{name} --help']
        assert status == 0
        assert text.startswith(f'usage: mmrepvgg {name} ')
        assert f'\nexample: mmrepvgg {name} ' in text
        assert found[f'{name} --no-such-option'] == [2, '']


def test_the_package_and_a_script_are_the_same_command(tmp_path):
    for args, prog in (
        (['-m', 'mmrepvgg', 'flops'], 'mmrepvgg flops'),
        ([ROOT / 'tools/get_flops.py'], 'get_flops.py'),
    ):
        done = run_python(*args, 'no.py', cwd=tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (1, '', f'{prog}: error: no.py does not exist\n')
        done = run_python(*args, cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.startswith(f'usage: {prog} ')


class TestConfigs:
    def test_every_shipped_config_has_a_name_of_its_own(self):
        files = [path for path in (ROOT / 'configs/repvgg').rglob('*.py') if '__pycache__' not in path.parts]
        assert sorted(list_configs().values()) == sorted(files)

    @pytest.mark.parametrize(
        ('name', 'file'),
        [
            ('repvgg-a0_8xb32', 'repvgg-a0_8xb32.py'),
            ('repvgg/repvgg-a0_8xb32', 'repvgg-a0_8xb32.py'),
            ('repvgg-a0_deploy', 'deploy/repvgg-a0_deploy.py'),
            ('deploy/repvgg-a0_deploy', 'deploy/repvgg-a0_deploy.py'),
        ],
    )
    def test_a_name_is_found_from_anywhere(self, name, file, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert find_config(name) == ROOT / 'configs/repvgg' / file

    def test_a_file_comes_first(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / 'repvgg-a0_8xb32').mkdir()  # a folder is no config
        assert find_config('repvgg-a0_8xb32').parent == ROOT / 'configs/repvgg'
        (tmp_path / 'repvgg-a0_deploy').write_text('')
        assert find_config('repvgg-a0_deploy') == Path('repvgg-a0_deploy')

    @pytest.mark.parametrize(
        ('name', 'message'),
        [
            ('no.py', r'^no\.py does not exist$'),
            ('repvgg-A0_8xb32', r'^repvgg-A0_8xb32 does not exist; configs that .*: repvgg-a0_8xb32, '),
            ('configs/repvgg/repvgg-a0_8xb32.py', r'repvgg-a0_8xb32\.py does not exist; .*: repvgg-a0_8xb32, '),
            ('train/repvgg-a0_deploy', r'^train/repvgg-a0_deploy does not exist; .*: repvgg-a0_deploy, '),
            ('resnet', 'resnet does not exist; configs that come with mmrepvgg: .*repvgg-b0_8xb32'),
            ('.', r'^\. is not a file$'),
        ],
    )
    def test_an_unknown_name(self, name, message, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(FileNotFoundError, match=message):
            load_config(name)

    def test_options_change_settings(self):
        cfg = load_config('repvgg-a0_digits', ['train_cfg.max_epochs=3', 'model.backbone.strides=[1,2,2,2]', 'a.b=c=d'])
        assert (cfg.train_cfg.max_epochs, cfg.model.backbone.strides, cfg.a.b) == (3, [1, 2, 2, 2], 'c=d')
        with pytest.raises(ValueError, match='is no usable config: TypeError: '):
            load_config('repvgg-a0_digits', ['train_cfg.max_epochs.x=3'])

    def test_all_cfg_options_of_a_command_line_count(self):
        parser = argparse.ArgumentParser()
        train.add_arguments(parser)
        args = parser.parse_args(['c', '--cfg-options', 'a=1', 'b=2', '--amp', '--cfg-options', 'c=3'])
        assert args.cfg_options == ['a=1', 'b=2', 'c=3']
        assert parser.parse_args(['c']).cfg_options == []


class TestErrors:
    @pytest.mark.parametrize(
        ('command', 'text', 'expected'),
        [
            (export, 'allow more with `tolerance`', 'allow more with --tolerance'),
            (export, '`batch_size=4`, `softmax=True`', '--batch-size 4, --softmax'),
            (export, 'set `dynamic_batch=False`', 'set --no-dynamic-batch'),
            (export, 'leave out `dynamic_batch`', 'leave out --no-dynamic-batch'),
            (quantize, "take `quantizer='nncf'`", 'take --quantizer nncf'),
            (convert, '`destination` must be another file', 'dst must be another file'),
            (convert, 'name it with `system`', 'name it with --source'),
            (train, 'set `model.backbone.deploy=True`', 'set --cfg-options model.backbone.deploy=True'),
            (convert, 'set `model.backbone.deploy=True`', 'set `model.backbone.deploy=True`'),
            (
                train,
                'switch it with `reparameterize_checkpoint`',
                'switch it with mmrepvgg reparameterize TRAIN_CONFIG SRC DST',
            ),
            (
                train,
                'use `quantize_model` with `max_drop`',
                'use mmrepvgg quantize CONFIG CHECKPOINT OUT with --max-drop',
            ),
            (train, '`max_drop`, `state_dict` and ``code``', '`max_drop`, `state_dict` and ``code``'),
            (
                export,
                'only `evaluate` takes it, without `metrics` and `out`',
                'only mmrepvgg test CONFIG CHECKPOINT takes it, without --metrics and --out',
            ),
            (export, '`out` and `checkpoint`', 'out and checkpoint'),
            (train, 'run `prepare_digits`', 'run mmrepvgg prepare-digits'),
        ],
    )
    def test_names_of_the_library_become_those_of_the_command_line(self, command, text, expected):
        assert translate(text, command.add_arguments) == expected

    def test_one_line_with_the_type_where_the_error_is_not_ours(self):
        assert describe(ValueError('two\n lines'), train.add_arguments) == 'two lines'
        # a terminal would obey what a file's names have in them
        assert describe(ValueError('caf\xe9 \x1b[2J\u202egnp'), train.add_arguments) == 'caf\xe9 \\x1b[2J\\u202egnp'
        assert describe(KeyError('x'), train.add_arguments) == "KeyError: 'x'"
        assert describe(FileNotFoundError(2, 'No such file', 'x'), train.add_arguments).startswith(
            'FileNotFoundError: '
        )

    def test_wrong_usage_is_translated_too(self, tmp_path):
        with pytest.raises(UsageError, match='no'), checking_usage():
            raise ValueError('no')
        done = run_command('export', 'repvgg-a0_8xb32', 'a.pth', 'a.onnx', '--batch-size', 2, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, '')
        assert done.stderr.splitlines()[-1] == 'mmrepvgg export: error: --batch-size goes with --no-dynamic-batch'

    def test_warnings_of_this_package_are_translated_too(self, tmp_path):
        code = f"""
import warnings
from types import SimpleNamespace
from mmrepvgg.commands import export
from mmrepvgg.commands.running import run

def warn(args):
    for file in ({mmrepvgg.__file__!r}, '/elsewhere.py'):
        warnings.warn_explicit('mind `tolerance`', UserWarning, file, 1)

run(SimpleNamespace(__doc__='', add_arguments=export.add_arguments, run=warn), 'prog', ['a', 'b', 'c.ts'])
"""
        done = run_python('-c', code, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (0, '')
        assert done.stderr == 'prog: warning: mind --tolerance\n/elsewhere.py:1: UserWarning: mind `tolerance`\n'

    @pytest.mark.parametrize(
        'args',
        [
            ['reparameterize', 'repvgg-a0_8xb32', 'a.pth', 'file/dst.pth'],
            ['convert', 'a.pth', 'file/dst.pth'],
            ['export', 'repvgg-a0_8xb32', 'a.pth', 'file/dst.ts'],
            ['quantize', 'repvgg-a0_8xb32', 'a.pth', 'file/dst.onnx'],
            ['analyze', 'repvgg-a0_8xb32', 'a.pth', '--plot', 'file/dst.png'],
            ['predict', 'repvgg-a0_8xb32', 'a.pth', 'a.pth', '--show-dir', 'file/dst'],
            ['test', 'repvgg-a0_8xb32', 'a.pth', '--out', 'file/dst.json'],
            ['benchmark', '--out', 'file/dst.json'],
            ['export-inputs', 'repvgg-a0_8xb32', 'file/dst'],
        ],
    )
    def test_what_cannot_be_written_is_told_first(self, args, tmp_path):
        for name in ('a.pth', 'file'):
            (tmp_path / name).write_text('no checkpoint')
        assert 'can not be written: no file can be made in ' in fail_here(*args, cwd=tmp_path)
