"""The prediction of what int8 will do, against ONNX Runtime itself, and as a command."""

import copy
import json
from dataclasses import asdict, replace

import cv2
import pytest
import torch
from int8_source import METADATA, write_float
from tool_runs import CONFIGS, fail_here, run_tool, succeed
from torch.nn.modules.batchnorm import _BatchNorm

from mmrepvgg import load_config, reparameterize
from mmrepvgg.checkpoints.reading import read_checkpoint
from mmrepvgg.data.samples import iterate_samples
from mmrepvgg.measures.accuracy import measure_percent
from mmrepvgg.models.blocks import RepVGGBlock
from mmrepvgg.models.building import build_model
from mmrepvgg.models.fake_quant_settings import GRANULARITIES
from mmrepvgg.quantization.analysis.analyze import analyze, analyze_model
from mmrepvgg.quantization.analysis.noise import measure_logits_noise
from mmrepvgg.quantization.analysis.observe import observe_activations
from mmrepvgg.quantization.analysis.points import find_layers, find_points
from mmrepvgg.quantization.analysis.results import TREATMENTS
from mmrepvgg.quantization.analysis.simulation import simulate
from mmrepvgg.quantization.analysis.verdict import judge
from mmrepvgg.quantization.quantize import quantize_model
from mmrepvgg.quantization.settings import QuantizationSettings
from mmrepvgg.reparam.checkpoint import reparameterize_checkpoint
from mmrepvgg.runtimes.classifier import load_classifier
from mmrepvgg.runtimes.loading import load_exported
from mmrepvgg.runtimes.onnx import ONNX
from mmrepvgg.runtimes.prepared import normalise

DIGITS = CONFIGS / 'repvgg-a0_digits.py'
PLAIN = dict(num_blocks=[1, 2, 2, 1], width_factor=[0.5, 0.5, 1, 0.5])
ARCHS = {
    'plain': PLAIN,
    'SE': PLAIN | dict(se_cfg=dict(ratio=4, divisor=1)),
    'SE after act, grouped': PLAIN | dict(se_cfg=dict(ratio=4, divisor=1), se_after_act=True, group_layer_map={3: 4}),
}
# Block and channel of the model that collapses.
BAD_BLOCK, BAD_CHANNEL = 'backbone.stage_3.1', 5


@pytest.fixture(scope='module')
def workspace(digit_images, tmp_path_factory):
    """data/digits, and a config and two checkpoints whose heads fit the digits: good.pth and bad.pth."""
    folder = tmp_path_factory.mktemp('analysis')
    torch.manual_seed(0)
    (folder / 'data').symlink_to(digit_images.parent)
    cfg = make_config(folder, PLAIN)
    cfg.dump(folder / 'config.py')
    model = fit(cfg, build_model(cfg, deploy=False))
    torch.save({'state_dict': model.state_dict()}, folder / 'good.pth')
    torch.save({'state_dict': spoil(cfg, model).state_dict()}, folder / 'bad.pth')
    return folder


def make_config(folder, arch):
    cfg = load_config(str(DIGITS))
    cfg.model.backbone.arch = dict(arch)
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = str(folder / 'data' / 'digits')
    return cfg


@torch.no_grad()
def fit(cfg, model):
    """Norms of the data, and a head by ridge regression: a trained network in seconds.

    The norms of a block have one variance for all channels, so that no channel is nearly dead.
    """
    batches = read_training(cfg, model)
    for block in (module for module in model.modules() if isinstance(module, RepVGGBlock)):
        norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
        for norm in norms:
            norm.momentum = None
            norm.reset_running_stats()
            norm.train()
        for images, _ in batches:
            model.extract_feat(images)
        for norm in norms:
            norm.running_var.fill_(norm.running_var.mean())
            norm.eval()
    fit_head(model, batches)
    return model


def read_training(cfg, model):
    return [(normalise(model, images), labels) for images, labels in iterate_samples(cfg, 'train', 800, batch_size=200)]


