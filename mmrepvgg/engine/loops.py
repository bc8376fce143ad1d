"""The loop of a training by epochs, which can go on within an epoch."""

from collections.abc import Mapping
from typing import Any

from mmengine.runner import EpochBasedTrainLoop

from .seeding import SeededBatches

# In the meta of a checkpoint: how many batches of its epoch were trained, and how many the epoch has.
POSITION = 'epoch_position'


class EpochLoop(EpochBasedTrainLoop):
    """mmengine's loop, which goes on within an epoch if the checkpoint was written there.

    Without this class mmengine would begin such an epoch anew. What was trained of it is not read again.
    """

    _num_done = 0  # batches of the next epoch that an earlier process has trained
    _epoch_begin = 0  # number of the first iteration of the present epoch
    batches: SeededBatches | None = None

    def run_epoch(self) -> None:
        num_done, self._num_done = self._num_done, 0
        self._epoch_begin = self._iter - num_done
        if self.batches is not None:
            self.batches.iteration, self.batches.skip = self._iter, num_done
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        for index, data_batch in enumerate(self.dataloader, start=num_done):
            self.run_iter(index, data_batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1
        self._epoch_begin = self._iter

    def describe_position(self, epoch: int, iteration: int) -> dict[str, int]:
        """The entry :data:`POSITION` of a checkpoint of an epoch and an iteration."""
        num_done = iteration - self._epoch_begin if epoch == self._epoch else 0
        return dict(batches=num_done, of=len(self.dataloader))

    def take_position(self, meta: Mapping[str, Any]) -> None:
        """Go on where a checkpoint was written, before the training runs."""
        position = meta.get(POSITION) or {}
        num_done = position.get('batches', 0)
        if num_done and (self.batches is None or position.get('of') != len(self.dataloader)):
            self.runner.logger.warning(
                f'the checkpoint was written within epoch {meta["epoch"] + 1}, after {num_done} of its '
                f'{position.get("of")} batches; now an epoch has other batches, so this one begins anew'
            )
            num_done = 0
        self._num_done = num_done
