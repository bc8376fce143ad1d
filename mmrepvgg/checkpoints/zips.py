"""Opening ZIP archives, of which many formats are made. Imports no torch."""

import zipfile
from pathlib import Path
from typing import BinaryIO

# What an archive may declare its contents to take, in times of its own size and some bytes more. Weights can hardly be
# compressed; arrays of zeros are by a factor of 1000.
_MAX_RATIO, _FREE_BYTES = 32, 1 << 24


def open_zip(file: str | Path | BinaryIO, expected: int = 0) -> zipfile.ZipFile:
    """Open an archive for reading. Each member's checksum is compared when it has been read to its end.

    Args:
        file: The archive.
        expected: How many bytes its contents may well have, however small the archive is.

    Raises:
        zipfile.BadZipFile: If it is none, has two members of one name, or declares far more contents than a file of
            its size can have.
    """
    archive = zipfile.ZipFile(file)
    try:
        _check(archive, expected)
    except zipfile.BadZipFile:
        archive.close()
        raise
    return archive


def check_zip(file: Path) -> None:
    """Check all of an archive that another program is to read.

    Raises:
        zipfile.BadZipFile: If :func:`open_zip` does, or a checksum is wrong.
    """
    with open_zip(file) as archive:
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f'the checksum of {damaged} is wrong')


def _check(archive: zipfile.ZipFile, expected: int) -> None:
    members = archive.infolist()
    if len(members) != len(archive.NameToInfo):
        raise zipfile.BadZipFile('it has several members of one name')
    assert archive.fp is not None
    size = archive.fp.seek(0, 2)
    declared = sum(member.file_size for member in members)
    if declared > _MAX_RATIO * size + _FREE_BYTES + expected:
        raise zipfile.BadZipFile(f'its members are said to take {declared:,} bytes, too many for a file of {size:,}')
    # torch can be told to write no checksums, and writes 0 for them
    if not any(member.CRC for member in members):
        for member in members:
            del member.CRC