def fit_head(model, batches):
    features = torch.cat([model.extract_feat(images)[-1] for images, _ in batches]).double()
    targets = torch.nn.functional.one_hot(torch.cat([labels for _, labels in batches]), 10).double()
    centred = features - features.mean(0)
    gram = centred.T @ centred
    weight = torch.linalg.solve(gram + 0.3 * gram.diagonal().mean() * torch.eye(len(gram)), centred.T @ targets)
    model.head.fc.weight.copy_(weight.T)
    model.head.fc.bias.copy_(targets.mean(0) - features.mean(0) @ weight)


@torch.no_grad()
def spoil(cfg, model):
    """Kill a channel, so that the next block's norm on it has a variance of 0: the scale is all that eps allows.

    The function hardly changes: 0 times 316 is 0. The fused kernel has one weight of 316.
    """
    model = copy.deepcopy(model)
    before, block = model.backbone.stage_3
    for branch in (before.branch_3x3.norm, before.branch_1x1.norm):
        branch.weight[BAD_CHANNEL] = branch.bias[BAD_CHANNEL] = 0
        branch.running_mean[BAD_CHANNEL] = 0
    block.branch_norm.running_mean[BAD_CHANNEL] = block.branch_norm.running_var[BAD_CHANNEL] = 0
    fit_head(model, read_training(cfg, model))
    return model


def quantize_onnx(deployed, calibration, folder):
    """Real int8 files, by granularity: normalised images to logits."""
    (quantizer,) = ONNX.quantizers
    source = write_float(ONNX, deployed, METADATA, folder)
    batches = [images.numpy() for images in calibration]
    found = {}
    for granularity in GRANULARITIES:
        path = folder / f'{granularity}.onnx'
        int8 = quantizer.calibrate(source, batches, granularity=granularity, calibration='minmax')
        int8.write(path, METADATA)
        found[granularity] = load_exported(path)
    return found


def read_normalised(cfg, model, split, num):
    batches = list(iterate_samples(cfg, split, num, batch_size=32))
    return [normalise(model, images) for images, _ in batches], torch.cat([labels for _, labels in batches])


