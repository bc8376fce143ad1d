"""The page about a training: what it says, and that it can be read by everyone, everywhere, without a network."""

import base64
import io
import json
import re
import shutil
import types
from pathlib import Path

import pytest
import torch
from browser import open_page
from PIL import Image
from tool_runs import SMALL, fail_here, run_command, succeed_here

from mmrepvgg import QARepVGGBlock, RepVGGBlock, load_config, write_report
from mmrepvgg.commands.train import _write_report
from mmrepvgg.engine.training import train
from mmrepvgg.reparam.branches import find_branch_kernels
from mmrepvgg.report.curves import read_curves
from mmrepvgg.report.mistakes import find_mistakes
from mmrepvgg.report.scoring import Scored, pick_surest, pick_wrong

# Names of classes and files that want to be more than text.
HOSTILE = (
    '<script>document.title = "taken"</script>',
    '"><img src=x onerror=alert(1)>',
    '$\\frac{',
    '\u202egnp.exe',
    '${{ 7 * 7 }}',
)
THEMES = dict(light={}, dark=dict(color_scheme='dark'), phone=dict(viewport=dict(width=320, height=640)))

# The contrast of each text with what is behind it, where that is below WCAG 2's 4.5 to 1.
_FIND_WEAK = """() => {
  const parse = text => (text.match(/[\\d.]+%?/g) || []).map(Number)
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0)
  const behind = element => {
    const layers = []
    for (let each = element; each; each = each.parentElement)
      layers.unshift(parse(getComputedStyle(each).backgroundColor))
    const cover = (below, [r, g, b, a = 1]) => below.map((v, i) => v * (1 - a) + a * [r, g, b][i])
    return layers.reduce(cover, [255, 255, 255])
  }
  const weak = []
  for (const element of document.body.querySelectorAll('*')) {
    if (![...element.childNodes].some(node => node.nodeType === 3 && node.data.trim())) continue
    const style = getComputedStyle(element)
    const colour = parse(element.ownerSVGElement ? style.fill : style.color)
    const [bright, dim] = [colour, behind(element)].map(light).sort((a, b) => b - a)
    const ratio = (bright + .05) / (dim + .05)
    if (!(ratio >= 4.5)) weak.push(`${element.tagName} ${element.textContent.trim()} ${ratio}`)
  }
  return weak
}"""


@pytest.fixture(scope='module')
def folder(digits, tmp_path_factory) -> Path:
    """A folder with data/digits and the work dir ``work``: a training, an exported file, an analysis, a page."""
    folder = tmp_path_factory.mktemp('report')
    (folder / 'data').symlink_to(digits / 'data')
    shutil.copytree(digits / 'small', folder / 'work')
    shutil.copy(digits / 'small.pth', folder / 'work/epoch_6.pth')
    succeed_here('export', SMALL, 'work/epoch_6.pth', 'work/small.onnx', cwd=folder)
    options = ('--num-samples', 16, '--num-calibration', 16)
    succeed_here('analyze', SMALL, 'work/epoch_6.pth', *options, '--out', 'work/int8.json', cwd=folder)
    (folder / 'work/other.json').write_text('[1, 2]')
    (folder / 'work/damaged.onnx').write_bytes(b'no file of ONNX')
    assert succeed_here('report', 'work', cwd=folder) == 'report: work/report.html\n'
    return folder


@pytest.fixture(scope='module')
def page_text(folder) -> str:
    return (folder / 'work/report.html').read_text()


def link_data(digits: Path, target: Path) -> None:
    (target / 'data').symlink_to(digits / 'data')


