"""Interleaved timing, on a clock that the test moves."""

import pytest

from mmrepvgg.measures.timing import Spread, summarise, time_interleaved


class TestSummarise:
    def test_quartiles_are_interpolated(self):
        assert summarise([4.0, 1.0, 3.0, 2.0]) == Spread(1.75, 2.5, 3.25)

    def test_turns_that_were_left_out_do_not_count(self):
        assert summarise([None, 5.0, None]) == Spread(5.0, 5.0, 5.0)

    def test_nothing_is_an_error(self):
        with pytest.raises(ValueError, match='at least one number, got none'):
            summarise([None])


class FakeMachine:
    """A clock that only runs and pauses move, and a record of who ran."""

    def __init__(self):
        self.now = 0.0
        self.record = []

    def make_run(self, name, *seconds):
        queue = list(seconds)

        def run():
            self.record.append(name)
            taken = queue.pop(0) if len(queue) > 1 else queue[0]
            if taken is None:
                raise RuntimeError(f'{name} is broken')
            self.now += taken

        return run

    def sleep(self, seconds):
        self.now += seconds

    def time(self, runs, **kwargs):
        return time_interleaved(runs, clock=lambda: self.now, sleep=self.sleep, **kwargs)


class TestTimeInterleaved:
    def test_runs_take_turns_in_orders_of_which_each_is_gone_there_and_back(self):
        machine = FakeMachine()
        times = machine.time([machine.make_run('a', 1), machine.make_run('b', 2, 4)], repeats=3)
        first, second, third = (machine.record[start : start + 2] for start in (0, 2, 4))
        assert sorted(first) == sorted(third) == ['a', 'b']
        assert second == first[::-1]
        assert times == [[1, 1, 1], [2, 4, 4]]

    def test_none_always_follows_the_same_other_one(self):
        machine = FakeMachine()
        machine.time([machine.make_run(name, 1) for name in 'abcdef'], repeats=20)
        before = {name: set() for name in 'abcdef'}
        for first, second in zip(machine.record, machine.record[1:], strict=False):
            before[second].add(first)
        assert all(len(names) >= 5 for names in before.values())

    def test_warm_up_and_pauses_are_not_kept(self):
        machine = FakeMachine()
        times = machine.time([machine.make_run('a', 9, 9, 1)], repeats=2, warm_up=2, pause=7)
        assert times == [[1, 1]]

    def test_a_quick_run_is_repeated_for_a_turn_and_its_mean_counts(self):
        machine = FakeMachine()
        runs = [machine.make_run('quick', 4, 1), machine.make_run('slow', 7)]
        times = machine.time(runs, repeats=2, pause=9, turn=5.5)
        assert times == [[2, 1], [7, 7]]  # (4 + 1 + 1) / 3, and six times 1
        assert [machine.record.count(name) for name in ('quick', 'slow')] == [3 + 6, 2]

    def test_repeated_calls_use_the_budget_up(self):
        machine = FakeMachine()
        assert machine.time([machine.make_run('quick', 1)], repeats=4, turn=5, budget=9) == [[1, 1, None, None]]

    def test_a_run_that_used_up_its_budget_is_timed_once_all_the_same(self):
        machine = FakeMachine()
        turns = []
        runs = [machine.make_run('slow', 10), machine.make_run('fast', 1)]
        times = machine.time(runs, repeats=3, warm_up=2, budget=5, on_turn=lambda: turns.append(0))
        assert times == [[10, None, None], [1, 1, 1]]
        assert machine.record.count('slow') == 2
        assert len(turns) == 10  # progress reaches its end

    def test_a_run_that_raises_is_left_alone(self):
        machine = FakeMachine()
        errors = []
        runs = [machine.make_run('bad', 1, None, 1), machine.make_run('good', 1)]
        times = machine.time(runs, repeats=3, on_error=lambda index, error: errors.append((index, str(error))))
        assert times == [[1, None, None], [1, 1, 1]]
        assert errors == [(0, 'bad is broken')]

    def test_without_on_error_it_raises(self):
        machine = FakeMachine()
        with pytest.raises(RuntimeError, match='bad is broken'):
            machine.time([machine.make_run('bad', None)], repeats=1)