class TestAgainstOnnxRuntime:
    @pytest.mark.parametrize('arch', ['SE', 'SE after act, grouped'])
    @torch.no_grad()
    def test_the_simulation_computes_the_same(self, workspace, tmp_path, arch):
        cfg = make_config(workspace, ARCHS[arch])
        model = fit(cfg, build_model(cfg, deploy=False))
        deployed = reparameterize(model)
        calibration, _ = read_normalised(cfg, model, 'train', 64)
        images = torch.cat(read_normalised(cfg, model, 'test', 64)[0])
        ranges, expected = observe_activations(deployed, calibration), deployed(images)
        assert set(ranges) == set(find_points(deployed))
        for granularity, run in quantize_onnx(deployed, calibration, tmp_path).items():
            actual = run(images)
            with simulate(deployed, ranges, granularity):
                simulated = deployed(images)
            own_noise = measure_logits_noise(expected, actual)
            assert measure_logits_noise(simulated, actual) > own_noise + 6
            assert measure_logits_noise(expected, simulated) == pytest.approx(own_noise, abs=0.5)
            assert measure_percent(simulated, actual) > 90
        assert torch.equal(deployed(images), expected), 'the model is as it was'
        with simulate(deployed, ranges, 'per-tensor', kept=list(find_layers(deployed))):
            assert torch.equal(deployed(images), expected), 'pooled tensors are kept with the layers behind them'

    @pytest.mark.parametrize(('name', 'levels'), [('good', ['safe', 'safe']), ('bad', ['collapses', 'safe'])])
    def test_the_prediction_comes_true(self, workspace, tmp_path, name, levels):
        cfg, source = make_config(workspace, PLAIN), workspace / f'{name}.pth'
        analysis = analyze(cfg, source, num_samples=400, num_calibration=64, batch_size=60)
        verdict = judge(analysis)
        assert analysis.accuracy > 80
        assert (analysis.num_images, analysis.num_calibration, analysis.was_switched) == (360, 64, True)
        predictions = verdict.predictions[:2]
        assert [prediction.level for prediction in predictions] == levels

        model = load_classifier(cfg, source)
        images, labels = read_normalised(cfg, model, 'test', 400)
        calibration, _ = read_normalised(cfg, model, 'train', 64)
        files = quantize_onnx(reparameterize(model), calibration, tmp_path)
        for prediction in predictions:
            run = files[prediction.granularity]
            accuracy = measure_percent(torch.cat([run(batch) for batch in images]), labels)
            # the margins of this network are small: a rounding more or less turns a few of 360 images
            assert analysis.accuracy - accuracy == pytest.approx(prediction.drop, abs=1.5)

        if name == 'bad':
            assert verdict.blame == 'weights'
            assert verdict.worst == (BAD_BLOCK,)
            assert verdict.causes[0].startswith(f'{BAD_BLOCK}: its largest output channel is ')
            assert "from the identity branch: its batch norm's scales reach 316" in verdict.causes[0]
            assert '1 nearly dead channel' in verdict.causes[0]
            assert verdict.advice[0].startswith('equalize the channels')
            kept = analysis.find('per-tensor', keeping=True)
            assert kept.kept == (BAD_BLOCK,)
            assert kept.drop < 1.5 < 20 < analysis.find('per-tensor').drop
            assert analysis.find('per-tensor', weights=False).drop < 1.5, 'the activations are harmless'
        else:
            assert (verdict.blame, verdict.worst, verdict.causes) == (None, (), ())
            assert verdict.advice[0] == 'ship int8, per-tensor or per-channel'


