"""The benchmark: that what is timed is the right network, and what is written. No time is asserted."""

import json
import multiprocessing
import os
import re
import signal
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import pytest
import torch
from matplotlib.figure import Figure
from tool_runs import run_command, run_tool, succeed, succeed_here

from mmrepvgg.benchmark import exported as exported_module
from mmrepvgg.benchmark import run as run_module
from mmrepvgg.benchmark.cases import RUNTIMES, Case, plan_cases
from mmrepvgg.benchmark.chart import draw_chart
from mmrepvgg.benchmark.gemm import prepare_gemms
from mmrepvgg.benchmark.int8_stacks import prepare_int8_stacks
from mmrepvgg.benchmark.isolation import may_crash, prepare_isolated
from mmrepvgg.benchmark.networks import build_network, build_reference, make_inputs
from mmrepvgg.benchmark.recommendation import recommend
from mmrepvgg.benchmark.report import format_report, write_json
from mmrepvgg.benchmark.results import Limit, Report, Row, compute_ratios
from mmrepvgg.benchmark.run import TOLERANCES, run_benchmark
from mmrepvgg.benchmark.runners import prepare
from mmrepvgg.benchmark.training import compare_training, fit_memory
from mmrepvgg.measures.timing import Spread
from mmrepvgg.runtimes.loading import load_exported
from mmrepvgg.runtimes.openvino_core import get_core

SIZE = 32
TRAIN_FORMS = ('train', 'train-merged', 'train-mmpretrain', 'train-timm', 'train-official')


def make_case(
    network='deploy', arch='A0', runtime='eager', layout='nchw', precision='fp32', device='cpu', batch_size=2
):
    return Case(network, arch, runtime, layout, precision, device, 1, batch_size)


