"""The search box of the Chinese site."""

import pytest
from browser import open_page
from doc_blocks import NEEDS_DOCS
from tool_runs import ROOT, run_python

pytestmark = NEEDS_DOCS
CONFIG = f"""
import sys
sys.path.insert(0, {str(ROOT / 'docs')!r})
extensions = ['chinese_search']
language = 'zh_CN'
html_show_search_summary = False  # it would need a server
"""


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp('chinese')
    (folder / 'conf.py').write_text(CONFIG)
    (folder / 'index.rst').write_text('首页\n====\n\n.. toctree::\n\n   int8\n   board\n')
    (folder / 'int8.rst').write_text('量化\n====\n\n模型可以做量化感知训练。也可以先做均衡化。\n')
    (folder / 'board.rst').write_text('部署\n====\n\n每个通道用 torchrun 训练。感知距离不变。\n')
    done = run_python('-m', 'sphinx', '-q', '-W', folder, folder / 'site')
    assert done.returncode == 0, done.stderr
    return folder / 'site'


@pytest.mark.parametrize(
    ('words', 'titles'),
    [
        ('均衡化', ['量化']),
        ('感知训练', ['量化']),  # in the middle of a sentence; the other page has both words, but apart
        ('训练', ['部署', '量化']),
        ('通道 torchrun', ['部署']),
        ('蒸馏', []),
    ],
)
def test_words_are_found(words, titles, site, browser):
    with open_page(browser, f'{(site / "search.html").as_uri()}?q={words}') as page:
        page.wait_for_function('document.querySelector("#search-results p")?.textContent.match(/[0-9]|没有/)')
        assert sorted(page.locator('#search-results li a').all_inner_texts()) == titles
