"""Reading a pickle as data. No object of the file's choice is made, and nothing that it names is imported or called."""

from collections.abc import Callable, Iterable, Mapping
from pickletools import genops
from typing import Any, BinaryIO

from .numpy_stand_ins import NUMPY_STAND_INS, PlainArray, PlainDtype, StandInError

# Each makes at most one object. A checkpoint with the state of an optimizer takes some 100,000.
_MAX_OPCODES = 2_000_000
_MAX_KEY = 1 << 60  # below it, no two whole numbers have the same hash
_MAX_ARGUMENTS = 16
_LITERALS = {
    *('INT', 'BININT', 'BININT1', 'BININT2', 'LONG', 'LONG1', 'LONG4', 'FLOAT', 'BINFLOAT'),
    *('UNICODE', 'BINUNICODE', 'SHORT_BINUNICODE', 'BINUNICODE8', 'STRING', 'BINSTRING', 'SHORT_BINSTRING'),
    *('BINBYTES', 'SHORT_BINBYTES', 'BINBYTES8'),
}


class Inert:
    """Stands in for what nobody reads: it takes everything and keeps nothing."""

    def __init__(self, *arguments: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class PlainDict(dict[Any, Any]):
    """Stands in for ``OrderedDict`` and its like, without their attributes."""

    def __setstate__(self, state: Any) -> None:
        pass


class PlainUnpickler:
    """Interprets the pickles of one file. What they name is looked up in a table, and nothing else is ever called.

    Args:
        stand_ins: What pickles may name beside numpy's types and functions, and what they get for it.
        size: Of the file in bytes. Texts are not turned into more bytes than that.
        load_storage: Gives what a persistent id stands for. Without it a pickle can have none.
    """

    def __init__(self, stand_ins: Mapping[str, Any], size: int, load_storage: Callable[[Any], Any] | None = None):
        self._stand_ins = {
            **NUMPY_STAND_INS,
            'collections.OrderedDict': self._make_dict,
            '_codecs.encode': self._encode,  # by which protocol 2 stores bytes
            'builtins.bytes': self._make_no_bytes,
            **stand_ins,
        }
        self._callables = {id(value) for value in self._stand_ins.values()}
        self._load_storage = load_storage
        self._bytes_left = size
        self._objects_left = _MAX_OPCODES

    def load(self, file: BinaryIO) -> Any:
        """Read one pickle. The file then stands behind it.

        Raises:
            StandInError: If the pickle asks for what it can't have.
            ValueError, TypeError, LookupError, ArithmeticError, MemoryError: If it is damaged.
        """
        stack: list[Any] = []
        marks: list[int] = []
        memo: dict[int, Any] = {}

        def pop_items() -> list[Any]:
            start = marks.pop()
            items = stack[start:]
            del stack[start:]
            return items

        argument: Any
        for opcode, argument, _ in genops(file):
            self._count(1)
            match opcode.name:
                case 'PROTO' | 'FRAME':
                    pass
                case name if name in _LITERALS:
                    stack.append(argument)
                case 'NONE':
                    stack.append(None)
                case 'NEWTRUE' | 'NEWFALSE' as name:
                    stack.append(name == 'NEWTRUE')
                case 'EMPTY_DICT':
                    stack.append({})
                case 'EMPTY_LIST':
                    stack.append([])
                case 'EMPTY_TUPLE':
                    stack.append(())
                case 'MARK':
                    marks.append(len(stack))
                case 'TUPLE':
                    stack.append(tuple(pop_items()))
                case 'TUPLE1' | 'TUPLE2' | 'TUPLE3' as name:
                    stack[-int(name[-1]) :] = [tuple(stack[-int(name[-1]) :])]
                case 'APPEND':
                    item = stack.pop()
                    _require(stack[-1], list).append(item)
                case 'APPENDS':
                    items = pop_items()
                    _require(stack[-1], list).extend(items)
                case 'SETITEM':
                    value, key = stack.pop(), stack.pop()
                    _fill(stack[-1], [(key, value)])
                case 'SETITEMS':
                    items = pop_items()
                    _fill(stack[-1], zip(items[::2], items[1::2], strict=True))
                case 'BINPUT' | 'LONG_BINPUT' | 'PUT':
                    memo[argument] = stack[-1]
                case 'MEMOIZE':
                    memo[len(memo)] = stack[-1]
                case 'BINGET' | 'LONG_BINGET' | 'GET':
                    stack.append(memo[argument])
                case 'GLOBAL':
                    stack.append(self._find(*argument.split(' ', 1)))
                case 'STACK_GLOBAL':
                    name, module = stack.pop(), stack.pop()
                    stack.append(self._find(_require(module, str), _require(name, str)))
                case 'REDUCE' | 'NEWOBJ':
                    arguments = stack.pop()
                    stack.append(self._call(stack.pop(), arguments))
                case 'BUILD':
                    state = stack.pop()
                    _require(stack[-1], PlainArray, PlainDtype, PlainDict, Inert).__setstate__(state)
                case 'BINPERSID' if self._load_storage is not None:
                    stack.append(self._load_storage(stack.pop()))
                case 'STOP':
                    break
                case name:
                    raise StandInError(f'it has a part of the kind {name}, which no checkpoint needs')
        return stack.pop()

    def _count(self, num_objects: int) -> None:
        self._objects_left -= num_objects
        if self._objects_left < 0:
            raise StandInError(f'it has more than {_MAX_OPCODES:,} parts')

    def _find(self, module: str, name: str) -> Any:
        full_name = f'{module.replace("__builtin__", "builtins")}.{name}'  # Python 2's name
        if full_name not in self._stand_ins:
            raise StandInError(f'it refers to {full_name[:80]}, which is neither a tensor nor plain data')
        return self._stand_ins[full_name]

    def _call(self, function: Any, arguments: Any) -> Any:
        if id(function) not in self._callables or not callable(function):
            raise StandInError(f'it calls an object of the type {type(function).__name__}')
        if type(arguments) is not tuple or len(arguments) > _MAX_ARGUMENTS:
            raise StandInError(f'it calls something with more than {_MAX_ARGUMENTS} arguments')
        return function(*arguments)

    def _make_dict(self, items: Any = ()) -> PlainDict:
        self._count(len(items))
        result = PlainDict()
        _fill(result, items.items() if isinstance(items, dict) else items)
        return result

    def _encode(self, text: Any, encoding: Any) -> bytes:
        if encoding != 'latin1':
            raise StandInError('bytes must be encoded as latin1')
        self._bytes_left -= len(_require(text, str))
        if self._bytes_left < 0:
            raise StandInError('its texts become more bytes than the file has')
        return text.encode('latin1')

    def _make_no_bytes(self) -> bytes:
        return b''


def _fill(target: Any, items: Iterable[Any]) -> None:
    _require(target, dict, PlainDict)
    for key, value in items:
        # other keys could take endless time to hash, or crash Python, or all have the same hash
        for part in key[:_MAX_ARGUMENTS] if type(key) is tuple else (key,):
            _require(part, str, bytes, int, float, bool, type(None))
            if type(part) is int and abs(part) >= _MAX_KEY:
                raise StandInError('a number that is a key in a dict is too large')
        target[key] = value


def _require(value: Any, *types: type) -> Any:
    if type(value) not in types:
        raise StandInError(f'{" or ".join(each.__name__ for each in types)} expected, got {type(value).__name__}')
    return value
