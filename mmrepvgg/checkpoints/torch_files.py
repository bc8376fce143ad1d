"""Files of ``torch.save``, read without ``torch.load``: as dense tensors and plain data, or not at all.

``torch.load(weights_only=True)`` calls everything in its allow-list with any arguments, and makes tensors of memory
that no file has filled. Here a tensor is a view of a storage that stands in the file.
"""

import io
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from .numpy_stand_ins import Inert, StandInError, is_shape
from .plain_pickles import PlainUnpickler
from .zips import open_zip

ZIP_START = b'PK\x03\x04'
# Before torch 1.6: a pickled number, then more pickles, then the storages.
LEGACY_START = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'

_STORAGES = {
    **dict(FloatStorage=torch.float32, DoubleStorage=torch.float64, HalfStorage=torch.float16),
    **dict(LongStorage=torch.int64, IntStorage=torch.int32, ShortStorage=torch.int16, CharStorage=torch.int8),
    **dict(BFloat16Storage=torch.bfloat16, ByteStorage=torch.uint8, BoolStorage=torch.bool),
    **dict(ComplexFloatStorage=torch.complex64, ComplexDoubleStorage=torch.complex128),
}
_DTYPES = {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}
# Storages and tensors together take at most so many times the file's size: some storages have several views.
_MAX_SHARE = 5
_CHUNK = 1 << 20


def read_torch(path: Path, stand_ins: Mapping[str, Any] | None = None) -> Any:
    """Read what ``torch.save`` wrote. What is neither a dense tensor nor plain data becomes an ``Inert``.

    Args:
        path: The file.
        stand_ins: See :class:`PlainUnpickler`; for names that a certain reader needs.

    Raises:
        StandInError: If it asks for what it can't have.
        Exception: Of any class, if the file is damaged.
    """
    with path.open('rb') as file:
        is_zip = file.read(4) == ZIP_START
        size = file.seek(0, 2)
        file.seek(0)
        return (_read_zip if is_zip else _read_legacy)(file, size, stand_ins or {})


def _read_zip(file: BinaryIO, size: int, stand_ins: Mapping[str, Any]) -> Any:
    with open_zip(file) as archive:
        folder = archive.namelist()[0].partition('/')[0]
        if f'{folder}/constants.pkl' in archive.namelist():
            raise StandInError('it is a program of TorchScript, whose file must end in .ts')
        if f'{folder}/byteorder' in archive.namelist() and archive.read(f'{folder}/byteorder') != b'little':
            raise StandInError('it is of a machine with another byte order')

        def read(key: str, num_elements: int, item_size: int) -> bytearray:
            member = archive.getinfo(f'{folder}/data/{key}')
            if member.file_size != num_elements * item_size:
                raise ValueError(f'{member.filename} is of another size than its tensors')
            with archive.open(member) as stream:
                return _read_exactly(stream, bytearray(member.file_size))

        pickled = archive.read(f'{folder}/data.pkl')
        return _unpickler(_TensorMaker(read, size), len(pickled), stand_ins).load(io.BytesIO(pickled))


def _read_legacy(file: BinaryIO, size: int, stand_ins: Mapping[str, Any]) -> Any:
    if file.read(len(LEGACY_START)) != LEGACY_START:
        raise ValueError('it does not start as files of torch.save do')
    storages: dict[str, tuple[int, bytearray]] = {}

    def allocate(key: str, num_elements: int, item_size: int) -> bytearray:
        storages[key] = num_elements, bytearray(num_elements * item_size)
        return storages[key][1]

    unpickler = _unpickler(_TensorMaker(allocate, size), size, stand_ins)
    for _ in ('protocol', 'system'):
        unpickler.load(file)
    content = unpickler.load(file)
    # what the tensors were made of is filled now
    for key in unpickler.load(file):
        num_elements, data = storages.pop(key)
        if int.from_bytes(file.read(8), 'little') != num_elements:
            raise ValueError(f'storage {key} is of another size than its tensors')
        _read_exactly(file, data)
    if storages:
        raise EOFError(f'{len(storages)} storages are missing')
    return content


def _read_exactly(stream: Any, data: bytearray) -> bytearray:
    view = memoryview(data)
    for start in range(0, len(data), _CHUNK):
        part = view[start : start + _CHUNK]
        if stream.readinto(part) != len(part):
            raise EOFError('a storage ends too early')
    return data


def _unpickler(maker: '_TensorMaker', size: int, others: Mapping[str, Any]) -> PlainUnpickler:
    stand_ins = {
        **_DTYPES,
        **{f'torch.{name}': dtype for name, dtype in _STORAGES.items()},
        'torch.storage.UntypedStorage': torch.uint8,
        **{f'torch._utils._rebuild_tensor{version}': maker.make for version in ('', '_v2', '_v3')},
        **{f'torch._utils._rebuild_parameter{kind}': maker.take_data for kind in ('', '_with_state')},
        **others,
    }
    return PlainUnpickler(stand_ins, size, maker.load_storage)


class _Storage(NamedTuple):
    data: Tensor  # uint8
    dtype: torch.dtype


class _TensorMaker:
    """Makes the tensors of one file.

    Args:
        read: Gives a storage by its key, its number of elements and their size in bytes.
        size: Of the file in bytes.
    """

    def __init__(self, read: Callable[[str, int, int], bytearray], size: int):
        self._read = read
        self._storages: dict[str, _Storage] = {}
        self._bytes_left = _MAX_SHARE * size

    def load_storage(self, identifier: Any) -> _Storage | Inert:
        kind, dtype, key, _, num_elements, *view = identifier
        if isinstance(dtype, Inert):  # of numbers that only quantized tensors have
            return dtype
        if kind != 'storage' or not isinstance(dtype, torch.dtype) or not isinstance(key, str):
            raise StandInError('it refers to something other than a storage')
        if any(each is not None for each in view) or not is_shape((num_elements,)):
            raise StandInError('it has a storage that is a part of another')  # as torch wrote before 0.4
        if key not in self._storages:
            self._take(num_elements * dtype.itemsize)
            data = self._read(key, num_elements, dtype.itemsize)
            tensor = torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
            self._storages[key] = _Storage(tensor, dtype)
        return self._storages[key]._replace(dtype=dtype)

    def make(self, storage: Any, offset: Any, size: Any, stride: Any, *others: Any) -> Tensor:
        """A tensor of as many elements as the storage has; the newest of torch's functions gives a dtype."""
        if not isinstance(storage, _Storage) or not is_shape((offset,)) or not is_shape(size) or not is_shape(stride):
            raise StandInError('a tensor must have a storage, an offset, a shape and strides')
        if any(type(other) is dict and other for other in others):
            raise StandInError('it has a tensor with a conjugate or negative bit')
        dtype = next((other for other in others if isinstance(other, torch.dtype)), storage.dtype)
        num_elements = math.prod(size)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if not num_elements:
            return torch.empty(size, dtype=dtype)
        if (last + 1) * dtype.itemsize > len(storage.data):
            raise StandInError(f'a tensor of shape {size} is larger than what the file has for it')
        self._take(num_elements * dtype.itemsize)
        return storage.data.view(dtype).as_strided(size, stride, offset)

    def _take(self, num_bytes: int) -> None:
        self._bytes_left -= num_bytes
        if self._bytes_left < 0:
            raise StandInError('its tensors are larger than the file')

    def take_data(self, data: Any, *others: Any) -> Any:
        """A parameter becomes the tensor that it is made from."""
        return data
