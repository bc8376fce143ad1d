"""The check that pages stay on this machine: it must see those that don't."""

import http.server
import threading

import pytest
from browser import open_page


@pytest.mark.parametrize(
    ('body', 'problem'),
    [
        ('<img src="https://example.com/a.png">', r'asked for https://example\.com/a\.png'),
        ('<script src="http://example.com/a.js"></script>', r'asked for http://example\.com/a\.js'),
        ('<link rel="stylesheet" href="//example.com/a.css">', r'asked for https?://example\.com/a\.css'),
        ('<script>new WebSocket("wss://example.com/s")</script>', r'asked for wss://example\.com/s'),
        ('<script>console.error("oh")</script>', 'console: oh'),
        ('<script>throw new Error("ah")</script>', 'script: .*ah'),
    ],
)
def test_pages_that_reach_out_or_log_errors_fail(browser, tmp_path, body, problem):
    (tmp_path / 'page.html').write_text(f'<!doctype html><title>page</title>{body}')

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=tmp_path)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f'http://127.0.0.1:{server.server_port}/page.html'
        with pytest.raises(AssertionError, match=problem), open_page(browser, address) as page:
            page.wait_for_load_state()
        server.shutdown()


def test_a_page_of_this_machine_is_shown(browser, tmp_path):
    (tmp_path / 'page.html').write_text('<!doctype html><title>page</title><h1>Hello</h1>')
    with open_page(browser, (tmp_path / 'page.html').as_uri(), color_scheme='dark') as page:
        assert page.get_by_role('heading').inner_text() == 'Hello'
