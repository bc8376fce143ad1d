#!/usr/bin/env bash
# Create .venv with the pinned stack. Called by make; says what to install where pip can't.
set -euo pipefail
cd "$(dirname "$0")"
python=${PYTHON:-python3}

fail() {
    echo "install.sh: $*" >&2
    exit 1
}

command -v "$python" >/dev/null || fail "$python was not found; install Python 3.10 to 3.13 (Debian: apt-get install python3 python3-venv), or name one: make PYTHON=/path/to/python3"
"$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))' ||
    fail "$("$python" --version 2>&1) can't be used; Python must be 3.10 to 3.13: make PYTHON=python3.12"
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python has no venv module; install it (Debian and Ubuntu: apt-get install python3-venv)"

[ -x .venv/bin/python ] && .venv/bin/python -c 'import pip' 2>/dev/null || "$python" -m venv --clear .venv
.venv/bin/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[mmcv-lite,digits,dev]'

# OpenCV's wheels link against system libraries that slim images lack.
message=$(.venv/bin/python -c 'import cv2' 2>&1) ||
    fail "OpenCV can't be imported (${message##*$'\n'}); install its system libraries (Debian and Ubuntu: apt-get install libgl1 libglib2.0-0), then call make again"
touch .venv/installed