class TestPage:
    def test_it_says_what_the_training_gave(self, folder, page_text):
        text = ' '.join(re.sub(r'<style>.*?</style>|<[^>]*>', ' ', page_text, flags=re.DOTALL).split())
        correct = re.search(r'accuracy/top1: ([\d.]+)', succeed_here(
            'test', SMALL, 'work/epoch_6.pth', '--work-dir', 'tested', '--metrics', 'accuracy', cwd=folder
        ))[1]  # fmt: skip
        assert f'Top-1 accuracy {float(correct):.2f}% on 360 validation images' in text
        assert re.search(r'132 steps in 6 epochs\. The best validation was after epoch 6', text)
        assert 'train form 610,506 2,542,080' in text
        assert 'deploy form 547,818 2,288,128' in text
        assert re.search(r'predict another class for 0 \. Their largest difference is \d\.\de-0[5-7]', text)
        assert re.search(r'small\.onnx ONNX Runtime fp32 2\.\d\d MB [\d.]+ ms [\d.]+% 0 epoch_6\.pth', text)
        assert 'damaged.onnx : work/damaged.onnx is damaged' in text
        assert re.search(r'int8\.json of mmrepvgg analyze predicts .* on 16 images', text)
        assert 'per-tensor, equalized and rounded adaptively safe' in text
        assert text.count('The kernels of backbone.stage_3.1') == 1

    def test_it_is_small_and_has_all_in_itself(self, page_text):
        assert len(page_text) < 1_000_000
        assert "default-src 'none'" in page_text
        assert '<script' not in page_text
        addresses = re.findall(r'(?:\b(?:src|href)=|url\()["\']?([^"\'\s>)]+)', page_text)
        assert addresses
        assert all(address.startswith(('#', 'data:image/')) for address in addresses)

    @pytest.mark.parametrize('theme', THEMES)
    def test_it_can_be_read_in_a_browser(self, browser, folder, theme):
        with open_page(browser, (folder / 'work/report.html').as_uri(), **THEMES[theme]) as page:
            assert page.evaluate(_FIND_WEAK) == []
            assert page.evaluate('document.documentElement.scrollWidth <= innerWidth')
            assert page.locator('img').evaluate_all('images => images.every(each => each.naturalWidth > 0)')
            page.emulate_media(media='print', color_scheme='dark' if theme == 'dark' else 'light')
            # paper is white
            assert page.evaluate('getComputedStyle(document.body).backgroundColor') == 'rgb(255, 255, 255)'
            assert page.evaluate(_FIND_WEAK) == []

    def test_it_has_what_screen_readers_and_keyboards_need(self, browser, folder):
        with open_page(browser, (folder / 'work/report.html').as_uri()) as page:
            assert page.locator('html').get_attribute('lang') == 'en'
            for role in ('banner', 'navigation', 'main', 'contentinfo'):
                assert page.get_by_role(role).count() == 1, role
            levels = page.locator('h1, h2, h3').evaluate_all('all => all.map(each => Number(each.tagName[1]))')
            assert levels.count(1) == 1
            assert all(after <= before + 1 for before, after in zip([0, *levels], levels, strict=False))
            alts = page.locator('img').evaluate_all('all => all.map(each => each.getAttribute("alt"))')
            assert len(alts) > 20
            assert all(len(alt or '') > 20 for alt in alts)
            labels = page.locator('svg').evaluate_all('all => all.map(each => each.getAttribute("aria-label"))')
            assert [label.partition(':')[0] for label in labels] == ['Loss', 'Validation', 'Learning rate']
            assert page.locator('table:not(:has(> caption))').count() == 0
            assert page.locator('th:not([scope])').count() == 0
            ids = page.locator('[id]').evaluate_all('all => all.map(each => each.id)')
            assert len(ids) == len(set(ids))
            for link in page.locator('a').all():
                assert page.locator(link.get_attribute('href')).count() == 1
            page.keyboard.press('Tab')
            focused = page.locator(':focus')
            assert focused.inner_text() == 'Skip to the content'
            assert focused.bounding_box()['x'] >= 0
            page.keyboard.press('Tab')
            assert page.locator(':focus').evaluate('each => getComputedStyle(each).outlineStyle') == 'solid'

    def test_names_stay_text_whatever_is_in_them(self, browser, digits, tmp_path):
        link_data(digits, tmp_path)
        content = torch.load(digits / 'small.pth', weights_only=False)
        content['meta']['dataset_meta']['classes'] = [*HOSTILE, *'fghij']
        shutil.copytree(digits / 'small', tmp_path / 'work')
        torch.save(content, tmp_path / 'work/epoch_6.pth')
        images = sorted((tmp_path / 'data/digits/val').glob('*/*.png'))[::12]
        for number, image in enumerate(images):
            copy = tmp_path / f'val/{image.parent.name}/{HOSTILE[number % len(HOSTILE)].replace("/", "")}{number}.png'
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(image, copy)
        config = tmp_path / 'work/digits_small.py'
        config.write_text(config.read_text() + "\nval_dataloader['dataset'].update(data_root='val', data_prefix='')\n")
        succeed_here('report', 'work', '--out', 'hostile.html', cwd=tmp_path)
        with open_page(browser, (tmp_path / 'hostile.html').as_uri()) as page:
            assert page.title() == 'work: report of a training'
            assert page.locator('script').count() == page.locator('[onerror]').count() == 0
            heads = page.locator('table.matrix thead th').all_inner_texts()
            assert heads[1:4] == list(HOSTILE[:3])
            assert heads[4] == '\\u202egnp.exe'
            assert heads[5] == HOSTILE[4]
            assert any(HOSTILE[1] in file for file in page.locator('.file').all_inner_texts())


