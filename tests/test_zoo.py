"""Our models in mmpretrain's hub, and the download of their weights from a server on loopback."""

import functools
import hashlib
import http.server
import os
import threading
from pathlib import Path

import mmpretrain
import pytest
import torch
import yaml
from mmpretrain.apis import ModelHub
from mmpretrain.models.backbones.repvgg import RepVGG as PeerRepVGG

import mmrepvgg
from mmrepvgg.checkpoints.errors import CheckpointError
from mmrepvgg.models.forms import CheckpointFormError
from mmrepvgg.zoo.configs import list_configs

ARCH = dict(num_blocks=(1, 1, 1, 1), width_factor=(0.25, 0.125, 0.0625, 0.0625))
CONFIG = f"""
model = dict(
    type='mmrepvgg.ImageClassifier',
    backbone=dict(type='mmrepvgg.RepVGG', arch={ARCH}),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10),
)
"""


class Exploit:
    def __reduce__(self):
        return os.mkdir, (os.environ['MMREPVGG_TEST_EXPLOIT'],)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The address of a server for the files in ``tmp_path/served``; downloads are cached in ``tmp_path`` too."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    for proxy in ('http_proxy', 'HTTP_PROXY', 'all_proxy', 'ALL_PROXY'):
        monkeypatch.delenv(proxy, raising=False)
    (tmp_path / 'served').mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / 'served'))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{httpd.server_address[1]}'
        httpd.shutdown()


def register(tmp_path: Path, name: str, weights: str) -> None:
    (tmp_path / 'tiny.py').write_text(CONFIG)
    metafile = tmp_path / f'{name}.yml'
    metafile.write_text(yaml.safe_dump({'Models': [{'Name': name, 'Config': 'tiny.py', 'Weights': weights}]}))
    assert mmrepvgg.register_models(metafile) == [name]


def serve_checkpoint(tmp_path: Path) -> tuple[str, dict]:
    model = mmrepvgg.build_classifier(
        dict(
            type='ImageClassifier',
            backbone=dict(type='RepVGG', arch=ARCH),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=10),
        )
    )
    torch.save(dict(state_dict=model.state_dict(), meta=dict(epoch=1)), tmp_path / 'tiny.pth')
    content = (tmp_path / 'tiny.pth').read_bytes()
    name = f'tiny-{hashlib.sha256(content).hexdigest()[:8]}.pth'
    (tmp_path / 'served' / name).write_bytes(content)
    return name, model.state_dict()


def test_register_models_lists_every_config_beside_mmpretrains_models():
    names = mmrepvgg.register_models()
    assert set(names) == set(list_configs())
    assert mmrepvgg.register_models() == names
    assert {'repvgg-a0_8xb32_in1k', 'repvgg-a0_8xb32', 'repvgg-a0_deploy'} <= set(mmpretrain.list_models('repvgg-a0'))
    # with a task, mmpretrain's inference_model finds the inferencer
    assert set(names) <= set(mmpretrain.list_models(task='Image Classification'))


def test_get_model_builds_ours_and_mmpretrains_own_stays():
    mmrepvgg.register_models()
    assert type(mmpretrain.get_model('repvgg-a0_8xb32').backbone) is mmrepvgg.RepVGG
    assert type(mmpretrain.get_model('repvgg-A0_8xb32_in1k').backbone) is PeerRepVGG


def test_every_registered_config_exists():
    for name in mmrepvgg.register_models():
        assert ModelHub.get(name).config.model.backbone.type == 'mmrepvgg.RepVGG'


def test_pretrained_downloads_and_loads(server, tmp_path):
    file, state_dict = serve_checkpoint(tmp_path)
    register(tmp_path, 'Tiny-good', f'{server}/{file}')
    register(tmp_path, 'Tiny-good', f'{server}/{file}')
    model = mmpretrain.get_model('tiny-good', pretrained=True)
    assert not model.training
    for key, value in model.state_dict().items():
        assert torch.equal(value, state_dict[key]), key
    assert (tmp_path / 'torch/hub/checkpoints' / file).is_file()
    # a second time from the cache
    (tmp_path / 'served' / file).unlink()
    mmpretrain.get_model('tiny-good', pretrained=True)


