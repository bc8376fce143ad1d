"""Search in the Chinese site. Chinese has no blanks between words, so each two characters in a row count as a word.

Sphinx leaves the words to jieba, which has had no release since 2020, and finds no Chinese without it.
"""

import re
from itertools import pairwise

from sphinx.application import Sphinx
from sphinx.search.zh import SearchChinese

_RUNS = re.compile(r'[\u4e00-\u9fff]+')


class SearchChineseByPairs(SearchChinese):
    """Splits the pages here, and what is searched for in the browser, in the same way."""

    # Sphinx 9 names the class of the stemmer by this, and for Chinese there is only the English one. Otherwise the
    # search page fails on any word: https://github.com/sphinx-doc/sphinx/issues/14229
    language_name = 'English'
    js_splitter_code = r"""
var splitQuery = (query) =>
  (query.match(/[\u4e00-\u9fff]+|[a-zA-Z0-9_]+/g) ?? []).flatMap((run) =>
    /^[\u4e00-\u9fff]{2}/.test(run) ? Array.from(run.slice(1), (second, index) => run[index] + second) : [run]
  );
"""

    def split(self, input: str) -> list[str]:
        """The pairs of all runs of Chinese characters, and the words of Latin letters."""
        pairs = [first + second for run in _RUNS.findall(input) for first, second in pairwise(run)]
        return [*pairs, *super().split(input)]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_search_language(SearchChineseByPairs)
    return {'parallel_read_safe': True}
