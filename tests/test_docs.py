"""The commands of the documentation do what it says: each block is run, or says why not."""

import argparse
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from doc_blocks import NEEDS_DOCS, PAGES, TRANSLATED, Block, find_links, read_anchors, read_blocks, read_spans
from tool_runs import ROOT, run_python
from warm_python import write_stand_ins

import mmrepvgg
from mmrepvgg.commands.table import COMMANDS

RUN = ('bash', 'python')
pytestmark = NEEDS_DOCS
# The training of docs/start.md, from which all other blocks start, with fewer epochs.
TRAINING = """
mmrepvgg train repvgg-a0_digits --cfg-options train_cfg.max_epochs=8
mv work_dirs/repvgg-a0_digits/epoch_8.pth work_dirs/repvgg-a0_digits/epoch_20.pth
"""


@pytest.fixture(scope='module')
def stand_ins(tmp_path_factory) -> Iterator[Path]:
    """A folder with ``mmrepvgg`` and ``python``, which are children of one process that has imported torch."""
    folder = tmp_path_factory.mktemp('bin')
    write_stand_ins(folder, folder / 'socket')
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    command = [sys.executable, ROOT / 'tests/warm_python.py', folder / 'socket']
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout.readline() == 'ready\n'
        yield folder
        server.terminate()


@pytest.fixture(scope='module')
def run_block(stand_ins) -> Callable[[Block, Path], None]:
    """Run a block of a page in a folder."""

    def run(block: Block, folder: Path) -> None:
        if block.language == 'bash':
            command = ['bash', '-euo', 'pipefail', '-c', block.text]
        else:
            program = stand_ins / 'block.py'
            program.write_text(block.text)
            command = [stand_ins / 'python', program]
        environment = {
            **os.environ,
            'PATH': f'{stand_ins}:{os.environ["PATH"]}',
            'PYTHONPATH': str(ROOT),
            'OMP_NUM_THREADS': '1',
        }
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, f'the block in line {block.line} failed:\n{block.text}\n{done.stdout[-3000:]}'

    return run


@pytest.fixture(scope='module')
def trained(made_once, digit_images, stand_ins, run_block) -> Path:
    """A folder with data/digits, and what the training of docs/start.md has left."""

    def fill(folder: Path) -> None:
        shutil.copytree(digit_images.parent, folder / 'data')
        run_block(Block('bash', TRAINING, 0), folder)

    return made_once('trained_for_docs', fill)


@pytest.fixture
def folder(trained, tmp_path) -> Path:
    """A folder as after docs/start.md, with what a clone of the repository has."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    for name in ('configs', 'examples', 'studies', 'tools'):
        ignored = shutil.ignore_patterns('node_modules', '__pycache__')
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    return tmp_path


def _find_blocks_to_run(page: str) -> list[Block]:
    return [block for block in read_blocks(page) if block.language in RUN and block.reason is None]


@pytest.mark.parametrize('page', [page for page in PAGES if page not in TRANSLATED and _find_blocks_to_run(page)])
def test_the_blocks_of_a_page_run(page, folder, run_block):
    for block in _find_blocks_to_run(page):
        run_block(block, folder)


@pytest.mark.parametrize('page', PAGES)
def test_what_is_not_run_says_why(page):
    """Blocks that are run name their language. A reason has at least two words."""
    for block in read_blocks(page):
        assert block.language in {*RUN, 'text', 'console', 'yaml', 'cpp', '{toctree}', '{eval-rst}'}, block
        assert block.reason is None or len(block.reason.split()) > 1, f'line {block.line}: say why it is not run'
        assert block.reason is None or block.language in RUN, f'line {block.line}: it would not be run anyway'


@pytest.mark.parametrize('page', PAGES)
def test_commands_have_these_options(page):
    """In blocks, run or not, and within sentences."""
    blocks = '\n'.join(block.text for block in read_blocks(page) if block.language == 'bash')
    lines = [*blocks.replace('\\\n', ' ').splitlines(), *read_spans(page)]
    for line in lines:
        for name, options in _find_commands(line):
            assert name in COMMANDS, line
            known = _options_of(name)
            assert set(options) <= known, f'{line}: mmrepvgg {name} has {sorted(known)}'


def _find_commands(line: str) -> Iterator[tuple[str, list[str]]]:
    """The commands of this project in a line of shell, with their options."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:  # an apostrophe in a sentence
        return
    for index, word in enumerate(words[:-1]):
        starts = index == 0 or words[index - 1] == '-m' or set(words[index - 1]) <= set(lexer.punctuation_chars)
        if word == 'mmrepvgg' and starts and words[index + 1][0].islower():
            arguments = itertools.takewhile(lambda word: not set(word) <= set(';&|)'), words[index + 2 :])
            yield words[index + 1], [word.partition('=')[0] for word in arguments if word.startswith('--')]


def _options_of(name: str) -> set[str]:
    parser = argparse.ArgumentParser()
    COMMANDS[name].load().add_arguments(parser)
    return {'--debug', *(option for action in parser._actions for option in action.option_strings)}


def test_each_command_is_in_the_documentation():
    blocks = [block.text for page in PAGES for block in read_blocks(page) if block.language == 'bash']
    texts = [*blocks, *(span for page in PAGES for span in read_spans(page))]
    named = {name for text in texts for line in text.splitlines() for name, _ in _find_commands(line)}
    assert named == set(COMMANDS)


def test_each_public_name_is_in_the_reference():
    named = set(re.findall(r'^\.\. auto\w+:: mmrepvgg\.(\w+)$', (ROOT / 'docs/api.md').read_text(), re.MULTILINE))
    assert named == set(mmrepvgg.__all__) - {'__version__'}


@pytest.mark.parametrize('page', PAGES)
def test_links_lead_somewhere(page):
    """To files of the repository, and to headings in its pages. So they work on GitHub, too."""
    for link in find_links(page):
        path, _, anchor = link.partition('#')
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), f'{link} leads nowhere'
        assert not anchor or anchor in read_anchors(str(target.resolve().relative_to(ROOT))), f'{link} has no heading'


def test_the_site_is_built_without_warnings_in_both_languages(tmp_path):
    other = {'en': 'zh_CN', 'zh_CN': 'en'}
    for language in other:
        options = ['-W', '--keep-going', '-n', '-q', '-c', 'docs', '-D', f'language={language}']
        done = run_python('-m', 'sphinx', *options, '.', tmp_path / language)
        assert done.returncode == 0, done.stderr[-3000:]
    for language in other:
        pages = sorted(tmp_path.glob(f'{language}/**/*.html'))
        assert len(pages) > len(PAGES)
        for page in pages:
            text = page.read_text(encoding='utf-8')
            assert f'lang="{language.replace("_", "-")}"' in text
            hosts = re.findall(r'(?:src|<link [^>]*href)="(\w+:)?//', text)
            assert not hosts, f'{page} loads what is not in the site'
            if page != tmp_path / language / 'index.html':  # which leads to the contents
                (target,) = re.findall(rf'href="([./]+/{other[language]}/[^"]*)"', text)
                assert (page.parent / target).exists(), f'{page} has no other language at {target}'
