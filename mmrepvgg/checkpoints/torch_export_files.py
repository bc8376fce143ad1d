"""Files of ``torch.export.save``, made harmless before torch opens them.

torch unpickles parts of such a file, evaluates expressions in it, and makes Python code of its names. What the
program of a plain network needs passes here, and is copied: torch reads what was checked.
"""

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

from .numpy_stand_ins import StandInError
from .reading import as_checkpoint_errors
from .zips import open_zip

# The members, below the archive's own folder. Others hold compiled libraries, objects and more pickles.
_MEMBERS = re.compile(
    r'data/(weights|constants)/\w+(_config\.json)?|data/sample_inputs/\w+\.pt|models/\w+\.json|extra/[\w.]+|\.data/\w+'
    r'|archive_format|archive_version|byteorder|version'
)
_NAME = re.compile(r'\w*')
_NESTING = re.compile(r'([][{}:, 0-9]|null|"(type|context|children_spec|null|\[]|builtins\.(tuple|list|dict))")*')
# The texts in the JSON members: any, and those under certain keys.
_TEXT = re.compile(r'[\w.+-]*')
_TEXTS = {
    # evaluated: sizes, as sums, products and quotients of integers and symbols
    'expr_str': re.compile(r"((Add|Mul|FloorDiv|Integer)\(|Symbol\('\w+'(, \w+=True)*\)|-?\d+|, |\))*"),
    # looked up and called; from_file opens any file
    'target': re.compile(r'torch\.ops\.aten\.(?!from_file\.)\w+\.\w+'),
    # in Python code
    'name': _NAME,
    'as_name': _NAME,
    # JSON that says how arguments are nested
    'in_spec': _NESTING,
    'out_spec': _NESTING,
    'path_name': re.compile(r'(weight|tensor)_\d+'),
}
# What must be empty or false: Python code, pickles, and where in the source a node is from.
_UNWANTED = ('guards_code', 'use_pickle')


def read_torch_export(path: Path) -> io.BytesIO:
    """Copy a ``.pt2`` file for ``torch.export.load``.

    Raises:
        CheckpointError: If it is no such file, damaged, or holds more than the program of a network and its weights.
    """
    copy = io.BytesIO()
    with as_checkpoint_errors(path), open_zip(path) as archive, zipfile.ZipFile(copy, 'w') as written:
        names = archive.namelist()
        if len({name.lower() for name in names}) != len(names):  # torch finds them in either case
            raise StandInError('it has members whose names differ in capital letters only')
        for name in names:
            written.writestr(name, _check_member(name.partition('/')[2], archive.read(name)))
    copy.seek(0)
    return copy


def _check_member(name: str, content: bytes) -> bytes:
    if not _MEMBERS.fullmatch(name):
        raise StandInError(f'{name[:80]} is no part of a program and its weights')
    if name.startswith('data/sample_inputs/') and content:
        raise StandInError(f'{name} is a pickle')
    if not name.endswith('.json') or name.startswith('extra/'):
        return content
    return json.dumps(_check(json.loads(content), '')).encode()


def _check(node: Any, key: str) -> Any:
    """Check a part of a JSON member that stands under ``key``, and leave out where in the source it is from."""
    if key == 'metadata':
        return {}
    if key in _UNWANTED and node:
        raise StandInError(f'it has {key}, by which it could run code')
    if isinstance(node, dict):
        return {_check(name, ''): _check(value, name) for name, value in node.items()}
    if isinstance(node, list):
        return [_check(value, key) for value in node]
    if isinstance(node, str) and not _TEXTS.get(key, _TEXT).fullmatch(node):
        raise StandInError(f'it has {node[:80]!r} as {key or "a name"}, by which it could run code')
    return node
