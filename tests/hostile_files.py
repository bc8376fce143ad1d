"""Checkpoints that attack, are broken, or don't fit: each kind as a function that writes one.

``write_kinds`` writes all of them; hostile_runs.py gives them to the commands.
"""

import collections
import os
import pickle
import subprocess
import zipfile
from pathlib import Path

import torch

# What unpickling would call. Each makes a file RAN in the current folder.
GADGETS = {
    'system': (os.system, ('touch RAN',)),
    'popen': (subprocess.Popen, (['touch', 'RAN'],)),
    'exec': (exec, ("open('RAN', 'w').close()",)),
    'open': (open, ('RAN', 'w')),
}


class Gadget:
    def __init__(self, name):
        self.call = GADGETS[name]

    def __reduce__(self):
        return self.call


def write_bomb(path, whole):
    """A small file that unpacks to 1 GB."""
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive, archive.open('x/data.pkl', 'w') as member:
        for _ in range(1 << 10):
            member.write(bytes(1 << 20))


def write_member(path, whole):
    """A whole file with one pickle more, and another as the records that torch reads for itself."""
    path.write_bytes(whole)
    with zipfile.ZipFile(path, 'a') as archive:
        folder = archive.namelist()[0].partition('/')[0]
        archive.writestr(f'{folder}/constants.pkl', pickle.dumps(Gadget('system')))


def write_endless(path, whole):
    """Lists in lists, which are few in memory and endless to walk through."""
    level = ['x']
    for _ in range(80):
        level = [level, level]
    torch.save(dict(level=level), path)


def change(**entries):
    def write(path, whole):
        content = torch.load(path.with_name('good.pth'), weights_only=True)
        torch.save({**content, **{key: make() for key, make in entries.items()}}, path)

    return write


def change_weights(function):
    def write(path, whole):
        content = torch.load(path.with_name('good.pth'), weights_only=True)
        weights = content['state_dict']
        function(weights)
        torch.save(content, path)

    return write


def _write_attacks():
    attacks = {}
    for name in GADGETS:
        attacks[f'{name} in meta'] = change(meta=lambda name=name: dict(epoch=1, iter=1, x=[Gadget(name)]))
    attacks['in the optimizer'] = change(optimizer=lambda: dict(state={0: Gadget('system')}))
    attacks['in the log'] = change(message_hub=lambda: dict(log_scalars=collections.OrderedDict(loss=Gadget('exec'))))
    attacks['among the weights'] = change_weights(lambda weights: weights.update(x=Gadget('popen')))
    attacks['as the weights'] = change(state_dict=lambda: Gadget('exec'))
    attacks['as the file'] = lambda path, whole: torch.save(Gadget('system'), path)
    attacks['in the old format'] = lambda path, whole: torch.save(
        dict(x=Gadget('system')), path, _use_new_zipfile_serialization=False
    )
    attacks['a plain pickle'] = lambda path, whole: path.write_bytes(pickle.dumps(Gadget('system')))
    attacks['in another member'] = write_member
    return attacks


def _cut(share):
    return lambda path, whole: path.write_bytes(whole[: int(len(whole) * share)])


def _multiply(value):
    def function(weights):
        key = 'backbone.stage_1.0.branch_3x3.conv.weight'
        weights[key] = weights[key] * value

    return change_weights(function)


def _set(key, make):
    return change_weights(lambda weights: weights.update({key: make(weights)}))


ATTACKS = _write_attacks()
BROKEN = {
    'empty': lambda path, whole: path.write_bytes(b''),
    'a folder': lambda path, whole: path.mkdir(),
    'a text': lambda path, whole: path.write_text('<html>not found</html>'),
    'a list': lambda path, whole: torch.save([1, 2], path),
    'a number': lambda path, whole: torch.save(1, path),
    'no weights': lambda path, whole: torch.save(dict(meta=dict(epoch=1)), path),
    'a whole module': lambda path, whole: torch.save(torch.nn.Linear(1, 1), path),
    'TorchScript': lambda path, whole: torch.jit.script(torch.nn.Linear(1, 1)).save(str(path)),
    'a bomb': write_bomb,
    'endless lists': write_endless,
    **{f'the first {share:.0%}': _cut(share) for share in (0.001, 0.3, 0.97, 0.999)},
    'text as weights': change(state_dict=lambda: 'abc'),
    'no tensors': change(state_dict=lambda: dict(a=1)),
}
# Whole files of weights that do not fit. A conversion takes some of them, and a training starts from others.
UNFIT = {
    'no stem': change_weights(lambda weights: weights.pop('backbone.stem.branch_3x3.conv.weight')),
    'one more': _set('backbone.stage_9.0.thing', lambda weights: torch.zeros(1)),
    'another width': _set('backbone.stage_2.0.branch_1x1.conv.weight', lambda weights: torch.zeros(7, 3, 1, 1)),
    'three classes': _set('head.fc.weight', lambda weights: torch.zeros(3, 16)),
    'whole numbers': _set('head.fc.bias', lambda weights: torch.zeros(2, dtype=torch.int64)),
    'NaN': _multiply(float('nan')),
    'infinite': _multiply(float('inf')),
}
KINDS = ATTACKS | BROKEN | UNFIT


def write_kinds(folder: Path) -> list[str]:
    """Write a file of each kind into a folder that has ``good.pth``. Returns their names, in the order of ``KINDS``."""
    whole = (folder / 'good.pth').read_bytes()
    names = []
    for number, write in enumerate(KINDS.values()):
        write(folder / f'{number}.pth', whole)
        names.append(f'{number}.pth')
    return names
