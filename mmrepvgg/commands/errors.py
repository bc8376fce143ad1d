"""Errors as one line, in the words of the command line.

The library names its arguments and functions in backticks. This module replaces them by options and commands.
"""

import argparse
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..printable import make_printable
from .table import COMMANDS

# Before the message in a traceback.
_OWN_TYPE = re.compile(r'^mmrepvgg[\w.]*: ')

# How PyTorch, ONNX Runtime, OpenVINO, OpenCV, NumPy and the system say it; the last line is of the processes that read.
_OUT_OF_MEMORY = re.compile(
    r"can't allocate memory|cannot allocate memory|out of memory|(?:failed|unable) to allocate|bad[_ ]alloc"
    r'|insufficient memory|not enough memory'
    r'|killed by signal: (?:Killed|Bus error)',
    re.IGNORECASE,
)
_ASKED = re.compile(r'(?:allocate|of size) (?P<amount>\d{4,}|[\d.]+ [KMGTPE]iB)')

AddArguments = Callable[[argparse.ArgumentParser], None]


class UsageError(Exception):
    """Arguments contradict each other. The exit status is 2."""


@contextmanager
def checking_usage() -> Iterator[None]:
    """Change a ``ValueError`` of the block to a :class:`UsageError`."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from None


def describe(error: Exception, add_arguments: AddArguments, memory: str = '') -> str:
    """Describe an error in one line.

    Args:
        error: The error.
        add_arguments: Function of the command that adds its arguments.
        memory: The settings that need less memory if they are lower, in backticks.
    """
    text = str(error)
    if is_out_of_memory(error):
        return translate(_describe_memory(text, memory), add_arguments)
    if 'Original Traceback' in text:  # a data loader's worker puts the whole traceback into the message
        return translate(make_printable(_OWN_TYPE.sub('', text.strip().splitlines()[-1])), add_arguments)
    text = translate(make_printable(' '.join(text.split())), add_arguments)
    # other libraries' errors are hard to understand without their type
    own = (ValueError, FileNotFoundError, FileExistsError, IsADirectoryError, PermissionError)
    if type(error).__module__.startswith('mmrepvgg') or (type(error) in own and not getattr(error, 'errno', None)):
        return text
    return f'{type(error).__name__}: {text}'


def is_out_of_memory(error: Exception) -> bool:
    """Whether the memory, of the machine or of the GPU, was too small for what was asked of it."""
    return isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)) is not None


def _describe_memory(text: str, memory: str) -> str:
    asked = _ASKED.search(text)
    amount = ''
    if asked:
        size = asked['amount']
        amount = f' for {int(size) / 1e9:.2f} GB more' if size.isdecimal() else f' for {size} more'
    advice = f'lower {memory}' if memory else 'give smaller images or a smaller model, or take a machine with more'
    return f'there is not enough memory{amount}; {advice}'


def translate(text: str, add_arguments: AddArguments) -> str:
    """Replace names in backticks by their names on the command line. Unknown names stay as they are.

    A function becomes its command. An argument becomes the option of this command, or of a command that ``text``
    names. A setting such as ```model.backbone.deploy=True``` becomes a value of ``--cfg-options``.

    Args:
        text: Message of the library.
        add_arguments: Function of the command that adds its arguments.
    """
    named = [command for command in COMMANDS.values() if f'`{command.function}`' in text]
    own = _list_arguments(add_arguments)
    arguments = dict(own)
    for command in named:
        arguments |= _list_arguments(command.load().add_arguments)
    arguments |= {name: action for name, action in own.items() if action.option_strings}
    commands = {command.function: str(command) for command in named}

    def replace(match: re.Match[str]) -> str:
        name, value = match['name'], match['value']
        if name in commands and value is None:
            return commands[name]
        if name in arguments:
            return _format_argument(arguments[name], value)
        if '.' in name and value is not None and 'cfg_options' in arguments:
            return f'--cfg-options {name}={value}'
        return match[0]

    return re.sub(r'`(?P<name>[A-Za-z_][\w.]*)(?:=(?P<value>[^`]*))?`', replace, text)


def _list_arguments(add_arguments: AddArguments) -> dict[str, argparse.Action]:
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    named = {name.lstrip('-').replace('-', '_'): action for action in parser._actions for name in action.option_strings}
    return named | {action.dest: action for action in parser._actions}


def _format_argument(action: argparse.Action, value: str | None) -> str:
    if not action.option_strings:
        return str(action.metavar or action.dest)
    if isinstance(action, argparse.BooleanOptionalAction):
        # without a value the message means the option that changes the default
        is_on = value == 'True' if value else not action.default
        return action.option_strings[0 if is_on else 1]
    if value is None or action.nargs == 0:
        return action.option_strings[0]
    return f'{action.option_strings[0]} {value.strip(chr(39))}'
