"""``python -m mmrepvgg`` is the command ``mmrepvgg``."""

from .commands.main import main

if __name__ == '__main__':
    main()