@pytest.fixture(scope='module', autouse=True)
def _small_products():
    """Matrices that are multiplied at once: no time is asserted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, 'prepare_gemms', partial(prepare_gemms, max_size=256))
        patch.setattr(run_module, 'prepare_int8_stacks', partial(prepare_int8_stacks, max_width=16))
        yield


@pytest.fixture
def quick_compiler(monkeypatch):
    """Without the code generator: its own errors are not looked for here, and it takes long."""
    compile_fully = torch.compile
    monkeypatch.setattr(torch, 'compile', lambda *args, **kw: compile_fully(*args, **kw, backend='aot_eager'))


def test_many_compiled_rows_are_all_compiled(quick_compiler, monkeypatch):
    """PyTorch compiles 8 variants of one piece of code by default, here 2, and runs further ones eagerly."""

    class Network(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x).relu()

    for limit in ('recompile_limit', 'accumulated_recompile_limit'):
        monkeypatch.setattr(torch._dynamo.config, limit, 2)
    compiled = torch._dynamo.utils.counters['stats']
    for width in range(1, 5):
        before = compiled['unique_graphs']
        prepare(make_case(runtime='compiled'), Network(width, 2), torch.zeros(2, width)).run()
        assert compiled['unique_graphs'] == before + 1


class TestPlan:
    def test_every_choice_that_means_something_once(self):
        cases = plan_cases(
            ['A0', 'A2'], ['deploy', 'resnet50'], ['eager', 'openvino'], precisions=['fp32', 'bf16'], batch_sizes=[1, 8]
        )
        assert (
            len(cases) == len(set(cases)) == 3 * (2 + 1) * 2 * 2
        )  # models x (layouts, OpenVINO) x precisions x batches
        assert {case.layout for case in cases if case.runtime == 'openvino'} == {None}
        assert {case.arch for case in cases if case.network == 'resnet50'} == {None}

    def test_a_training_step_is_that_of_train_forms(self):
        cases = plan_cases(['A0'], ['deploy', 'train'], ['train-step'], layouts=['nchw'])
        assert [case.network for case in cases] == ['train']

    def test_what_is_tested_is_a_file(self):
        cases = plan_cases(['A0'], ['deploy', 'tested'], ['eager', 'onnxruntime'], layouts=['nchw'])
        assert [(case.network, case.runtime) for case in cases] == [
            ('deploy', 'eager'),
            ('deploy', 'onnxruntime'),
            ('tested', 'onnxruntime'),
        ]

    def test_cuda_graphs_are_on_cuda(self):
        cases = plan_cases(['A0'], ['deploy'], ['eager', 'cuda-graph'], ['nchw'], devices=['cpu', 'cuda'])
        assert [(case.runtime, case.device) for case in cases] == [
            ('eager', 'cpu'),
            ('eager', 'cuda'),
            ('cuda-graph', 'cuda'),
        ]

    def test_models_by_name_have_networks_of_their_own(self):
        cases = plan_cases(
            ['timm:a', 'mmpretrain:b'], ['deploy', 'train', 'timm', 'train-timm'], ['eager', 'train-step'], ['nchw']
        )
        assert [(case.arch, case.title, case.runtime) for case in cases] == [
            ('timm:a', 'deploy form by mmrepvgg', 'eager'),
            ('timm:a', 'train form', 'eager'),
            ('timm:a', 'deploy form by timm', 'eager'),
            ('mmpretrain:b', 'deploy form by mmrepvgg', 'eager'),
            ('mmpretrain:b', 'train form', 'eager'),
        ]

    def test_choices_that_do_not_go_together(self):
        with pytest.raises(ValueError, match=r'nothing to time: no runtime of cuda-graph runs any of deploy on cpu'):
            plan_cases(['A0'], ['deploy'], ['cuda-graph'])


@pytest.fixture(scope='module')
def reference():
    model = build_reference('A0')
    inputs = make_inputs(2, SIZE)
    with torch.no_grad():
        return model, inputs, model(inputs)


SUBJECTS = [
    *(make_case(network, layout=layout) for network in ('train', 'deploy', 'mmpretrain', 'timm') for layout in
      RUNTIMES['eager'].layouts),
    make_case(runtime='onnxruntime', layout=None),
    *(make_case(runtime=runtime, layout=None, precision='int8') for runtime in ('onnxruntime', 'openvino')),
    make_case('timm', runtime='openvino', layout=None),
    *(make_case(runtime='ncnn', layout=None, precision=precision) for precision in ('fp32', 'int8')),
    *(make_case(runtime='executorch', layout=None, precision=precision) for precision in ('fp32', 'int8')),
    make_case(runtime='torch-export', layout=None),
    make_case('mmpretrain', runtime='torchscript', layout=None, precision='bf16'),
    make_case(runtime='compiled', layout='channels_last'),
    make_case(precision='bf16', layout='channels_last'),
    make_case(precision='fp16'),
    *(make_case(network, runtime='train-step') for network in TRAIN_FORMS),
    make_case('train-merged', runtime='train-step', layout='channels_last', precision='bf16'),
    make_case('train', runtime='train-step-compiled', layout='channels_last'),
]  # fmt: skip


class TestSubjects:
    @pytest.mark.parametrize('case', SUBJECTS, ids=str)
    def test_it_computes_the_reference(self, case, reference, quick_compiler):
        for package in {'onnxruntime': ('onnxruntime', 'onnxscript'), 'openvino': ('openvino',)}.get(case.runtime, ()):
            pytest.importorskip(package)
        model, inputs, expected = reference
        runner = prepare(case, build_network(case.network, case.arch, model), inputs)
        logits = runner.logits().clone()
        assert logits.dtype == torch.float32
        difference = (logits - expected).abs().max() / expected.abs().max()
        # of random networks: int8 is not float32 in disguise
        low, high = (0.01, 1) if case.precision == 'int8' else (-1, 0.25)
        assert low < difference <= high * TOLERANCES[case.precision]
        runner.run()

    def test_what_is_tested_ends_in_predictions(self, reference):
        model, inputs, expected = reference
        runner = prepare(
            make_case('tested', runtime='openvino', layout=None), build_network('tested', 'A0', model), inputs
        )
        torch.testing.assert_close(runner.logits(), expected, atol=1e-4, rtol=0)
        samples = runner.run()
        assert len(samples) == len(inputs)
        # of black images, in uint8, behind the normalisation
        assert all(sample.pred_score.sum() == pytest.approx(1, abs=1e-4) for sample in samples)
        assert not torch.allclose(samples[0].pred_score, expected[0].softmax(0))

    def test_a_training_step_trains(self, reference):
        model, inputs, _ = reference
        network = build_network('train', 'A0', model)
        before = network.head.fc.weight.clone()
        prepare(make_case('train', runtime='train-step'), network, inputs).run()
        assert not torch.equal(network.head.fc.weight, before)

    def test_all_train_forms_train_alike(self, reference):
        model, inputs, _ = reference
        outputs = {}
        for name in TRAIN_FORMS:
            network = build_network(name, 'A0', model).double()
            optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
            for _ in range(2):
                network.train()(inputs.double()).square().mean().backward()
                optimizer.step()
            outputs[name] = network.eval()(inputs.double())
        for name, actual in outputs.items():
            torch.testing.assert_close(actual, outputs['train'], atol=1e-8, rtol=0, msg=name)
        assert not torch.allclose(outputs['train'], model.double()(inputs.double()), atol=1e-3)
        model.float()

    def test_the_memory_of_a_training_step(self, reference):
        """Measured against what is known: SGD needs weights, gradients and momenta, and activations besides."""
        model, *_ = reference
        weights = sum(p.nbytes for p in model.parameters())
        grown = {}
        for name in ('train', 'train-merged', 'train-official'):
            peaks = []
            for size in (SIZE, 192):
                network = build_network(name, 'A0', model)
                runner = prepare(make_case(name, runtime='train-step'), network, make_inputs(8, size))
                peaks.append(runner.measure_memory())
            assert 3 * weights < peaks[0] < 5 * weights
            grown[name] = peaks[1] - peaks[0]
        assert grown['train-merged'] < 0.85 * grown['train']
        assert grown['train-merged'] < 0.85 * grown['train-official']

    def test_other_weights_are_told_from_a_difference_of_rounding(self, reference):
        _, inputs, expected = reference
        with torch.no_grad():
            other = build_reference('A0', seed=1)(inputs)
        assert (other - expected).abs().max() > 1.5 * TOLERANCES['bf16'] * expected.abs().max()

    @pytest.mark.parametrize(('runtime', 'precision'), [('onnxruntime', 'fp16'), ('openvino', 'fp16')])
    def test_a_precision_in_which_the_runtime_does_not_compute_is_refused(self, runtime, precision, reference):
        pytest.importorskip(runtime)
        model, inputs, _ = reference
        with pytest.raises(ValueError, match=f'precision must be one of fp32.*{runtime} computes.*got {precision}'):
            prepare(make_case(runtime=runtime, layout=None, precision=precision), model, inputs)

    def test_gemms_multiply_matrices_of_the_size_they_say(self):
        for gemm, method in zip(prepare_gemms('cpu', 'fp32', max_size=256), ('mm', 'conv1x1'), strict=True):
            assert gemm.run().numel() == 256**2
            assert gemm.macs == 256**3
            assert gemm.title == f'{method} of 256 x 256 matrices in PyTorch'


class TestTraining:
    @staticmethod
    def make_row(network, seconds, memory=None, runtime='train-step', **kwargs):
        return Row(make_case(network, runtime=runtime, **kwargs), 10**9, tuple(seconds), memory=memory)

    def test_the_gain_is_over_the_fastest_other_project(self):
        rows = [
            self.make_row('train', (1.0, 1.0), 60, layout='channels_last'),
            self.make_row('train-merged', (0.5, 0.5), 30, runtime='train-step-compiled'),
            self.make_row('train-timm', (3.0, 3.0), 90),
            self.make_row('train-official', (2.0, 2.0), 100, layout='channels_last'),
            self.make_row('train-mmpretrain', (0.1, 0.1), 90, runtime='train-step-compiled'),
            self.make_row('train-mmpretrain', (0.1, 0.1), 90, precision='bf16'),
            self.make_row('resnet50', (0.1, 0.1), arch=None),
        ]
        gains = compare_training(rows)
        assert [(g.row, g.other, g.speed.median, g.memory) for g in gains] == [
            (rows[0], rows[3], 2.0, 0.6),
            (rows[1], rows[3], 4.0, 0.3),
        ]
        assert '4.00' in format_report(make_report(*rows), 'command')

    def test_the_largest_batches(self):
        rows = [
            self.make_row('train', (1.0,), 2_000_000_000, batch_size=4),
            self.make_row('train', (1.0,), 5_000_000_000, batch_size=16),
            self.make_row('train-merged', (1.0,), 1_000, batch_size=16),
        ]
        (fit,) = fit_memory(rows)
        assert (fit.fixed, fit.per_image) == (1e9, 0.25e9)
        assert [fit.count_images(1e9 * size) for size in (0.5, 1, 8)] == [0, 0, 28]
        assert ' 28 |' in format_report(make_report(*rows), 'command')

    def test_only_networks_of_others_get_a_process_of_their_own(self):
        cases = plan_cases(['A0'], ['train', 'train-timm'], ['eager', 'train-step', 'train-step-compiled'])
        assert [(c.network, c.runtime, c.layout) for c in cases if may_crash(c)] == [
            ('train-timm', 'train-step', 'channels_last')
        ]
        assert [(c.network, c.layout) for c in cases if c.runtime == 'train-step-compiled'] == [
            ('train', 'channels_last')
        ]

    def test_a_case_in_a_process_of_its_own(self, reference):
        *_, expected = reference
        runner = prepare_isolated(make_case('train', runtime='train-step', layout='channels_last'), SIZE)
        torch.testing.assert_close(runner.logits(), expected, atol=1e-3, rtol=0)
        runner.run()
        assert runner.measure_memory() > 30_000_000
        (child,) = multiprocessing.active_children()
        os.kill(child.pid, signal.SIGSEGV)
        for _ in range(2):
            with pytest.raises(RuntimeError, match='of train in channels_last ended its process by SIGSEGV'):
                runner.run()


INT8_RUNTIMES = ('onnxruntime', 'openvino')


def list_precisions(file):
    """The precision in which the runtime itself says that it computes each convolution of a file."""
    if file.suffix == '.xml':
        compiled = get_core().compile_model(file, 'CPU')
        infos = [op.get_rt_info() for op in compiled.get_runtime_model().get_ordered_ops()]
        return [str(info['runtimePrecision'].value) for info in infos if info['layerType'].value == 'Convolution']
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(file.with_suffix('.optimized'))
    onnxruntime.InferenceSession(file, options, providers=['CPUExecutionProvider'])
    names = [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]
    return ['u8' if name.startswith('QLinear') else 'f32' for name in names if name.endswith('Conv')]


@pytest.fixture(scope='module')
def int8_report():
    for runtime in INT8_RUNTIMES:
        pytest.importorskip(runtime)
    cases = plan_cases(['A0'], ['deploy'], INT8_RUNTIMES, precisions=['int8'], batch_sizes=[2])
    return run_benchmark(cases, SIZE, repeats=2, warm_up=0)


class TestInt8Limit:
    @pytest.mark.parametrize('runtime', INT8_RUNTIMES)
    def test_every_convolution_of_a_stack_is_int8(self, runtime, monkeypatch):
        pytest.importorskip(runtime)
        found = []

        def load(path, **kwargs):
            found.append(list_precisions(path))
            return load_exported(path, **kwargs)

        monkeypatch.setattr(exported_module, 'load_exported', load)
        for product, kernel in zip(prepare_int8_stacks(runtime, 2, max_width=16), (1, 3), strict=True):
            assert found.pop() == ['u8'] * 8
            assert product.run().shape == (8, 1)
            # and a linear layer of one class behind the pooling
            assert product.macs == 8 * (8 * 14**2 * 16**2 * kernel**2 + 16)
            assert (product.device, product.precision) == ('cpu', 'int8')

    def test_a_row_has_a_share_of_the_fastest_stack_of_all_runtimes(self, int8_report):
        fastest = max(limit.gflops for limit in int8_report.limits)
        assert fastest > 0
        for row in int8_report.rows:
            assert int8_report.find_share(row) == pytest.approx(row.gflops / fastest)

    def test_both_stacks_of_each_runtime_are_in_the_report(self, int8_report, tmp_path):
        titles = [
            f'8 {kernel} convolutions of 16 channels, 4 images of 14 x 14, in {RUNTIMES[runtime].title}'
            for runtime in INT8_RUNTIMES
            for kernel in ('1x1', '3x3')
        ]
        text = format_report(int8_report, 'the command')
        lines = re.findall(r'^- cpu int8, 1 thread\(s\), beside batch 2: \d+ GOP/s \((.*)\)$', text, re.MULTILINE)
        assert lines == titles
        rows = [line.split('|') for line in text.splitlines() if line.startswith('| A0')]
        assert [row[-5].strip() for row in rows if len(row) == 15] == [
            f'{int8_report.find_share(row):.2f}' for row in int8_report.rows
        ]
        write_json(int8_report, 'the command', tmp_path / 'out.json')
        content = json.loads((tmp_path / 'out.json').read_text())
        assert [(limit['precision'], limit['title']) for limit in content['limits']] == [('int8', t) for t in titles]
        assert [row['share_of_limit'] for row in content['rows']] == [
            int8_report.find_share(row) for row in int8_report.rows
        ]


@pytest.fixture(scope='module')
def report():
    """A real run with rows that succeed, rows that can't, and two batch sizes."""
    cases = plan_cases(
        ['A0'], ['deploy', 'train'], ['eager', 'cuda-graph'], ['nchw'], ['fp32'], ['cpu', 'cuda'], [1], [1, 2]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, 'is_available', lambda: False)
        return run_benchmark(cases, input_size=SIZE, repeats=2, warm_up=1)