@pytest.fixture(scope='module')
def a0(randomise):
    return randomise(mmpretrain.get_model(mmrepvgg.load_config('repvgg-a0_8xb32'))).eval()


def test_pretrained_deploy_form_has_the_train_forms_weights_switched(server, tmp_path, a0):
    """No network is needed for a file that is in torch's cache."""
    mmrepvgg.register_models()
    file = tmp_path / 'torch/hub/checkpoints' / ModelHub.get('repvgg-a0_8xb32').weights.rsplit('/')[-1]
    file.parent.mkdir(parents=True)
    torch.save(dict(state_dict=a0.state_dict(), meta=dict(dataset_meta=dict(classes=('one', 'two')))), file)
    deployed = mmpretrain.get_model('repvgg-a0_deploy', pretrained=True)
    assert deployed.backbone.stem.deploy
    assert deployed._dataset_meta == dict(classes=('one', 'two'))
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = a0(image)
        torch.testing.assert_close(deployed(image), expected, atol=1e-5 * expected.abs().max().item(), rtol=0)


def test_only_names_whose_train_form_has_weights_have_them_in_deploy_form():
    weights = {name: ModelHub._models_dict[name].weights for name in mmrepvgg.register_models()}
    for name, address in weights.items():
        if name.endswith('_deploy'):
            train = name.replace('_deploy', '_8xb32')
            assert address == (f'mmrepvgg-switched:{train}' if weights.get(train) else None), name


def test_a_checkpoint_of_the_wrong_form_is_refused_by_name(tmp_path, a0):
    mmrepvgg.register_models()
    torch.save(a0.state_dict(), tmp_path / 'train.pth')
    with pytest.raises(CheckpointFormError, match=r'in train form .* convert the checkpoint'):
        mmpretrain.get_model('repvgg-a0_deploy', pretrained=str(tmp_path / 'train.pth'))


def test_pretrained_refuses_a_file_that_is_not_its_hash(server, tmp_path):
    file, _ = serve_checkpoint(tmp_path)
    (tmp_path / 'served' / 'tiny-00000000.pth').write_bytes((tmp_path / 'served' / file).read_bytes())
    register(tmp_path, 'tiny-changed', f'{server}/tiny-00000000.pth')
    with pytest.raises(CheckpointError, match='invalid hash value'):
        mmpretrain.get_model('tiny-changed', pretrained=True)
    assert not list((tmp_path / 'torch/hub/checkpoints').iterdir())


def test_pretrained_runs_nothing_that_a_file_says(server, tmp_path, monkeypatch):
    monkeypatch.setenv('MMREPVGG_TEST_EXPLOIT', str(tmp_path / 'exploited'))
    torch.save(dict(state_dict=Exploit()), tmp_path / 'served' / 'tiny.pth')
    register(tmp_path, 'tiny-crafted', f'{server}/tiny.pth')
    with pytest.raises(CheckpointError, match='was refused, and nothing in it was run'):
        mmpretrain.get_model('tiny-crafted', pretrained=True)
    assert not (tmp_path / 'exploited').exists()


def test_pretrained_that_is_not_there_says_what_to_do(server, tmp_path):
    register(tmp_path, 'tiny-missing', f'{server}/missing.pth')
    with pytest.raises(CheckpointError, match=r'could not be downloaded .*404.* put it at'):
        mmpretrain.get_model('tiny-missing', pretrained=True)


def test_name_that_is_taken_is_an_error(tmp_path):
    mmrepvgg.register_models()
    with pytest.raises(ValueError, match=r'names repvgg-a0_8xb32, which .*metafile\.yml has registered already'):
        register(tmp_path, 'repvgg-a0_8xb32', 'http://127.0.0.1/none.pth')
