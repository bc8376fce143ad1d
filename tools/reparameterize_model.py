"""Switch a trained checkpoint to deploy form: the command ``mmrepvgg reparameterize`` as a script."""

from mmrepvgg.commands import reparameterize
from mmrepvgg.commands.running import run

if __name__ == '__main__':
    run(reparameterize)