class TestRun:
    def test_what_can_not_run_is_reported_and_stops_nothing(self, report):
        for row in report.rows:
            if row.case.device == 'cuda':
                assert row.speed is None
                assert row.error == (
                    'RuntimeError: no CUDA device is available to this PyTorch; leave cuda out of `devices`'
                )
            else:
                assert row.error is None
                assert len(row.seconds) == 2
                assert row.difference < 1e-4
        assert sum(row.error is None for row in report.rows) == 4

    def test_macs_are_those_of_the_form(self, report):
        deploy, train = (
            next(r for r in report.rows if r.case.network == name and r.macs) for name in ('deploy', 'train')
        )
        head = 1280 * 1000
        # a 1x1 kernel beside each 3x3 one
        assert train.macs - head == pytest.approx((deploy.macs - head) * 10 / 9)

    def test_a_missing_package_is_a_row_without_times(self, monkeypatch):
        monkeypatch.setitem(sys.modules, 'timm', None)
        cases = [make_case(), make_case('timm')]
        ours, theirs = run_benchmark(cases, SIZE, repeats=1, warm_up=0).rows
        assert ours.error is None
        assert theirs.error.startswith('ModuleNotFoundError: import of timm halted')

    def test_a_wrong_network_is_not_timed(self, monkeypatch):
        monkeypatch.setattr(run_module, 'build_network', lambda *args: build_reference('A0', seed=1))
        (row,) = run_benchmark([make_case()], SIZE, repeats=1, warm_up=0).rows
        assert row.error.startswith("ValueError: wrong output: logits may differ from the fp32 train form's by 0.001")
        assert row.seconds == ()

    def test_a_quick_row_is_repeated_within_its_turn(self, monkeypatch):
        calls = []

        def prepare_quick(*args):
            return replace(prepare(*args), run=lambda: calls.append(args))

        monkeypatch.setattr(run_module, 'prepare', prepare_quick)
        run_benchmark([make_case()], SIZE, repeats=1, warm_up=0)
        assert len(calls) > 1

    def test_the_number_of_threads_is_put_back(self, report):
        before = torch.get_num_threads()
        run_benchmark([Case('deploy', 'A0', 'eager', 'nchw', 'fp32', 'cpu', before + 1, 1)], SIZE, 1, 0)
        assert torch.get_num_threads() == before


