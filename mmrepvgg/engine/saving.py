"""Checkpoints that are whole: written beside their place and renamed; what they supersede is removed after that."""

import os
from pathlib import Path
from typing import Any

from mmengine import hooks
from mmengine.dist import is_main_process
from mmengine.fileio import FileClient, LocalBackend, get_file_backend
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..checkpoints.writing import replacing

NOTE = 'last_checkpoint'  # mmengine's, with the path of the latest checkpoint
# Written when a signal ends a training, in the place of the one before.
INTERRUPTED = 'interrupted.pth'


class CheckpointHook(hooks.CheckpointHook):
    """mmengine's hook, which here removes old checkpoints when the new one and the note of the latest are written.

    mmengine's own removes them first: a training that is killed while it saves would have lost both.
    """

    file_backend: Any
    best_ckpt_path: str | None

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        self.file_backend = _RemovesLater(self.file_backend)
        # A resumed training knows the paths of the best checkpoints before. If it was in another folder, the files
        # there are not this one's to remove.
        if hasattr(self, 'best_ckpt_path'):
            self.best_ckpt_path = self._move_here(self.best_ckpt_path)
        for metric, path in getattr(self, 'best_ckpt_path_dict', {}).items():
            self.best_ckpt_path_dict[metric] = self._move_here(path)

    def _move_here(self, path: str | None) -> str | None:
        return path and self.file_backend.join_path(self.out_dir, Path(path).name)

    # mmengine's method, in another order
    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        superseded = [INTERRUPTED]
        if self.max_keep_ckpts > 0 and step not in list(self.keep_ckpt_ids)[-1:]:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                superseded.append(self.filename_tmpl.format(self.keep_ckpt_ids[0]))
            # With one too many: a resumed training removes it, should this one be killed before it does.
            runner.message_hub.update_info('keep_ckpt_ids', [*self.keep_ckpt_ids, step])
            self.keep_ckpt_ids.append(step)  # the first one of a full row goes
        save_latest(runner, self, self.filename_tmpl.format(step), meta)
        if is_main_process():
            for name in superseded:
                self._remove(self.file_backend.join_path(self.out_dir, name))

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, Any]) -> None:
        super()._save_best_checkpoint(runner, metrics)
        # a repeated epoch gives its best checkpoint the same name again
        best = {getattr(self, 'best_ckpt_path', None), *getattr(self, 'best_ckpt_path_dict', {}).values()}
        for path in self.file_backend.take_waiting() - best:
            self._remove(path)

    def _remove(self, path: str) -> None:
        backend = self.file_backend.backend
        if backend.isfile(path):
            backend.remove(path)
        elif backend.isdir(path):  # of DeepSpeed
            backend.rmtree(path)


class _RemovesLater:
    """A backend of ``mmengine.fileio`` that notes what it is to remove, until it is asked for these names."""

    def __init__(self, backend: Any):
        self.backend = backend
        self._waiting: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def remove(self, path: str) -> None:
        self._waiting.add(path)

    rmtree = remove

    def take_waiting(self) -> set[str]:
        waiting, self._waiting = self._waiting, set()
        return waiting


class WholeCheckpoints:
    """The part of a Runner that writes checkpoints, whichever hook asks for them.

    On a local disk a file has its final name when it is whole. Storage behind ``mmengine.fileio`` is written as
    mmengine does: a put is all or nothing there.
    """

    def register_hook(self: Any, hook: Hook | dict[str, Any], *args: Any, **kwargs: Any) -> None:
        if isinstance(hook, dict):
            kind = HOOKS.get(hook['type']) if isinstance(hook['type'], str) else hook['type']
            if kind is hooks.CheckpointHook:
                hook = dict(hook, type=CheckpointHook)
        super().register_hook(hook, *args, **kwargs)  # type: ignore[misc]

    def save_checkpoint(
        self: Any, out_dir: str, filename: str, file_client_args: Any = None, *args: Any, **kwargs: Any
    ) -> None:
        save = super().save_checkpoint  # type: ignore[misc]
        # in a sharded training all processes give their parts, and the main one writes
        if not is_main_process() or not _is_local(out_dir, file_client_args, kwargs.get('backend_args')):
            save(out_dir, filename, file_client_args, *args, **kwargs)
            return
        path = Path(out_dir, filename)
        with replacing(path) as temporary:
            save(str(temporary.parent), temporary.name, file_client_args, *args, **kwargs)
            _sync(temporary)


def save_latest(runner: Runner, hook: hooks.CheckpointHook, name: str, meta: dict[str, Any]) -> None:
    """Write a checkpoint of the whole state as a hook is set to do it, and the note that names it."""
    hook.last_ckpt = hook.file_backend.join_path(hook.out_dir, name)
    runner.message_hub.update_info('last_ckpt', hook.last_ckpt)
    runner.save_checkpoint(
        hook.out_dir,
        name,
        hook.file_client_args,
        save_optimizer=hook.save_optimizer,
        save_param_scheduler=hook.save_param_scheduler,
        meta=meta,
        by_epoch=hook.by_epoch,
        backend_args=hook.backend_args,
        **hook.args,
    )
    if is_main_process():
        note = Path(runner.work_dir, NOTE)
        with replacing(note) as temporary:
            temporary.write_text(hook.last_ckpt)
            _sync(temporary)


def _is_local(folder: str, file_client_args: Any, backend_args: Any) -> bool:
    if file_client_args is not None:
        return isinstance(FileClient.infer_client(file_client_args, folder).client, LocalBackend)
    return isinstance(get_file_backend(folder, backend_args=backend_args), LocalBackend)


def _sync(path: Path) -> None:
    """Wait until a file is on the disk. Otherwise a machine that loses its power may keep the new name alone."""
    with path.open('rb') as file:
        os.fsync(file.fileno())
