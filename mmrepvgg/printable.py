"""Texts out of files, which may hold anything, on their way to a terminal."""


def make_printable(text: str) -> str:
    """Show control characters as escapes: a terminal would obey them, and some hide what stands before them."""
    if text.isprintable():
        return text
    return ''.join(each if each.isprintable() else each.encode('unicode_escape').decode() for each in text)
