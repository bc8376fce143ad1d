"""A Python that has imported torch and mmpretrain, and forks for each program: these imports take seconds in each.

``serve`` listens at a socket. The stand-ins for ``mmrepvgg`` and ``python`` send it their arguments, folder, variables
and open files. A child of the server becomes that program, with the same code as a process of its own would run.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import stat
import sys
import threading
import traceback
from pathlib import Path

# A stand-in: any Python starts it in some 20 ms, without site-packages.
_CLIENT = """#!{python} -IS
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
socket.send_fds(server, [b'-'], [0, 1, 2])
server.sendall(json.dumps([{name!r}, sys.argv[1:], os.getcwd(), dict(os.environ)]).encode())
server.shutdown(socket.SHUT_WR)
sys.exit(int(server.recv(16) or 1))
"""


def write_stand_ins(folder: Path, address: Path) -> None:
    for name in ('mmrepvgg', 'python'):
        program = folder / name
        program.write_text(_CLIENT.format(python=sys.executable, address=str(address), name=name))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)


def serve(address: str) -> None:
    # for the children
    for name in ('mmpretrain', 'mmrepvgg.registry', 'torch.onnx', 'onnxscript', 'onnxruntime'):
        importlib.import_module(name)
    # else each child would copy the memory of all these modules when it collects garbage
    gc.freeze()

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    # children are not waited for here
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print('ready', flush=True)
    while True:
        client, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            _serve_one(client)
        client.close()


def _serve_one(client: socket.socket) -> None:
    """In a child of the server: fork the program, and send its status. This does not return."""
    _, files, *_ = socket.recv_fds(client, 1, 3)
    request = b''
    while piece := client.recv(65536):
        request += piece
    program = os.fork()
    if program == 0:
        client.close()
        os._exit(_run(*json.loads(request), files))
    _, status = os.waitpid(program, 0)
    client.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _run(name: str, arguments: list[str], folder: str, variables: dict[str, str], files: list[int]) -> int:
    """Run a program to its end, but for taking down Python itself, which costs a second with so many modules."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    # the server's own ones remember what they were opened on
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, 'w', closefd=False)
    sys.stderr = os.fdopen(2, 'w', buffering=1, errors='backslashreplace', closefd=False)
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    sys.path[0] = ''
    try:
        _interpret(['-m', 'mmrepvgg', *arguments] if name == 'mmrepvgg' else arguments)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    return status


def _interpret(arguments: list[str]) -> None:
    """What ``python`` does with its arguments."""
    kind = arguments[0]
    if kind == '-m':
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name='__main__', alter_sys=True)
    elif kind == '-c':
        sys.argv = ['-c', *arguments[2:]]
        exec(compile(arguments[1], '<string>', 'exec'), {'__name__': '__main__'})
    else:
        sys.argv = arguments
        sys.path[0] = str(Path(kind).resolve().parent)
        runpy.run_path(kind, run_name='__main__')


if __name__ == '__main__':
    serve(sys.argv[1])
