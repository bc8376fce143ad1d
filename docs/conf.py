"""The site that `make docs` builds from the pages of this repository, in each language."""

import re
import sys
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

project = 'mmrepvgg'
author = 'the authors of mmrepvgg'
copyright = author
_package = Path(__file__).parents[1] / 'mmrepvgg/__init__.py'
release = version = re.search(r"__version__ = '(.+)'", _package.read_text(encoding='utf-8')).group(1)

# mmcv-lite says at each import that it has no operators, which nothing here needs
warnings.filterwarnings('ignore', 'Fail to import ``MultiScaleDeformableAttention``')

extensions = [
    'myst_parser',
    'sphinx_copybutton',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'chinese_search',
]

# The source is the whole repository, so that its pages find each other by the links that work on GitHub, too.
root_doc = 'docs/index'
include_patterns = [
    'docs/*.md',
    'configs/repvgg/README.md',
    'examples/*/README.md',
    *('CHANGELOG.md', 'CONTRIBUTING.md', 'SECURITY.md'),
]
exclude_patterns = [
    *('.*', '*.egg-info', 'build', 'dist', 'data', 'mmrepvgg', 'studies', 'tests', 'tools', 'work_dirs'),
    *('docs/_build', 'docs/_templates', 'docs/locale', '**/node_modules'),
]

# As GitHub, which gives headings of all levels an anchor.
myst_heading_anchors = 4

# The reference: signatures that fit on a line, and attributes of results as a list.
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
napoleon_use_ivar = True
nitpicky = True
# What is not of this package, and has no page here. Names of type variables lead nowhere by nature.
nitpick_ignore_regex = [
    ('py:.*', r'(collections|mmcv|mmengine|mmpretrain|numpy|pathlib|torch)\..*'),
    ('py:class', r'Config|Path|Tensor|.*\.M'),
]

# `-D language=zh_CN` builds the Chinese site. One file of translations a page.
language = 'en'
locale_dirs = ['docs/locale']  # from the source's root
gettext_compact = False
gettext_location = False
gettext_uuid = False

html_theme = 'furo'
html_title = f'mmrepvgg {release}'
html_copy_source = False
templates_path = ['_templates']
# The site starts at its own index.html, wherever the page of contents is.
html_additional_pages = {'index': 'redirect.html'}
html_sidebars = {
    '**': [
        'sidebar/brand.html',
        'language.html',
        'sidebar/search.html',
        'sidebar/scroll-start.html',
        'sidebar/navigation.html',
        'sidebar/scroll-end.html',
    ]
}
# The languages of the site: folder beside this one, and name in its own words.
html_context = {'languages': {'en': 'English', 'zh_CN': '中文'}}


def setup(app: Any) -> None:
    app.connect('autodoc-process-signature', _show_default_factories)
    app.connect('source-read', _leave_docstrings_out)


def _show_default_factories(*event: Any) -> tuple[str | None, str | None]:
    """Sphinx can't parse the ``<factory>`` that dataclasses show as a default."""
    *_, signature, return_annotation = event
    return signature and signature.replace('<factory>', '...'), return_annotation


def _leave_docstrings_out(app: Any, page: str, source: list[str]) -> None:
    """The messages to translate are those of the pages: docstrings are English in all languages."""
    if app.builder.name == 'gettext':
        source[0] = re.sub(r'^```{eval-rst}$.*?^```$', '', source[0], flags=re.DOTALL | re.MULTILINE)