class TestTraining:
    OPTIONS = (
        '--cfg-options', 'train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'train_dataloader.dataset.indices=64',
        'val_dataloader.dataset.indices=40', 'default_hooks.checkpoint.interval=1',
    )  # fmt: skip

    def train(self, folder: Path, *options: str) -> types.SimpleNamespace:
        return run_command('train', SMALL, '--work-dir', 'work', *options, *self.OPTIONS, cwd=folder, reports=True)

    def test_it_ends_with_the_page(self, digits, tmp_path):
        link_data(digits, tmp_path)
        done = self.train(tmp_path)
        assert done.returncode == 0
        assert re.findall(r'^trained: .*', done.stdout, re.MULTILINE)
        assert done.stderr.splitlines()[-1] == 'report: work/report.html'
        text = (tmp_path / 'work/report.html').read_text()
        # the training had one epoch
        assert '1 steps.' in text
        assert 'on 40 validation images' in text
        (tmp_path / 'work/report.html').unlink()
        assert self.train(tmp_path, '--no-report').returncode == 0
        assert not (tmp_path / 'work/report.html').exists()

    def test_an_error_of_the_page_is_a_line_and_the_training_succeeds(self, digits, tmp_path):
        link_data(digits, tmp_path)
        (tmp_path / 'work/report.html').mkdir(parents=True)
        done = self.train(tmp_path)
        assert done.returncode == 0
        assert 'Traceback' not in done.stderr
        assert done.stderr.splitlines()[-1] == (
            'no report: work/report.html is a folder; give the name of a file; try again: mmrepvgg report work'
        )


