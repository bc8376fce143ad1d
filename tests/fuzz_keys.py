"""State dicts whose keys and shapes are mutated, for fuzz_checkpoints.py."""

import collections
from pathlib import Path

import torch
from torch import Tensor

from mmrepvgg.checkpoints.convert import convert_checkpoint, read_translated
from mmrepvgg.checkpoints.keymaps import SYSTEMS, TARGETS
from mmrepvgg.checkpoints.reading import CheckpointError, read_checkpoint
from mmrepvgg.checkpoints.structure import infer_structure
from mmrepvgg.checkpoints.translate import from_ours, recognise, to_ours

FIXTURES = Path(__file__).parent / 'fixtures'
# What stands in keys of many systems, and what breaks numbers, patterns and messages.
WORDS = [
    *('backbone', 'stem', 'stage_1', 'stage0', 'stage1', 'stages', 'blocks', 'head', 'fc', 'linear', 'module', 'model'),
    *(
        '_orig_mod',
        'Student',
        'ema',
        'branch_3x3',
        'rbr_dense',
        'rbr_identity',
        'branch_norm',
        'branch_reparam',
        'conv',
    ),
    *('norm', 'bn', 'weight', 'bias', 'running_var', 'num_batches_tracked', 'aux_heads', 'se_layer', 'ppf', 'conv1'),
    *('0', '1', '00', '-1', '9999', '10000', '99999999999', '²', '', ' ', '\n', '\x1b[31m', '{}', '(', '.*', 'é' * 300),
]
SHAPES = [(), (0,), (1,), (3, 3), (1, 1, 1, 1), (0, 0, 3, 3), (1 << 40, 0), (16, 16, 3, 3), (2, 1, 1, 1, 1)]
DTYPES = [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool, torch.complex64]


def make_state_dicts():
    """A small network in both forms under the keys of every system that has a place for it."""
    found = []
    for name in ('mindcv_train.ckpt', 'mindcv_deploy.ckpt'):
        weights = read_translated(FIXTURES / name).weights
        for system in SYSTEMS:
            try:
                found.append(from_ours(weights, system))
            except CheckpointError:
                continue
    return found


def mutate_state_dict(state_dicts, generator):
    """Some of the entries of one of them are renamed, lost, doubled, reshaped, retyped or none of a tensor."""
    weights = dict(generator.choice(state_dicts))
    for _ in range(generator.choice((1, 1, 2, 3, 8))):
        if not weights:
            break
        key = generator.choice(list(weights))
        words = str(key).split('.')
        place = generator.randrange(len(words))
        kind = generator.randrange(11)
        if kind < 5:
            changed = [*words[:place], *([] if kind == 0 else [generator.choice(WORDS)]), *words[place + (kind < 4) :]]
            value = weights[key] if kind == 3 else weights.pop(key)
            weights['.'.join(changed)] = value
        elif kind == 5:
            del weights[key]
        elif kind == 6:
            weights[key] = torch.zeros(generator.choice(SHAPES))
        elif kind == 7 and isinstance(weights[key], Tensor):
            weights[key] = weights[key].to(generator.choice(DTYPES))
        elif kind == 8:
            weights[generator.choice((key, 7, None, (1, 'a'), True, 0.5))] = generator.choice((None, 'a', {}, [1], 3))
        elif kind == 9:
            weights |= generator.choice(state_dicts)
        else:
            prefix = generator.choice(WORDS)
            weights = {f'{prefix}.{key}': value for key, value in weights.items()}
    return weights


def check_message(error):
    assert len(str(error)) < 6000, error
    assert str(error).isprintable(), error


def translate_all(folder, weights, generator):
    """Through the key maps, as in memory and as a file. Whether a network was found."""
    tensors = {str(key): value for key, value in weights.items() if isinstance(value, Tensor)}
    understood = False
    try:
        ours, _ = to_ours(tensors, recognise(tensors, 'torch').system)
        structure = infer_structure(ours)
        assert repr(structure.arch)
        understood = True
        from_ours(ours, generator.choice(list(SYSTEMS)))
    except CheckpointError as error:
        check_message(error)
    path, destination = folder / 'keys.pth', folder / 'converted.pth'
    content = generator.choice((weights, dict(state_dict=weights), dict(model=weights, meta=weights)))
    torch.save(collections.OrderedDict(content), path, _use_new_zipfile_serialization=generator.random() < 0.5)
    destination.unlink(missing_ok=True)
    target = generator.choice(TARGETS)
    try:
        result = convert_checkpoint(path, destination, target=target, ema=generator.random() < 0.1)
    except CheckpointError as error:
        assert not destination.exists()
        check_message(error)
        return understood
    # what it writes, it reads
    assert len(read_checkpoint(destination).state_dict) == len(result.weights)
    again = read_translated(destination)
    assert again.weights.keys() == result.weights.keys()
    assert again.structure == result.structure
    return understood
