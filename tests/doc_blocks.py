"""The pages of the documentation, and what stands in them."""

import re
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from tool_runs import ROOT

PAGES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ('README*.md', 'CONTRIBUTING.md', 'docs/*.md', 'configs/repvgg/README.md', 'examples/*/README.md')
    for path in ROOT.glob(pattern)
)
NEEDS_DOCS = pytest.mark.skipif(find_spec('sphinx') is None, reason='needs the extra `docs`, which the tested set has')
# Pages in other languages have the blocks of their originals.
TRANSLATED = {'README.zh-CN.md': 'README.md'}


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the line where it begins, and why it is not run, if that is said."""

    language: str
    text: str
    line: int
    reason: str | None = None


@cache
def read_blocks(page: str) -> list[Block]:
    """The fenced blocks of a page. A reason is what a comment ``<!-- not run: REASON -->`` directly above says."""
    blocks, above = [], None
    for token in parse(page):
        if token.type == 'fence':
            mark = above.content.strip() if above and above.type == 'html_block' else ''
            found = re.fullmatch(r'<!-- not run:(.*)-->', mark, re.DOTALL)
            reason = found[1].strip() if found else None
            blocks.append(Block(token.info.strip(), token.content, token.map[0] + 1, reason))
        above = token
    return blocks


@cache
def read_spans(page: str) -> list[str]:
    """The texts in backticks within sentences and tables, each as one line."""
    children = [child for token in parse(page) for child in token.children or ()]
    return [' '.join(child.content.split()) for child in children if child.type == 'code_inline']


@cache
def parse(page: str) -> list[Token]:
    text = Path(ROOT, page).read_text(encoding='utf-8')
    return MarkdownIt('commonmark').enable('table').parse(text)


def find_links(page: str) -> list[str]:
    """The links and pictures of a page that lead into the repository."""
    children = [child for token in parse(page) for child in token.children or ()]
    links = [str(child.attrs.get('href') or child.attrs.get('src') or '') for child in children]
    return [unquote(link) for link in links if link and not re.match(r'[a-z]+:', link)]


@cache
def read_anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    from myst_parser.slugs import github_slugify, unique_slug

    tokens = parse(page)
    slugs: set[str] = set()
    for heading, inline in pairwise(tokens):
        if heading.type == 'heading_open':
            title = ''.join(child.content for child in inline.children if child.type in ('text', 'code_inline'))
            slugs.add(unique_slug(github_slugify(title), slugs))
    return slugs