def test_a_training_in_deploy_form_without_validation(digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    link_data(digits, tmp_path)
    cfg = load_config(
        SMALL, ['model.backbone.deploy=True', 'train_cfg.max_epochs=1', 'train_dataloader.dataset.indices=64']
    )
    for name in ('val_dataloader', 'val_cfg', 'val_evaluator', 'test_dataloader', 'test_cfg', 'test_evaluator'):
        cfg[name] = None
    cfg.default_hooks.checkpoint.update(interval=1, save_best=None)
    succeed_here('reparameterize', SMALL, digits / 'small.pth', 'deploy.pth', cwd=tmp_path)
    cfg.load_from = 'deploy.pth'
    with pytest.warns(UserWarning, match='training a RepVGG that was built with deploy=True'):
        train(cfg, 'work')
    text = write_report('work', tmp_path / 'elsewhere/page.html').read_text()
    assert 'there was nothing to switch' in text
    assert 'Confusion matrix' not in text
    assert 'deploy form' in text
    assert 'train form' not in text


def test_images_are_drawn_and_damaged_ones_are_left_out(folder, digits, tmp_path):
    shutil.copytree(digits / 'data/digits/val', tmp_path / 'data/digits/val')
    shutil.copytree(folder / 'work', tmp_path / 'work')
    for image in (tmp_path / 'data/digits/val/3').iterdir():
        image.write_bytes(b'')
    succeed_here('report', 'work', '--exported', 'work/small.onnx', '--num-samples', 100, cwd=tmp_path)
    text = ' '.join((tmp_path / 'work/report.html').read_text().split())
    assert 'They were drawn at random from all 360, always the same ones.' in text
    number = int(
        re.search(r'(\d+) images could not be read and are left out\. The first one: data/digits/val/3', text)[1]
    )
    assert f'on {100 - number} validation images' in text
    assert 'Of 1 of the 10 classes there was no image among them.' in text
    assert 'damaged.onnx' not in text


def test_what_is_no_training_of_a_classifier_is_refused(folder, tmp_path, capsys):
    assert fail_here('report', 'no', cwd=tmp_path).endswith('no is not a folder; give the work dir of a training')
    (tmp_path / 'work').mkdir()
    line = fail_here('report', 'work', cwd=tmp_path)
    assert line.endswith('work holds no config (.py); give the work dir of a training by mmrepvgg train CONFIG')
    shutil.copy(folder / 'work/digits_small.py', tmp_path / 'work')
    assert 'work holds no checkpoint (epoch_N.pth, iter_N.pth); name one by --checkpoint' in fail_here(
        'report', 'work', cwd=tmp_path
    ).replace('\n', ' ')
    line = fail_here('report', 'work', '--checkpoint', folder / 'work/epoch_6.pth', cwd=tmp_path)
    assert 'data/digits/val does not exist' in line
    several = "model = dict(type='ImageClassifier', head=dict(type='MultiLabelLinearClsHead', num_classes=3))"
    for number, (config, found) in enumerate(
        {
            "model = dict(type='EncoderDecoder')": 'EncoderDecoder',
            several: 'ImageClassifier with MultiLabelLinearClsHead',
        }.items()
    ):
        path = tmp_path / f'work/other{number}.py'
        path.write_text(config)
        line = fail_here('report', 'work', cwd=tmp_path)
        assert line.endswith(
            f'a report is about a classifier that gives an image one label, got {found} (work/{path.name})'
        )
        # a training of such a model ends without a word about it
        _write_report(str(tmp_path / 'work'), 'epoch_6.pth')
        assert capsys.readouterr().err == ''
    with pytest.raises(ValueError, match='`num_samples` must be at least 1, got 0'):
        write_report(tmp_path, num_samples=0)


class TestCurves:
    def write(self, folder: Path, run: str, *lines: object) -> None:
        path = folder / run / 'vis_data/scalars.json'
        path.parent.mkdir(parents=True)
        path.write_text('\n'.join(line if isinstance(line, str) else json.dumps(line) for line in lines))

    def step(self, number: int, loss: float, epoch: int = 1) -> dict:
        return dict(lr=0.1 / number, loss=loss, epoch=epoch, iter=number, step=number)

    def test_a_resumed_run_takes_the_place_of_what_came_after_its_checkpoint(self, tmp_path):
        steps = [self.step(number, number, 1 + (number > 2)) for number in (1, 2, 3, 4, 5)]
        measured = {'accuracy/top1': 50.0, 'time': 1.0, 'step': 1}
        lines = [*steps[:2], measured, steps[2], {'accuracy/top5': 99.0, 'step': 2}, *steps[3:]]
        self.write(tmp_path, '20260101_000000', *lines)
        later = [self.step(number, 9.0, 2) for number in (3, 4)]
        self.write(tmp_path, '20260102_000000', *later, {'accuracy/top1': 60.0, 'step': 2}, '{"loss": 1, "it')
        self.write(tmp_path, '20260103_000000', {'accuracy/top1': 10.0, 'step': 0})
        curves = read_curves(tmp_path)
        assert (curves.unit, curves.num_steps) == ('epoch', 4)
        assert [(each.number, each.loss, each.metrics) for each in curves.points] == [
            (1, 1.5, {'accuracy/top1': 50.0}),
            (2, 9.0, {'accuracy/top1': 60.0}),
        ]
        assert [each.rate for each in curves.points] == [0.05, 0.025]
        assert curves.find_best('accuracy/top1').number == 2

    def test_a_training_without_epochs_is_shown_by_steps(self, tmp_path):
        lines = [self.step(number, number) for number in range(1, 121)]
        self.write(tmp_path, 'run', *lines[:60], {'accuracy/top1': 7.0, 'step': 60}, *lines[60:])
        curves = read_curves(tmp_path)
        assert (curves.unit, len(curves.points)) == ('step', 40)
        assert [(each.number, each.loss) for each in curves.points[:2]] == [(3, 2.0), (6, 5.0)]
        assert {each.number: each.metrics for each in curves.points if each.metrics} == {60: {'accuracy/top1': 7.0}}

    def test_a_diverged_training_and_no_log_at_all(self, tmp_path):
        assert read_curves(tmp_path).points == ()
        self.write(tmp_path, 'run', self.step(1, 2.0), '{"loss": NaN, "lr": 0.1, "epoch": 2, "iter": 2}', '[]', '{}')
        assert [each.loss for each in read_curves(tmp_path).points] == [2.0, None]


@pytest.mark.parametrize('groups', [1, 2])
@pytest.mark.parametrize('block_type', [RepVGGBlock, QARepVGGBlock])
def test_the_kernels_of_the_branches_add_up_to_the_one_of_the_deploy_form(block_type, groups, randomise):
    block = randomise(block_type(8, 8, groups=groups)).eval().double()
    kernels = find_branch_kernels(block)
    assert list(kernels) == ['3x3', '1x1', 'identity']
    whole = block.get_equivalent_kernel_bias()[0]
    torch.testing.assert_close(sum(kernels.values()), whole, atol=1e-12, rtol=0)
    # only the centres of the small ones are not zero, and those of the identity on the diagonal
    for name in ('1x1', 'identity'):
        off_centre = kernels[name].clone()
        off_centre[:, :, 1, 1] = 0
        assert off_centre.abs().max() < 1e-12
    centres = kernels['identity'][:, :, 1, 1]
    assert (centres.abs() > 1e-3).sum(1).tolist() == [1] * 8
    assert [row.abs().argmax().item() for row in centres] == [channel % (8 // groups) for channel in range(8)]
    assert find_branch_kernels(block_type(4, 8, stride=2).eval()).keys() == {'3x3', '1x1'}
    block.switch_to_deploy()
    assert find_branch_kernels(block) == {}


class TestMistakes:
    def score(self, labels: list[int], predicted: list[int], sure: list[float], num_classes: int) -> Scored:
        scores = torch.zeros(len(labels), num_classes).scatter_(1, torch.tensor(predicted)[:, None], 1.0)
        probabilities = scores * torch.tensor(sure)[:, None]
        return Scored(None, list(range(len(labels))), torch.tensor(labels), probabilities, {}, {}, ())

    def test_the_surest_right_and_the_surest_wrong_predictions(self):
        scored = self.score([0, 0, 1, 1, 2, 2], [0, 0, 1, 2, 0, 1], [0.6, 0.9, 0.7, 0.8, 0.5, 0.95], 3)
        assert pick_surest(scored, 10) == [1, 2]
        assert pick_surest(scored, 1) == [1]
        assert pick_wrong(scored, 10) == [5, 3, 4]
        assert pick_wrong(scored, 2) == [5, 3]
        assert scored.accuracy == 50.0

    def test_many_classes_have_lists_and_no_matrix(self):
        labels, predicted = [0, 0, 0, 1, 1, 7], [0, 4, 4, 1, 7, 7]
        names = [f'class {number}' for number in range(21)]
        mistakes = find_mistakes(self.score(labels, predicted, [0.9] * 6, 21), names)
        assert mistakes.matrix == []
        picture = Image.open(io.BytesIO(base64.b64decode(mistakes.picture.partition(',')[2])))
        assert picture.size == (21, 21)
        drawn = {(y, x) for y in range(21) for x in range(21) if picture.getpixel((x, y))[3]}
        assert drawn == {(0, 0), (0, 4), (1, 1), (1, 7), (7, 7)}
        # blue is right, orange is wrong; the more images, the stronger
        right, wrong, strong = (picture.getpixel(place) for place in ((0, 0), (4, 0), (7, 7)))
        assert right[2] > right[0]
        assert wrong[0] > wrong[2]
        assert right[3] < wrong[3] < strong[3] == 255
        assert mistakes.pairs == [('class 0', 'class 4', 2), ('class 1', 'class 7', 1)]
        assert [(each.name, each.num_images, each.num_right) for each in mistakes.weakest] == [
            ('class 0', 3, 1),
            ('class 1', 2, 1),
        ]
        assert mistakes.num_absent == 18
        few = find_mistakes(self.score([0, 2, 2], [0, 0, 2], [0.9] * 3, 3), names[:3])
        assert (few.matrix, few.picture) == ([[1, 0, 0], [0, 0, 0], [1, 0, 1]], '')