class TestAnalysis:
    @torch.no_grad()
    def test_parts_of_the_model(self, workspace):
        cfg = make_config(workspace, ARCHS['SE'])
        model = reparameterize(build_model(cfg, deploy=False))
        images = torch.randn(4, 3, 32, 32)
        ranges, expected = observe_activations(model, [images]), model(images)
        layers = find_layers(model)
        assert {'backbone.stem', 'backbone.stage_3.1.se_layer.conv2.conv', 'head.fc'} < set(layers)
        assert next(iter(ranges)) == 'backbone.stem'
        before = layers['backbone.stem'].weight.clone()
        with simulate(model, ranges, 'per-tensor', kept=['backbone.stem'], activations=False):
            assert torch.equal(layers['backbone.stem'].weight, before)
            assert not torch.equal(model(images), expected)
        with simulate(model, ranges, 'per-tensor', kept=list(layers)):
            assert torch.equal(model(images), expected)
        with pytest.raises(ZeroDivisionError, match='division by zero'), simulate(model, ranges, 'per-tensor'):
            _ = 1 / 0
        assert torch.equal(layers['backbone.stem'].weight, before)
        assert torch.equal(model(images), expected)

    def test_without_labels(self, workspace):
        cfg = make_config(workspace, PLAIN)
        model = load_classifier(cfg, workspace / 'bad.pth')
        state = copy.deepcopy(model.state_dict())
        images = [images for images, _ in iterate_samples(cfg, 'test', 48)]
        analysis = analyze_model(model, images, [(batch, None) for batch in images])
        outcome = analysis.find('per-tensor')
        assert (analysis.accuracy, outcome.accuracy, outcome.num_gained) == (None, None, 0)
        assert outcome.num_lost == 48 - outcome.num_agreeing > 10
        assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
        assert not model.backbone.deploy

    def test_a_deploy_form_gives_the_same_but_the_norms(self, workspace):
        cfg = make_config(workspace, PLAIN)
        model = load_classifier(cfg, workspace / 'bad.pth')
        batches = list(iterate_samples(cfg, 'test', 48))
        images = [images for images, _ in batches]
        train, deploy = (analyze_model(m, images, batches) for m in (model, reparameterize(model)))
        assert (train.was_switched, deploy.was_switched) == (True, False)
        assert train.outcomes == deploy.outcomes
        assert [replace(layer, norms=()) for layer in train.layers] == list(deploy.layers)
        assert [layer.name for layer in deploy.layers][-2:] == ['backbone.stage_4.0', 'head.fc']

    def test_treatments_do_in_files_what_was_said(self, workspace, tmp_path):
        cfg = make_config(workspace, PLAIN)
        analysis = analyze(cfg, workspace / 'bad.pth', num_samples=360, num_calibration=64)
        assert analysis.find('per-tensor').drop > 15
        for treatment, rounds in zip(TREATMENTS[1:], (False, True), strict=True):
            outcome = analysis.find('per-tensor', treatment=treatment)
            assert outcome.drop < 2
            settings = QuantizationSettings('per-tensor', num_samples=64, adaptive_rounding=rounds)
            result = quantize_model(cfg, workspace / 'bad.pth', tmp_path / 'net.onnx', settings)
            assert result.accuracy_reference == pytest.approx(analysis.accuracy)
            assert result.accuracy == pytest.approx(outcome.accuracy, abs=1.5)
        assert analysis.find('per-tensor', treatment=TREATMENTS[2]).logits_snr > 15
        advice = judge(analysis).advice[0]
        assert advice.startswith('equalize the channels')

    def test_inserted_norms(self, workspace, tmp_path):
        cfg = make_config(workspace, PLAIN)
        with pytest.warns(UserWarning, match='stage_3.1 .* 1 channel with weights more than 100 times'):
            reparameterize_checkpoint(cfg, workspace / 'bad.pth', tmp_path / 'deploy.pth')
        cfg.model.backbone.update(deploy=True, deploy_norm=dict(type='BN'))
        model = build_model(cfg, deploy=False)
        model.load_state_dict(read_checkpoint(tmp_path / 'deploy.pth').state_dict)
        torch.save(model.state_dict(), tmp_path / 'inserted.pth')
        analysis = analyze(cfg, tmp_path / 'inserted.pth', num_samples=120, num_calibration=32)
        assert judge(analysis).predictions[0].level == 'collapses'

    def test_wrapped_and_joined_data_sets(self, workspace):
        cfg = make_config(workspace, PLAIN)
        plain = [images for images, _ in iterate_samples(cfg, 'test', 20)]
        dataset = dict(cfg.test_dataloader.dataset)
        cfg.test_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=dataset)
        assert torch.equal(next(iterate_samples(cfg, 'test', 20))[0], plain[0])
        cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=[dataset, dataset])
        batches = list(iterate_samples(cfg, 'test', batch_size=60))
        assert sum(len(images) for images, _ in batches) == 2 * 360

    def test_images_without_labels(self, workspace, tmp_path):
        cfg = make_config(workspace, PLAIN)
        for loader, split in ((cfg.train_dataloader, 'train'), (cfg.test_dataloader, 'val')):
            # one folder of images, without classes
            loader.dataset.update(data_prefix=f'{split}/3', with_label=False)
        assert next(iterate_samples(cfg, 'test', 8))[1] is None
        analysis = analyze(cfg, workspace / 'good.pth', num_samples=20, num_calibration=16)
        assert (analysis.accuracy, analysis.num_images) == (None, 20)
        settings = QuantizationSettings(num_samples=16, eval_samples=0)
        result = quantize_model(cfg, workspace / 'good.pth', tmp_path / 'net.onnx', settings)
        assert (result.accuracy, result.images, result.num_images) == (None, 'train', 16)
        with pytest.raises(ValueError, match='test images of the config have no labels; `eval_samples=0` does without'):
            quantize_model(cfg, workspace / 'good.pth', tmp_path / 'other.onnx')

    def test_a_config_without_test_data(self, workspace):
        cfg = make_config(workspace, PLAIN)
        cfg.test_dataloader = None
        with pytest.raises(ValueError, match='the config must have a test_dataloader, which gives the images'):
            analyze(cfg, workspace / 'good.pth', split='train')

    def test_a_config_without_data(self, workspace):
        cfg = make_config(workspace, PLAIN)
        cfg.train_dataloader = None
        with pytest.raises(ValueError, match='the config must have a train_dataloader, which gives the images'):
            analyze(cfg, workspace / 'good.pth')

    def test_another_model(self, workspace):
        cfg = make_config(workspace, PLAIN)
        images = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
        with pytest.raises(
            ValueError, match=r'the model must be an image classifier, got Linear; give a config whose model is'
        ):
            analyze_model(torch.nn.Linear(2, 2), [images], [(images, None)])
        model = build_model(cfg, deploy=True)
        for calibration, samples, message in (
            ([], [(images, None)], 'at least one batch of calibration images'),
            ([images], [], 'at least one batch of samples'),
        ):
            with pytest.raises(ValueError, match=message):
                analyze_model(model, calibration, samples)


