"""The server of the local page: Streamlit, in this process, for this machine alone unless a host says otherwise."""

import contextlib
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mmengine.config import Config

from ..data.images import UnreadableImageError
from ..progress import working
from ..runtimes.format import require_packages
from .answers import examine
from .cards import render_answers, render_error, render_heading
from .forms import Form, load_forms

_MAX_UPLOAD = 64  # MB an image
_PAGE = Path(__file__).parent / 'page.py'


class Show:
    """The models behind the page, which all visitors share: they take turns, so that times are right."""

    def __init__(self, forms: Sequence[Form]):
        self._forms = forms
        self._lock = threading.Lock()
        self.title = ', '.join(dict.fromkeys(form.file.name for form in forms))
        self.heading = render_heading(self.title, forms)

    def look(self, name: str, content: bytes) -> str:
        """The card of an image as HTML."""
        with tempfile.TemporaryDirectory(prefix='mmrepvgg-') as folder, self._lock:
            path = Path(folder, 'image')
            path.write_bytes(content)
            try:
                return render_answers(name, examine(self._forms, path))
            except UnreadableImageError as error:
                return render_error(name, f'This image can not be read: {error}')
            except ValueError as error:
                return render_error(name, str(error))


class PortError(ValueError):
    """A page can't be served at an address."""


_show: Show | None = None


def get_show() -> Show:
    """The models that :func:`serve_demo` serves in this process."""
    assert _show is not None
    return _show


def serve_demo(
    files: Sequence[str | Path],
    *,
    config: Config | None = None,
    host: str = '127.0.0.1',
    port: int = 8501,
    on_ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve a page on which one drops images and sees what each form of a model says, until SIGINT or SIGTERM comes.

    Args:
        files: Checkpoints, and files of ``export_model`` and ``quantize_model``. Of a checkpoint in train form both
            forms are shown.
        config: Config for all files. Default: what each file carries.
        host: Address on which the page is served. Any but the default lets other machines in.
        port: Port; 0 for any that is free.
        on_ready: Function that is called with the address of the page when it can be opened.

    Raises:
        PortError: If the port is taken, or this machine has no such address.
        MissingPackageError: If Streamlit is not installed, or the runtime of a file.
        NoConfigError, ValueError, CheckpointError: If a file can't be shown.
    """
    global _show
    require_packages('local pages', ['streamlit'], 'demo')
    from streamlit import net_util
    from streamlit.web import cli

    port = _find_port(host, port)
    with working('reading the models'):
        _show = Show(load_forms(files, config))
    # Where a page from elsewhere asks for this one, Streamlit would ask a server in the internet for its own address.
    net_util._external_ip = net_util._internal_ip = '127.0.0.1'
    options = {
        'global.developmentMode': False,  # which lets other pages in
        'server.address': host,
        'server.port': port,
        'server.headless': True,  # no browser, and no question for an e-mail address
        'server.fileWatcherType': 'none',
        'server.maxUploadSize': _MAX_UPLOAD,
        'server.enableXsrfProtection': True,
        'server.enableCORS': True,
        'browser.gatherUsageStats': False,
        'client.toolbarMode': 'viewer',
        'client.showErrorDetails': 'none',
        'logger.level': 'error',
    }
    threading.Thread(target=_wait, args=(host, port, on_ready), daemon=True).start()
    with open(os.devnull, 'w') as sink, contextlib.redirect_stdout(sink):
        cli.main(['run', str(_PAGE), *(f'--{key}={value}' for key, value in options.items())], standalone_mode=False)


def _find_port(host: str, port: int) -> int:
    """The port, or a free one for 0. Streamlit would try others, or print its own words."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    except OSError as error:
        raise PortError(
            f'no page can be served at port {port} of {host} ({error.strerror}); give another `port`, 0 for any that '
            'is free, or another `host`'
        ) from error


def _wait(host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Report the address as soon as the server answers. That of all addresses is the name of the machine."""
    reachable, shown = {'0.0.0.0': ('127.0.0.1', socket.gethostname()), '::': ('::1', socket.gethostname())}.get(
        host, (host, f'[{host}]' if ':' in host else host)
    )
    while True:
        with contextlib.suppress(OSError), socket.create_connection((reachable, port), timeout=1):
            on_ready(f'http://{shown}:{port}/')
            return
        time.sleep(0.05)
