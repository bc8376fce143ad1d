"""Get the source of ncnn, which pip can download and check, but not save.

python examples/cpp/get_ncnn.py build/ncnn-source

The version that ncnn's setup.py tells is the day on which it is asked, so pip refuses each source that is older than
today. With --no-clean it leaves what it has downloaded, checked by its hash and unpacked.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = 'ncnn==1.0.20261020 --hash=sha256:ad8cdd63e9755cfa8e23b9b6d9ce46156077d80298a89e7c3ba325ffccfca200'


def main(target: Path) -> None:
    if target.exists():
        sys.exit(f'{target} exists; move it away or name another folder')
    with tempfile.TemporaryDirectory() as scratch:
        requirements = Path(scratch, 'requirements.txt')
        requirements.write_text(SOURCE)
        options = ['--no-clean', '--no-deps', '--no-binary', 'ncnn', '--no-build-isolation', '--dest', scratch]
        pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check', 'download', *options, '-r', requirements]
        done = subprocess.run(pip, env={**os.environ, 'TMPDIR': scratch}, capture_output=True, text=True)
        found = list(Path(scratch).glob('pip-download-*/ncnn_*/src/net.h'))
        if not found:
            sys.exit(f'{done.stdout}{done.stderr}\npip could not get the source of ncnn')
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(f'.{target.name}.{os.getpid()}')
        shutil.move(found[0].parents[1], unfinished)
        unfinished.rename(target)


if __name__ == '__main__':
    if len(sys.argv) != 2:
        sys.exit('usage: get_ncnn.py FOLDER')
    main(Path(sys.argv[1]))
