"""Which checkpoint of a work dir is the latest whole one."""

import os
from pathlib import Path

import pytest
import torch

from mmrepvgg.checkpoints.reading import CheckpointError
from mmrepvgg.engine.latest import find_latest


def save(folder: Path, name: str, iteration: int, epoch: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    torch.save(dict(meta=dict(epoch=epoch, iter=iteration), state_dict=dict(x=torch.zeros(100))), path)
    return path


def note(folder: Path, text: object) -> None:
    (folder / 'last_checkpoint').write_text(str(text))


def find(folder: Path) -> Path:
    found = find_latest(folder)
    assert not found.skipped
    return found.checkpoint.path


def test_without_a_note_the_numbers_count_and_not_the_letters(tmp_path):
    for epoch in (2, 9, 10):
        save(tmp_path, f'epoch_{epoch}.pth', epoch * 5, epoch)
    assert find(tmp_path) == tmp_path / 'epoch_10.pth'


@pytest.mark.parametrize(('iteration', 'expected'), [(9, 'epoch_2.pth'), (11, 'iter_11.pth')])
def test_names_by_epoch_and_by_iteration(tmp_path, iteration, expected):
    save(tmp_path, 'epoch_2.pth', 10, 2)
    save(tmp_path, f'iter_{iteration}.pth', iteration, iteration // 5)
    assert find(tmp_path).name == expected


def test_a_note_that_was_not_written_any_more(tmp_path):
    note(tmp_path, save(tmp_path, 'epoch_1.pth', 5, 1))
    save(tmp_path, 'epoch_2.pth', 10, 2)
    assert find(tmp_path).name == 'epoch_2.pth'


class TestTwoTrainingsOneAfterTheOther:
    """In one folder; the second one is at its second epoch."""

    @pytest.fixture
    def folder(self, tmp_path):
        for hour, epochs in enumerate([(3, 4, 5), (1, 2)]):
            for epoch in epochs:
                path = save(tmp_path, f'epoch_{epoch}.pth', epoch * 5, epoch)
                os.utime(path, (hour * 3600 + epoch,) * 2)
        note(tmp_path, tmp_path / 'epoch_2.pth')
        return tmp_path

    def test_the_second_one_goes_on(self, folder):
        assert find(folder).name == 'epoch_2.pth'

    def test_if_it_was_killed_before_it_wrote_the_note(self, folder):
        os.utime(folder / 'epoch_3.pth', (7200, 7200))
        assert find(folder).name == 'epoch_3.pth'

    def test_if_its_last_one_is_broken(self, folder):
        (folder / 'epoch_2.pth').write_bytes(b'PK')
        os.utime(folder / 'epoch_2.pth', (3602, 3602))
        found = find_latest(folder)
        assert found.checkpoint.path.name == 'epoch_1.pth'
        assert len(found.skipped) == 1

    def test_if_the_first_one_was_by_iterations(self, folder):
        os.utime(save(folder, 'iter_20.pth', 20), (60, 60))
        assert find(folder).name == 'epoch_2.pth'


def test_an_interrupted_training(tmp_path):
    save(tmp_path, 'epoch_2.pth', 10, 2)
    save(tmp_path, 'interrupted.pth', 12, 2)
    assert find(tmp_path).name == 'interrupted.pth'
    save(tmp_path, 'epoch_3.pth', 15, 3)
    assert find(tmp_path).name == 'epoch_3.pth'


def test_a_name_of_its_own_is_known_by_the_note(tmp_path):
    save(tmp_path, 'mine_1.pth', 5, 1)
    assert find_latest(tmp_path).checkpoint is None
    note(tmp_path, tmp_path / 'mine_1.pth')
    assert find(tmp_path).name == 'mine_1.pth'


def test_checkpoints_in_another_folder(tmp_path):
    (tmp_path / 'work').mkdir()
    note(tmp_path / 'work', save(tmp_path / 'out', 'epoch_1.pth', 5, 1))
    assert find(tmp_path / 'work') == tmp_path / 'out/epoch_1.pth'
    # a copy has its own
    save(tmp_path / 'work', 'epoch_1.pth', 5, 1)
    assert find(tmp_path / 'work') == tmp_path / 'work/epoch_1.pth'


def test_broken_ones_are_skipped_in_the_order_of_their_iterations(tmp_path):
    save(tmp_path, 'epoch_1.pth', 5, 1)
    for name in ('epoch_2.pth', 'iter_20.pth', 'interrupted.pth'):
        path = save(tmp_path, name, 20, 2)
        path.write_bytes(path.read_bytes()[:500])
    torch.save(dict(x=torch.zeros(1)), tmp_path / 'epoch_3.pth')
    note(tmp_path, tmp_path / 'epoch_3.pth')
    found = find_latest(tmp_path)
    assert found.checkpoint.path.name == 'epoch_1.pth'
    assert [Path(reason.split()[0]).name for reason in found.skipped] == [
        'epoch_3.pth', 'epoch_2.pth', 'iter_20.pth', 'interrupted.pth'
    ]  # fmt: skip
    assert 'epoch_3.pth holds no state of a training' in found.skipped[0]
    assert all('is damaged or incomplete' in reason for reason in found.skipped[1:])


def test_no_whole_one_is_an_error(tmp_path):
    (tmp_path / 'epoch_1.pth').touch()
    with pytest.raises(
        CheckpointError, match=r'no whole checkpoint .*epoch_1\.pth .*it is empty; move these files away'
    ):
        find_latest(tmp_path)
    (tmp_path / 'epoch_1.pth').unlink()
    note(tmp_path, '/gone/epoch_1.pth')
    with pytest.raises(CheckpointError, match=r'/gone/epoch_1\.pth, which last_checkpoint names, does not exist'):
        find_latest(tmp_path)


@pytest.mark.parametrize('text', ['', '\0\0\0'])
def test_a_note_of_which_a_power_cut_left_nothing(tmp_path, text):
    save(tmp_path, 'epoch_1.pth', 5, 1)
    note(tmp_path, text)
    assert find(tmp_path).name == 'epoch_1.pth'


def test_an_empty_folder(tmp_path):
    assert find_latest(tmp_path / 'none').checkpoint is None