class TestTool:
    def test_a_report_a_picture_and_json(self, workspace):
        options = ('--num-samples', '120', '--num-calibration', '32', '--out', 'out.json', '--plot', 'new/out.png')
        shown = succeed('analyze_quantization', 'config.py', 'bad.pth', *options, cwd=workspace)
        assert 'bad.pth: train form, switched to deploy form in memory' in shown
        rows = [line for line in shown.splitlines() if line.startswith(f'| {BAD_BLOCK} ')]
        assert len(rows) == 2, 'among the layers, and among the norms'
        assert rows[0].split('|')[-2].strip() == '!!'
        assert 'per-tensor int8: COLLAPSES: will lose about' in shown
        assert 'per-channel int8: SAFE: will lose about' in shown
        content = json.loads((workspace / 'out.json').read_text())
        assert content['verdict']['worst'] == [BAD_BLOCK]
        assert content['fp32']['num_images'] == 120
        assert len(content['layers']) == 8
        analysis = analyze(make_config(workspace, PLAIN), workspace / 'bad.pth', num_samples=120, num_calibration=32)
        assert content['outcomes'][0]['num_lost'] == asdict(analysis.outcomes[0])['num_lost']
        height, width, _ = cv2.imread(str(workspace / 'new' / 'out.png')).shape
        assert height > 800 < width

    @pytest.mark.parametrize(
        ('options', 'message'),
        [
            (['--num-samples', '0'], "must be a whole number of at least 1, got '0'"),
            (['--split', 'val'], "invalid choice: 'val'"),
            (['--out', 'a.txt'], "must end in .json, got 'a.txt'"),
            (['--plot', 'a.svg'], "must end in .png, got 'a.svg'"),
        ],
    )
    def test_wrong_usage_is_told_before_torch_is_imported(self, workspace, options, message):
        done = run_tool('analyze_quantization', 'config.py', 'bad.pth', *options, cwd=workspace, without=['torch'])
        assert done.returncode == 2
        assert message in done.stderr

    @pytest.mark.parametrize(
        ('args', 'message'),
        [
            (['config.py', 'no.pth'], 'no.pth does not exist'),
            (['no.py', 'bad.pth'], 'no.py does not exist'),
            (
                ['config.py', 'bad.pth', '--cfg-options', 'model.head.num_classes=3'],
                'does not fit the model of the config',
            ),
            (
                ['config.py', 'bad.pth', '--cfg-options', 'test_dataloader.dataset.data_root=nowhere'],
                'test_dataloader: nowhere',
            ),
        ],
    )
    def test_an_error_is_one_line_and_writes_nothing(self, workspace, args, message):
        kept = workspace / 'kept.json'
        kept.write_text('before')
        assert message in fail_here('analyze', *args, '--out', 'kept.json', cwd=workspace)
        assert kept.read_text() == 'before'
