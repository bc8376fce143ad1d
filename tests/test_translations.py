"""The Chinese pages say what the English ones say: every message, with the same code, links and numbers."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from doc_blocks import NEEDS_DOCS, read_blocks
from tool_runs import ROOT, run_python

if TYPE_CHECKING:
    from babel.messages.catalog import Catalog

CATALOGS = ROOT / 'docs/locale/zh_CN/LC_MESSAGES'
# Words of the site's theme, such as the next page.
THEME = CATALOGS / 'sphinx.po'
# Pages that stay English, and why.
ENGLISH = {
    'CONTRIBUTING': 'it is for those who change the code, whose comments and messages are English',
    'CHANGELOG': 'it is for those who maintain an installation, and grows with each change',
}
CODE = re.compile(r'(`+)(.+?)\1', re.DOTALL)
TARGET = re.compile(r'(?<=\]\()[^)]*(?=\))')
FENCED = re.compile(r'^```.*?^```$', re.DOTALL | re.MULTILINE)
HEADING = re.compile(r'^#+(?= )', re.MULTILINE)
LIST = re.compile(r'(\d+[.)]|[-+*#>]) ')
NUMBER = re.compile(r'\d+(?:[.,]\d+)*')


@pytest.fixture(scope='module')
def messages(tmp_path_factory) -> dict[str, list[str]]:
    """The messages of each English page that has a translation."""
    folder = tmp_path_factory.mktemp('gettext')
    done = run_python('-m', 'sphinx', '-b', 'gettext', '-c', 'docs', '-q', '.', folder)
    assert done.returncode == 0, done.stderr[-3000:]
    pages = {_page(path, folder): _read(path) for path in folder.rglob('*.pot')}
    assert ENGLISH.keys() <= pages.keys()
    return {page: [message.id for message in _messages(pages[page])] for page in sorted(pages.keys() - ENGLISH.keys())}


@pytest.fixture(scope='module')
def catalogs() -> 'dict[str, Catalog]':
    return {_page(path, CATALOGS): _read(path) for path in CATALOGS.rglob('*.po') if path != THEME}


@NEEDS_DOCS
def test_every_message_is_translated(messages, catalogs):
    for page, ids in messages.items():
        assert page in catalogs, f'call `make translations`, and translate {page}.po, or name the page in ENGLISH'
        missing = [text for text in ids if text not in catalogs[page] or not catalogs[page][text].string]
        assert not missing, f'call `make translations`, and translate in {page}.po: {missing}'
        copied = [text for text in ids if catalogs[page][text].string == text and _is_prose(text)]
        assert not copied, f'these are still English in {page}.po: {copied}'


@NEEDS_DOCS
def test_catalogs_hold_nothing_else(messages, catalogs):
    assert catalogs.keys() == messages.keys(), 'remove what belongs to no page'
    for page, catalog in catalogs.items():
        assert not catalog.obsolete, f'remove the lines with #~ from {page}.po'
        fuzzy = [message.id for message in _messages(catalog) if message.fuzzy]
        assert not fuzzy, f'correct these in {page}.po, and remove the marks: {fuzzy}'
        unused = [message.id for message in _messages(catalog) if message.id not in messages[page]]
        assert not unused, f'{page} does not have these any more: {unused}'


@NEEDS_DOCS
def test_translations_have_the_same_code_links_and_numbers(catalogs):
    for page, catalog in catalogs.items():
        for message in _messages(catalog):
            assert _exact_parts(message.string) == _exact_parts(message.id), f'{page}: {message.id}'
            # Sphinx leaves such a message in English; `1\. ` is no list
            assert not LIST.match(message.string), f'{page}: {message.string} begins like a list'


def test_the_chinese_readme_is_the_english_one():
    assert _outline('README.zh-CN.md') == _outline('README.md')


def _page(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder).with_suffix(''))


def _read(path: Path) -> 'Catalog':
    from babel.messages.pofile import read_po

    with path.open('rb') as file:
        return read_po(file)


def _messages(catalog: 'Catalog') -> Iterator:
    return (message for message in catalog if message.id)


def _outline(readme: str) -> dict[str, list]:
    """What two languages have in common: blocks of code, levels of headings, and the exact parts of the rest."""
    blocks = [(block.language, block.text) for block in read_blocks(readme)]
    prose = FENCED.sub('', Path(ROOT, readme).read_text(encoding='utf-8'))
    # each links to the other one, and names the site in its own language
    prose = prose.replace('](README.zh-CN.md)', '](README.md)').replace('_build/zh_CN/', '_build/en/')
    parts = _exact_parts(prose)
    return {'blocks': blocks, 'headings': HEADING.findall(prose), 'parts': parts}


def _exact_parts(text: str) -> list[str]:
    """What a translation must leave as it is: code, the targets of links, and numbers."""
    code = [' '.join(match[2].split()) for match in CODE.finditer(text)]
    text = CODE.sub('', text)
    targets = [target for target in TARGET.findall(text) if not target.startswith('#')]
    return sorted([*code, *targets, *NUMBER.findall(TARGET.sub('', text))])


def _is_prose(text: str) -> bool:
    """Whether a text has four English words in a row, as sentences have and names do not."""
    return bool(re.search(r'(?:\b[a-z]+ ){3}[a-z]+', TARGET.sub('', CODE.sub('', text))))
