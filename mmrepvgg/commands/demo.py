"""Serve a local page on which one drops images, and sees what a model says: classes, scores, where it looks, and how
long it takes.

Of a checkpoint in train form, both forms are shown side by side. Exported files can be added. Ctrl-C ends the server.
With --static, write a page instead that runs an ONNX file in the browser of whoever opens it.

example: mmrepvgg demo work_dirs/repvgg-a0_digits/epoch_20.pth
         mmrepvgg demo epoch_120.pth repvgg-a0.onnx repvgg-a0_int8.onnx --port 0
         mmrepvgg demo repvgg-a0.onnx --static site
"""

import argparse
import ipaddress
import sys
from functools import partial

from ..progress import starting
from ..runtimes.format import require_packages
from ..runtimes.table import list_suffixes
from ..zoo.configs import load_config
from .arguments import list_endings
from .errors import UsageError
from .files import require_weights

_MAX_PORT = 65535


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'files',
        nargs='+',
        metavar='MODEL_FILE',
        help=f'checkpoints in either form, and exported files ({list_endings(list_suffixes())})',
    )
    parser.add_argument(
        '--config',
        metavar='CONFIG',
        help='config of the model, a file or a name (default: what each file carries: exported files, and checkpoints '
        'of a training, say how images are read)',
    )
    parser.add_argument(
        '--host',
        default='127.0.0.1',
        help='address at which the page is served (default: 127.0.0.1, for this machine alone; 0.0.0.0 lets everyone '
        'in who can reach this machine)',
    )
    parser.add_argument('--port', type=_port, default=8501, help='port (default: 8501; 0: any that is free)')
    parser.add_argument(
        '--static',
        metavar='DIR',
        help='write a folder for any web server, whose page runs one ONNX file in the browser',
    )


def run(args: argparse.Namespace) -> None:
    if args.static is not None and len(args.files) > 1:
        raise UsageError(f'--static takes one ONNX file, got {len(args.files)} files')
    for file in args.files:
        require_weights(file)
    cfg = None if args.config is None else load_config(args.config)
    if args.static is not None:
        with starting():
            from ..demo.static import write_static_page

        written = write_static_page(args.files[0], args.static, config=cfg)
        print(f'{args.static}: {written.num_files} files, {written.size / 1e6:.1f} MB, for any web server')
        return
    require_packages('local pages', ['streamlit'], 'demo')
    if not _is_loopback(args.host):
        print(
            f'warning: everyone who can reach this machine at {args.host} can use the page: it has no password and no '
            'encryption',
            file=sys.stderr,
        )

    with starting():
        from ..demo.serving import serve_demo

    # this stdout: what Streamlit prints there is not shown
    report = partial(print, file=sys.stdout, flush=True)
    serve_demo(args.files, config=cfg, host=args.host, port=args.port, on_ready=report)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > _MAX_PORT:
        raise argparse.ArgumentTypeError(f'must be a whole number from 0 to {_MAX_PORT}, got {text!r}')
    return int(text)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == 'localhost'