def make_report(*rows, limits=()):
    machine = dict(cpu='CPU', cores=2, instructions=['AVX2'], gpu=None, load_average=[0.0] * 3)
    machine['load_average_at_the_end'] = [0.0] * 3
    return Report(tuple(rows), limits, dict(input_size=SIZE), machine, dict(torch='2'))


class TestResults:
    def test_speed_flops_and_share_of_the_faster_product(self):
        row = Row(make_case(batch_size=4), macs=10**9, seconds=(0.5, None, 0.5))
        limits = tuple(Limit('cpu', 'fp32', 1, 4, 'mm', 10**9, (t,)) for t in (0.1, 0.05))
        elsewhere = Limit('cpu', 'bf16', 1, 4, 'mm', 10**9, (1e-3,))
        report = make_report(row, limits=(*limits, elsewhere))
        assert row.speed == Spread(8, 8, 8)
        assert row.gflops == pytest.approx(16)
        assert report.find_limit(row.case) == pytest.approx(40)
        assert report.find_share(row) == pytest.approx(0.4)

    def test_ratios_are_taken_round_by_round(self):
        # the machine was four times as slow in the second round
        ours = Row(make_case(), 1, (1.0, 4.0, 1.0))
        theirs = Row(make_case('timm'), 1, (2.0, 8.0, 2.0))
        other_mode = Row(make_case('timm', layout='channels_last'), 1, (9.0, 9.0, 9.0))
        failed = Row(make_case('train'), error='RuntimeError: no')
        (ratio,) = compute_ratios([ours, theirs, other_mode, failed])
        assert (ratio.row, ratio.other, ratio.speed) == (ours, theirs, Spread(2, 2, 2))

    def test_without_a_common_round_the_ratio_is_that_of_the_medians(self):
        ours, theirs = Row(make_case(), 1, (None, 2.0)), Row(make_case('timm'), 1, (8.0, None))
        (ratio,) = compute_ratios([ours, theirs])
        assert ratio.speed == Spread(4, 4, 4)

    def test_the_papers_headline_is_set_against_the_right_network(self):
        rows = [
            Row(make_case(arch='A2'), 1, (1.0,)),
            Row(make_case(arch='B1g4'), 1, (1.0,)),
            Row(make_case('resnet50', None), 1, (3.0,)),
            Row(make_case('resnet101', None), 1, (5.0,)),
        ]
        found = [(r.row.case.arch, r.other.case.network, r.speed.median, r.published) for r in compute_ratios(rows)]
        assert found == [
            ('A2', 'resnet50', 3, pytest.approx(1.839, abs=1e-3)),
            ('A2', 'resnet101', 5, None),
            ('B1g4', 'resnet50', 3, None),
            ('B1g4', 'resnet101', 5, pytest.approx(2.019, abs=1e-3)),
        ]

    def test_the_fastest_deploy_form_is_set_against_mmpretrains_plain_one(self):
        fastest = Row(make_case(runtime='openvino', layout=None, precision='bf16'), 1, (1.0,))
        plain = Row(make_case('mmpretrain'), 1, (8.0,))
        ratios = compute_ratios([Row(make_case(), 1, (4.0,)), fastest, plain])
        assert [(r.row.case.runtime, r.other, r.speed.median) for r in ratios] == [
            ('eager', plain, 2),
            ('openvino', plain, 8),
        ]


