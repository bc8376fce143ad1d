"""The metafile, the README and the models agree."""

import re

import pytest
import yaml
from mmengine.config import Config
from tool_runs import ROOT, fail, succeed

from mmrepvgg.models.archs import ARCHS
from mmrepvgg.reparam.cost import measure_cost
from studies.model_table import BEGIN, END, render_table, update_table

README, METAFILE = ROOT / 'configs/repvgg/README.md', ROOT / 'configs/repvgg/metafile.yml'
MODELS = yaml.safe_load(METAFILE.read_text())['Models']
# ImageNet-1k top-1 / top-5 as published: authors, mmpretrain, mmcls (converted), timm (converted), MindCV.
ACCURACIES = {
    'A0': ['72.41', '72.37 / 90.56', '72.41 / 90.50', '72.43 / 90.51', '72.19 / 90.75'],
    'A1': ['74.46', '74.23 / 91.80', '74.47 / 91.85', '74.47 / 91.85', '74.19 / 91.89'],
    'A2': ['76.48', '76.49 / 93.09', '76.48 / 93.01', '76.49 / 93.02', '76.63 / 93.42'],
    'B0': ['75.14', '75.27 / 92.21', '75.14 / 92.42', '75.16 / 92.41', '74.99 / 92.40'],
    'B1': ['78.37', '78.19 / 94.04', '78.37 / 94.11', '78.37 / 94.11', '78.81 / 94.37'],
    'B1g2': ['77.78', '77.87 / 93.99', '77.79 / 93.88', '-', '78.03 / 94.09'],
    'B1g4': ['77.58', '77.81 / 93.77', '77.58 / 93.84', '77.61 / 93.85', '77.64 / 94.03'],
    'B2': ['78.78', '78.58 / 94.23', '78.78 / 94.42', '78.79 / 94.41', '79.29 / 94.66'],
    'B2g2': ['-'] * 5,
    'B2g4': ['78.50 (120 epochs)<br>79.38', '79.44 / 94.72', '79.38 / 94.68', '79.40 / 94.68', '78.80 / 94.36'],
    'B3': ['80.52', '80.58 / 95.33', '80.52 / 95.26', '80.53 / 95.25', '80.46 / 95.34'],
    'B3g2': ['-'] * 5,
    'B3g4': ['80.21', '80.26 / 95.15', '80.22 / 95.10', '80.22 / 95.10', '-'],
    'D2se': ['83.55 @320<br>81.82', '81.81 / 95.94', '81.81 / 95.94', '83.55 / 96.67 @320', '-'],
    'L2pse': ['84.06 @320', '-', '-', '-', '-'],
}


def test_readme_is_generated_from_the_metafile():
    table = README.read_text().split(f'{BEGIN}\n')[1].split(END)[0]
    assert table == render_table(MODELS), 'run: python tools/update_model_table.py'


def test_metafile_has_every_arch():
    # the paper's; YOLOX-PAI's is a detector's
    names = [f'repvgg-{arch.lower()}_8xb32' for arch in ARCHS if arch != 'yolox-pai-small']
    assert [model['Name'] for model in MODELS] == names


@pytest.mark.parametrize('model', MODELS, ids=lambda model: model['Name'])
def test_metafile_agrees_with_the_model(model):
    cfg = Config.fromfile(ROOT / model['Config'])
    train, deploy = (measure_cost(cfg, form)[-1] for form in (False, True))
    assert model['Metadata'] == {
        'Epochs': cfg.train_cfg.max_epochs,
        'Parameters': train.params,
        'FLOPs': train.macs,
        'Deploy Parameters': deploy.params,
        'Deploy FLOPs': deploy.macs,
    }


@pytest.mark.parametrize('arch', ACCURACIES)
def test_accuracies_are_the_published_ones(arch):
    row = next(line for line in README.read_text().splitlines() if line.startswith(f'| [repvgg-{arch.lower()}_8xb32]'))
    assert [cell.strip() for cell in row.split('|')[5:10]] == ACCURACIES[arch]


@pytest.mark.parametrize('arch', ACCURACIES)
def test_docstring_expects_an_accuracy_of_the_metafile(arch):
    doc = (ROOT / f'configs/repvgg/repvgg-{arch.lower()}_8xb32.py').read_text().split('"""')[1]
    found = re.findall(r'\b\d\d\.\d\d\b', doc)
    published = re.findall(r'\b\d\d\.\d\d\b', ' '.join(ACCURACIES[arch][:2]))
    assert set(found) <= set(published)
    assert bool(found) == bool(published)


def test_every_result_names_its_source_and_every_address_is_openmmlabs():
    for model in MODELS:
        for result in model['Results'] or ():
            assert result['Metrics']['Source']
        for entry in ('Weights', 'Converted Weights'):
            if entry in model:
                pattern = r'https://download\.openmmlab\.com/mmclassification/v0/repvgg/[\w.-]+-[0-9a-f]{8}\.pth'
                assert re.fullmatch(pattern, model[entry])
                arch = re.search(r'repvgg-?([A-D]\d\w*?)_', model[entry])[1]
                assert model['Name'] == f'repvgg-{arch.lower()}_8xb32'


def test_update_writes_the_table_and_keeps_the_rest(tmp_path):
    readme = tmp_path / 'README.md'
    readme.write_text(f'before\n{BEGIN}\nold\n{END}\nafter\n')
    assert update_table(readme, METAFILE)
    assert readme.read_text() == f'before\n{BEGIN}\n{render_table(MODELS)}{END}\nafter\n'
    assert not update_table(readme, METAFILE)


def test_update_needs_the_markers(tmp_path):
    readme = tmp_path / 'README.md'
    readme.write_text('text\n')
    with pytest.raises(ValueError, match='must have the lines'):
        update_table(readme, METAFILE)
    assert readme.read_text() == 'text\n'


def test_unknown_source_is_an_error():
    result = {'Metrics': {'Top 1 Accuracy': 99.0, 'Source': 'hearsay, unknown'}}
    with pytest.raises(ValueError, match=r'must begin with one of RepVGG authors, .* got hearsay'):
        render_table([{**MODELS[0], 'Results': [result]}])


def test_tool_says_what_it_did():
    assert succeed('update_model_table', cwd=ROOT) == 'configs/repvgg/README.md: up to date\n'
    assert 'none.md does not exist' in fail('update_model_table', '--readme', 'none.md', cwd=ROOT)
