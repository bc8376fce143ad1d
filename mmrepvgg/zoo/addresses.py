"""Weights at an address of OpenMMLab."""

import re
import sys
from pathlib import Path
from urllib.error import URLError

import torch

from ..checkpoints.errors import CheckpointError


def download_address(address: str) -> Path:
    """Download a checkpoint into torch's cache, unless it is there, and compare it with the hash in its name.

    Raises:
        CheckpointError: If it can't be downloaded, or is damaged.
    """
    name = address.rsplit('/', 1)[1]
    file = Path(torch.hub.get_dir(), 'checkpoints', name)
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        # OpenMMLab's names end in the first 8 digits of the SHA-256
        match = re.search(r'-([0-9a-f]{8,})\.', name)
        try:
            torch.hub.download_url_to_file(address, str(file), match and match[1], progress=sys.stderr.isatty())
        except (URLError, OSError) as error:
            raise CheckpointError(
                f'{address} could not be downloaded ({error}); download it elsewhere and put it at {file}'
            ) from error
        except RuntimeError as error:
            raise CheckpointError(f'{address} was downloaded and refused: {error}; download it again') from error
    return file
