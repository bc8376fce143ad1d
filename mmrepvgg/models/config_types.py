"""What a config names by its ``type``."""

from typing import Any


def get_type_name(part_type: Any) -> str:
    """The bare name of a config's ``type``: a name with or without scope, or the class itself.

    ``'mmrepvgg.RepVGG'``, ``'RepVGG'`` and the class give ``'RepVGG'``. A config without type has None, which gives
    ``''``.
    """
    name = part_type if isinstance(part_type, str) else getattr(part_type, '__name__', '')
    return name.rpartition('.')[-1]