class TestRecommendation:
    def test_the_fastest_file_of_each_precision(self):
        plain = Row(make_case('train'), 1, (6.0, 6.0))
        eager = Row(make_case(), 1, (0.5, 0.5))
        files = [
            Row(make_case(runtime='onnxruntime', layout=None), 1, (3.0, 3.0)),
            Row(make_case(runtime='ncnn', layout=None), 1, (1.0, 1.5)),
            Row(make_case(runtime='openvino', layout=None), 1, (1.2, 1.5)),
            Row(make_case(runtime='torchscript', layout=None), error='MissingPackageError: no'),
        ]
        int8 = [
            Row(make_case(runtime=name, layout=None, precision='int8'), 1, (seconds,) * 2)
            for name, seconds in (('ncnn', 2.0), ('openvino', 0.1))
        ]
        other_arch = Row(make_case(arch='A1', runtime='ncnn', layout=None), 1, (0.1,))
        fp32, rounded = recommend([plain, eager, *files, *int8, other_arch])
        assert (fp32.row, fp32.equals, fp32.gain.median) == (files[1], (files[2],), 5)
        assert fp32.command == 'mmrepvgg export CONFIG CHECKPOINT repvgg-a0.param'
        assert (rounded.row, rounded.equals, rounded.gain.median) == (int8[1], (), 60)
        assert rounded.command == 'mmrepvgg quantize CONFIG CHECKPOINT repvgg-a0_int8.xml'
        text = format_report(make_report(plain, *files, *int8), 'the command')
        (line,) = [line for line in text.splitlines() if rounded.command in line]
        assert [cell.strip() for cell in line.split('|')[3:-2]] == ['int8', 'OpenVINO', '', '100.0', '60.00']

    def test_without_a_train_form_and_with_nothing_to_choose(self):
        files = [Row(make_case(runtime=name, layout=None), 1, (1.0,)) for name in ('onnxruntime', 'ncnn')]
        assert [found.gain for found in recommend(files)] == [None]
        assert recommend(files[:1]) == []


