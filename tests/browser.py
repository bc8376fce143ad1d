"""A headless Chromium, and pages that may not reach any network beyond this machine."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

_NAMES = ('chromium', 'chromium-browser', 'google-chrome')
_LOCAL_SCHEMES = ('file', 'data', 'blob', 'about')
_LOCAL_HOSTS = ('localhost', '127.0.0.1', '::1')


# Of a module, not of a session: while playwright runs, its event loop is the thread's, and asyncio refuses others.
@pytest.fixture(scope='module')
def browser() -> Iterator[Any]:
    """A Chromium: one in PATH, or playwright's own."""
    api = pytest.importorskip('playwright.sync_api', reason='no playwright')
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    with api.sync_playwright() as playwright:
        # a process of root has no sandbox; the pages are the tests' own
        options: dict[str, Any] = dict(executable_path=found, args=['--no-sandbox'])
        try:
            chromium = playwright.chromium.launch(**options)
        except api.Error as error:
            pytest.skip(f'no Chromium (make browser): {str(error).splitlines()[0]}')
        yield chromium
        chromium.close()


@contextmanager
def open_page(browser: Any, url: str, **options: Any) -> Iterator[Any]:
    """Open a page that reaches this machine alone, and check at the end that it asked for nothing else.

    Args:
        browser: The fixture.
        url: Address of the page: of a file, or of a server on this machine.
        **options: Arguments of playwright's ``Browser.new_context``, for example ``color_scheme='dark'``.

    Yields:
        The page of playwright's sync API.

    Raises:
        AssertionError: If the page asked for something beyond this machine, or if the console had an error.
    """
    problems: list[str] = []
    context = browser.new_context(service_workers='block', **options)

    def check(address: str) -> None:
        if not _is_local(address):
            problems.append(f'asked for {address}')

    def route(request: Any) -> None:
        if _is_local(request.request.url):
            request.continue_()
        else:
            request.abort()

    def route_socket(socket: Any) -> None:
        check(socket.url)
        if _is_local(socket.url):
            socket.connect_to_server()
        else:
            socket.close()

    try:
        context.route('**/*', route)
        # asked when the page's code makes a socket; the event of that name waits for the network, and may be too late
        context.route_web_socket('**/*', route_socket)
        context.on('request', lambda request: check(request.url))
        context.on('console', lambda message: message.type == 'error' and problems.append(f'console: {message.text}'))
        context.on('weberror', lambda error: problems.append(f'script: {error.error}'))
        page = context.new_page()
        page.goto(url)
        yield page
        if not page.is_closed():
            page.evaluate('null')  # what the page did until here has been reported when this comes back
    finally:
        context.close()
    assert not problems, problems


def _is_local(address: str) -> bool:
    parts = urlsplit(address)
    return parts.scheme in _LOCAL_SCHEMES or parts.hostname in _LOCAL_HOSTS
