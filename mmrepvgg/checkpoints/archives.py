"""Files of ``torch.export.save``: a look inside before torch opens them, for torch falls back to full pickles there."""

import io
import json
import pickle
import zipfile
from pathlib import Path

import torch

from .reading import CheckpointError

# The folders that a program and its weights take, below the archive's own; among others are compiled libraries.
_FOLDERS = ('data/weights/', 'data/constants/', 'data/sample_inputs/', 'models/', 'extra/', '.data/')
_FILES = ('archive_format', 'archive_version', 'byteorder', 'version')


def check_pt2(path: Path) -> None:
    """Check that loading a ``.pt2`` file runs no pickle with code in it and no compiled library.

    Raises:
        CheckpointError: If it would, or if the file is no such archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                _check_member(archive, member)
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError) as error:
        raise CheckpointError(f'{path} is no file of torch.export.save, or damaged: {error}') from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(f'{path} was refused, and nothing in it was run: {error}') from error


def _check_member(archive: zipfile.ZipFile, member: str) -> None:
    name = member.partition('/')[2]
    if not name.startswith(_FOLDERS) and name not in _FILES:
        raise pickle.UnpicklingError(f'{member} is no part of a program and its weights')
    if name.endswith('.pt') and archive.getinfo(member).file_size:  # torch writes none as an empty one
        try:
            torch.load(io.BytesIO(archive.read(member)), map_location='cpu', weights_only=True)
        except Exception as error:
            raise pickle.UnpicklingError(f'{member} holds more than tensors and plain data') from error
    elif name.endswith('_config.json'):
        for entry in json.loads(archive.read(member))['config'].values():
            if entry['use_pickle'] or entry['path_name'].startswith('custom_obj'):
                raise pickle.UnpicklingError(f'{member} refers to pickled objects')