class TestWriting:
    def test_json_has_raw_times_machine_versions_and_command(self, report, tmp_path):
        write_json(report, 'the command', tmp_path / 'new' / 'out.json')
        content = json.loads((tmp_path / 'new' / 'out.json').read_text())
        assert content['command'] == 'the command'
        assert content['machine']['cores'] >= 1
        assert torch.__version__.startswith(content['versions']['torch'])
        assert [row['error'] is None for row in content['rows']] == [row.error is None for row in report.rows]
        first = content['rows'][0]
        assert first['seconds'] == list(report.rows[0].seconds)
        assert first['images_per_second']['median'] == report.rows[0].speed.median
        assert first['share_of_limit'] == report.find_share(report.rows[0]) > 0
        assert {limit['precision'] for limit in content['limits']} == {'fp32'}
        assert content['ratios'][0]['other']['network'] == 'train'

    def test_the_table_has_a_line_for_each_row(self, report):
        text = format_report(report, 'the command')
        assert text.startswith('`the command`\n')
        rows = [
            [cell.strip() for cell in line.split('|')[1:-1]] for line in text.splitlines() if line.startswith('| A0')
        ]
        assert [row[:2] for row in rows if len(row) == 13] == [
            ['A0', f'mmrepvgg, {form} form'] for _ in (1, 2) for form in ('deploy', 'train')
        ]
        mode = 'PyTorch eager, nchw, fp32; cpu, 1 thread(s), batch 2'
        assert ['A0', mode, 'mmrepvgg, train form'] in [row[:3] for row in rows if len(row) == 6]
        assert 'not timed (8): RuntimeError: no CUDA device' in text

    def test_the_chart_is_a_picture(self, report, tmp_path):
        draw_chart(report, tmp_path / 'chart.png')
        picture = cv2.imread(str(tmp_path / 'chart.png'))
        assert picture.shape[1] == 1200
        assert len({tuple(pixel) for pixel in picture.reshape(-1, 3)[::7]}) > 10
        assert list(tmp_path.iterdir()) == [tmp_path / 'chart.png']

    def test_nothing_to_draw(self, tmp_path):
        with pytest.raises(ValueError, match='no row has been timed, so there is nothing to draw'):
            draw_chart(make_report(Row(make_case(), error='RuntimeError: no')), tmp_path / 'chart.png')

    def test_a_failed_write_leaves_the_old_file(self, report, tmp_path, monkeypatch):
        def write_half(figure, path, **kwargs):
            Path(path).write_text('half')
            raise OSError('disk full')

        monkeypatch.setattr(Figure, 'savefig', write_half)
        for name in ('chart.png', 'out.json'):
            (tmp_path / name).write_text('old')
        with pytest.raises(OSError, match='disk full'):
            draw_chart(report, tmp_path / 'chart.png')
        endless = make_report(Row(make_case(), 1, (float('inf'),)))
        with pytest.raises(ValueError, match='not JSON compliant'):
            write_json(endless, 'the command', tmp_path / 'out.json')
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {'chart.png': 'old', 'out.json': 'old'}


