"""Name the images that are missing or damaged: the command ``mmrepvgg check-images`` as a script."""

from mmrepvgg.commands import check_images
from mmrepvgg.commands.running import run

if __name__ == '__main__':
    run(check_images)
