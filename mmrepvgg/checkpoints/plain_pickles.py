"""Reading a pickle as data. No object of the file's choice is made, and nothing that it names is imported or called.

What is unknown becomes an :class:`Inert`, which keeps nothing: many files have objects of their program beside the
weights. A file that names what only an attack needs is refused as a whole. That is a notice, and no protection: nothing
would have been called.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pickletools import genops
from typing import Any, BinaryIO

from .numpy_stand_ins import NUMPY_STAND_INS, Inert, PlainArray, PlainDtype, StandInError, make_dtype

# Each makes at most one object. A checkpoint with the state of an optimizer takes some 100,000.
_MAX_OPCODES = 2_000_000
_MAX_ARGUMENTS = 16
_MAX_NAME = 80
_MAX_KEY = 1 << 60  # below it, no two whole numbers have the same hash
_LITERALS = {
    *('INT', 'BININT', 'BININT1', 'BININT2', 'LONG', 'LONG1', 'LONG4', 'FLOAT', 'BINFLOAT'),
    *('UNICODE', 'BINUNICODE', 'SHORT_BINUNICODE', 'BINUNICODE8', 'STRING', 'BINSTRING', 'SHORT_BINSTRING'),
    *('BINBYTES', 'SHORT_BINBYTES', 'BINBYTES8', 'BYTEARRAY8'),
}
_NEW: dict[str, Callable[[], Any]] = {
    **dict(NONE=lambda: None, NEWTRUE=lambda: True, NEWFALSE=lambda: False),
    **dict(EMPTY_DICT=dict, EMPTY_LIST=list, EMPTY_TUPLE=tuple, EMPTY_SET=lambda: Inert('builtins.set')),
}
# Functions that start programs, run code or reach files.
_ATTACKS = re.compile(
    r'(os|posix|nt)\.(?!\w*_result|terminal_size)\w.*'
    r'|(subprocess|commands)\.(Popen|run|call|check_\w+|get\w*output)'
    r'|(pty|runpy|ctypes|socket|shutil|webbrowser|code|_posixsubprocess)\.\w.*'
    r'|importlib\.(import_module|reload|__import__)'
    r'|_?io\.(open|open_code|FileIO)'
    r'|builtins\.(exec|eval|compile|open|__import__|input|breakpoint|execfile|apply)'
    r'|(torch|pickle|_pickle|marshal|numpy|joblib)\.((\w+\.)*loads?|(hub|jit|package|utils\.cpp_extension)\..+)'
)


class PlainUnpickler:
    """Interprets the pickles of one file. What they name is looked up in a table, and nothing else is ever called.

    Args:
        stand_ins: What pickles get for a name, beside numpy's types and functions. Any other name is inert.
        size: Of the file in bytes. Texts are not turned into more bytes than that.
        load_storage: Gives what a persistent id stands for. Without it a pickle can have none.
    """

    def __init__(self, stand_ins: Mapping[str, Any], size: int, load_storage: Callable[[Any], Any] | None = None):
        self._budget = _Budget(size)
        self._stand_ins = {
            **NUMPY_STAND_INS,
            'numpy.dtype': make_dtype,
            'collections.OrderedDict': self._budget.make_dict,
            'collections.defaultdict': _make_empty_dict,
            '_codecs.encode': self._budget.encode,  # by which protocol 2 stores bytes
            **stand_ins,
        }
        self._callables = {id(value) for value in self._stand_ins.values() if callable(value)}
        self._types = {value for value in self._stand_ins.values() if isinstance(value, type)}
        self._load_storage = load_storage

    def load(self, file: BinaryIO) -> Any:
        """Read one pickle. The file then stands behind it.

        Raises:
            StandInError: If the pickle asks for what it can't have.
            Exception: Of any class, if it is damaged.
        """
        stack: list[Any] = []
        marks: list[int] = []
        memo: dict[int, Any] = {}

        def pop(count: int | None = None) -> list[Any]:
            """The last values: so many, or all since the last mark."""
            start = marks.pop() if count is None else len(stack) - count
            items = stack[start:]
            del stack[start:]
            return items

        argument: Any
        for opcode, argument, _ in genops(file):
            self._budget.count(1)
            match opcode.name:
                case 'PROTO' | 'FRAME':
                    pass
                case name if name in _LITERALS:
                    stack.append(argument)
                case name if name in _NEW:
                    stack.append(_NEW[name]())
                case 'MARK':
                    marks.append(len(stack))
                case 'TUPLE' | 'TUPLE1' | 'TUPLE2' | 'TUPLE3' as name:
                    stack.append(tuple(pop(int(name[5:]) if name[5:] else None)))
                case 'APPEND' | 'APPENDS' as name:
                    items = pop(1 if name == 'APPEND' else None)
                    if type(stack[-1]) is not Inert:
                        _require(stack[-1], list).extend(items)
                case 'SETITEM' | 'SETITEMS' as name:
                    items = pop(2 if name == 'SETITEM' else None)
                    if type(stack[-1]) is not Inert:
                        _fill(stack[-1], zip(items[::2], items[1::2], strict=True))
                case 'ADDITEMS':
                    pop()
                    _require(stack[-1], Inert)
                case 'FROZENSET':
                    pop()
                    stack.append(Inert('builtins.frozenset'))
                case 'BINPUT' | 'LONG_BINPUT' | 'PUT':
                    memo[argument] = stack[-1]
                case 'MEMOIZE':
                    memo[len(memo)] = stack[-1]
                case 'BINGET' | 'LONG_BINGET' | 'GET':
                    stack.append(memo[argument])
                case 'GLOBAL':
                    stack.append(self._find(*argument.split(' ', 1)))
                case 'STACK_GLOBAL':
                    stack.append(self._find(*(_require(text, str) for text in pop(2))))
                case 'REDUCE' | 'NEWOBJ':
                    stack.append(self._call(*pop(2)))
                case 'NEWOBJ_EX':
                    stack.append(_require(pop(3)[0], Inert))
                case 'BUILD':
                    state = stack.pop()
                    if type(stack[-1]) is not dict:  # attributes of an OrderedDict, which nobody reads
                        _require(stack[-1], *self._types, PlainArray, PlainDtype, Inert).__setstate__(state)
                case 'BINPERSID' if self._load_storage is not None:
                    stack.append(self._load_storage(stack.pop()))
                case 'STOP':
                    break
                case name:
                    raise StandInError(f'it has a part of the kind {name}, which no checkpoint needs')
        return stack.pop()

    def _find(self, module: str, name: str) -> Any:
        full_name = f'{module.replace("__builtin__", "builtins")}.{name}'  # Python 2's name
        if _ATTACKS.fullmatch(full_name):
            raise StandInError(f'it refers to {full_name[:80]}, by which a file can run programs')
        return self._stand_ins[full_name] if full_name in self._stand_ins else Inert(full_name[:_MAX_NAME])

    def _call(self, function: Any, arguments: Any) -> Any:
        if type(function) is Inert:
            return function
        if id(function) not in self._callables or len(_require(arguments, tuple)) > _MAX_ARGUMENTS:
            raise StandInError(f'it calls an object of the type {type(function).__name__}')
        # what needs something unknown is unknown
        inert = next((argument for argument in arguments if type(argument) is Inert), None)
        return function(*arguments) if inert is None or function is _make_empty_dict else inert


class _Budget:
    """What the pickles of one file may still make.

    Nothing here refers to the unpickler: its memory, which is the file's, is free as soon as it is.
    """

    def __init__(self, size: int):
        self._objects_left = _MAX_OPCODES
        self._bytes_left = size

    def count(self, num_objects: int) -> None:
        self._objects_left -= num_objects
        if self._objects_left < 0:
            raise StandInError(f'it has more than {_MAX_OPCODES:,} parts')

    def make_dict(self, items: Any = ()) -> dict[Any, Any]:
        self.count(len(items))
        result: dict[Any, Any] = {}
        _fill(result, items.items() if isinstance(items, dict) else items)
        return result

    def encode(self, text: Any, encoding: Any) -> bytes:
        if encoding != 'latin1':
            raise StandInError('bytes must be encoded as latin1')
        self._bytes_left -= len(_require(text, str))
        if self._bytes_left < 0:
            raise StandInError('its texts become more bytes than the file has')
        return text.encode('latin1')


def _make_empty_dict(*factory: Any) -> dict[Any, Any]:
    """Stands in for ``defaultdict``, whose factory is a class."""
    return {}


def _fill(target: Any, items: Iterable[Any]) -> None:
    _require(target, dict)
    for key, value in items:
        if type(key) is Inert:
            continue
        # other keys take endless time to hash, crash Python, or have all the same hash
        for part in key if type(key) is tuple else (key,):
            _require(part, str, bytes, int, float, bool, type(None))
            if (type(part) is int and abs(part) >= _MAX_KEY) or (type(key) is tuple and len(key) > _MAX_ARGUMENTS):
                raise StandInError('a key in a dict is too large')
        target[key] = value


def _require(value: Any, *types: type) -> Any:
    if type(value) not in types:
        raise StandInError(f'{" or ".join(each.__name__ for each in types)} expected, got {type(value).__name__}')
    return value