class TestTool:
    @pytest.mark.parametrize(
        ('args', 'message'),
        [
            (['--archs', 'C9'], r"argument --archs: invalid choice: 'C9' \(choose from '?A0"),
            (['--networks', 'resnet18'], r"argument --networks: invalid choice: 'resnet18' \(choose from '?deploy"),
            (['--batch-sizes', '0'], "argument --batch-sizes: must be a whole number of at least 1, got '0'"),
            (['--out', 'out.txt'], "argument --out: must end in .json, got 'out.txt'"),
        ],
    )
    def test_wrong_usage_exits_2_before_torch_is_imported(self, args, message, tmp_path):
        done = run_tool('benchmark', *args, cwd=tmp_path, without=['torch'])
        assert done.returncode == 2
        assert re.search(message, done.stderr)

    def test_choices_without_any_row_are_one_line(self, tmp_path):
        done = run_command('benchmark', '--runtimes', 'cuda-graph', cwd=tmp_path)
        assert done.returncode == 1
        (line,) = done.stderr.strip().splitlines()
        assert line.startswith('mmrepvgg benchmark: error: nothing to time: no runtime of cuda-graph')

    def test_a_model_of_timm(self, tmp_path):
        output = succeed_here(
            'benchmark',
            *('--model', 'timm:test_byobnet', '--networks', 'deploy', 'train', 'timm', '--layouts', 'nchw'),
            *('--runtimes', 'eager', 'onnxruntime', '--threads', 1, '--batch-sizes', 1, '--input-size', 64),
            *('--repeats', 2, '--warm-up', 1, '--out', 'out.json', '--plot', 'chart.png'),
            cwd=tmp_path,
        )
        assert output.count('| timm:test_byobnet | deploy form by timm ') == 2
        rows = json.loads((tmp_path / 'out.json').read_text())['rows']
        assert len(rows) == 6
        assert not any(row['error'] for row in rows)

    def test_a_whole_run(self, tmp_path):
        output = succeed(
            'benchmark',
            *('--networks', 'deploy', '--layouts', 'nchw', '--devices', 'cpu', 'cuda', '--threads', 1),
            *('--batch-sizes', 1, '--input-size', SIZE, '--repeats', 2, '--warm-up', 1),
            *('--out', 'out.json', '--plot', 'chart.png'),
            cwd=tmp_path,
        )
        assert 'timing' not in output, 'no progress bars in what may be sent to a file'
        row = re.search(r'^\| A0 .*', output, re.MULTILINE)[0].split('|')
        assert [cell.strip() for cell in row[2:6]] == ['mmrepvgg, deploy form', 'PyTorch eager', 'nchw', 'fp32']
        assert torch.cuda.is_available() or 'leave cuda out of --devices' in output
        content = json.loads((tmp_path / 'out.json').read_text())
        assert '--input-size 32' in content['command']
        assert (tmp_path / 'chart.png').read_bytes().startswith(b'\x89PNG')
