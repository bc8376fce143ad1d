"""Errors as one line, in the words of the command line.

The library names its arguments and functions in backticks. Here they become options and commands.
"""

import argparse
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .table import COMMANDS

AddArguments = Callable[[argparse.ArgumentParser], None]


class UsageError(Exception):
    """Arguments that contradict each other: exit status 2."""


@contextmanager
def checking_usage() -> Iterator[None]:
    """Make a :class:`UsageError` of a ``ValueError`` in the block."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from None


def describe(error: Exception, add_arguments: AddArguments) -> str:
    """One line about an error in a command.

    Args:
        error: What was raised.
        add_arguments: That of the command.
    """
    text = str(error)
    if 'Original Traceback' in text:  # a data loader's worker has put the whole of it into the message
        return text.strip().splitlines()[-1]
    text = translate(' '.join(text.split()), add_arguments)
    # Our own errors say it all; of others the type is part of the message.
    own = (ValueError, FileNotFoundError, IsADirectoryError, PermissionError)
    if type(error).__module__.startswith('mmrepvgg') or (type(error) in own and not getattr(error, 'errno', None)):
        return text
    return f'{type(error).__name__}: {text}'


def translate(text: str, add_arguments: AddArguments) -> str:
    """Replace the names in backticks that the command line has, too; others stay as they are.

    A function becomes its command. An argument becomes the option of this command, or of a command that ``text``
    names. A setting, as in ```model.backbone.deploy=True```, becomes a value of ``--cfg-options``.
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
    return {action.dest: action for action in parser._actions}


def _format_argument(action: argparse.Action, value: str | None) -> str:
    if not action.option_strings:
        return str(action.metavar or action.dest)
    if isinstance(action, argparse.BooleanOptionalAction):
        # without a value, what a user gives is the contrary of the default
        is_on = value == 'True' if value else not action.default
        return action.option_strings[0 if is_on else 1]
    if value is None or action.nargs == 0:
        return action.option_strings[0]
    return f'{action.option_strings[0]} {value.strip(chr(39))}'
