"""The models that this project describes: their configs, and how mmpretrain's model hub finds them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.runner import CheckpointLoader
from mmpretrain.apis import ModelHub, get_model
from modelindex.load_model_index import load
from modelindex.models.Model import Model
from modelindex.models.Result import Result
from modelindex.models.ResultList import ResultList

from .. import registry  # noqa: F401  (makes mmrepvgg's types known)
from ..checkpoints.reading import load_file
from ..reparam.switch import reparameterize
from .addresses import download_address
from .configs import METAFILE, find_root, list_configs

# mmpretrain chooses the inferencer of a model by this.
TASK = 'Image Classification'
# An address of weights: those of the model in train form whose name follows, switched.
SWITCHED = 'mmrepvgg-switched:'


def register_models(metafile: str | Path | None = None) -> list[str]:
    """Make ``mmpretrain.list_models`` and ``mmpretrain.get_model`` find this project's models.

    Their names are those of the configs: ``repvgg-a0_8xb32``, ``repvgg-a0_deploy`` and so on. mmpretrain's own models,
    ``repvgg-A0_8xb32_in1k`` and so on, are not changed. A second call changes nothing.

    ``get_model(name, pretrained=True)`` downloads weights, compares them with the hash in their file name, and reads
    only tensors and plain data from them. For a name in deploy form it downloads those of the train form and switches
    them.

    Args:
        metafile: A model-index file, in place of this project's models. Its configs are relative to its own folder.

    Returns:
        list[str]: Names of the models.

    Raises:
        ValueError: If another model already has one of the names.
    """
    root = find_root() if metafile is None else Path(metafile).parent
    path = root / METAFILE if metafile is None else Path(metafile)
    index = load(str(path))
    index.build_models_with_collections()
    models = list(index.models)
    others = list(_list_others(models)) if metafile is None else []
    names = [model.name for model in [*models, *others]]
    hub = ModelHub._models_dict  # `ModelHub.get` would read the config of each, and nothing adds a single model
    known = {name: hub[name.lower()] for name in names if ModelHub.has(name.lower())}
    if foreign := [name for name, model in known.items() if Path(model.filepath).resolve() != path.resolve()]:
        raise ValueError(
            f'{path} names {", ".join(foreign)}, which {known[foreign[0]].filepath} has registered already; rename it'
        )
    if not known:
        ModelHub.register_model_index(path, config_prefix=root)
        hub.update({model.name: model for model in others})
    for name in names:
        if hub[name.lower()].results is None:
            hub[name.lower()].results = ResultList([Result(TASK, dataset=None, metrics={})])
    for folder in {model.weights.rsplit('/', 1)[0] for model in models if model.weights}:
        # The longest prefix wins. mmengine's own loader of http addresses would run the code in a pickle.
        CheckpointLoader.register_scheme(prefixes=f'{folder}/', loader=_load_address, force=True)
    CheckpointLoader.register_scheme(prefixes=SWITCHED, loader=_load_switched, force=True)
    return names


def _list_others(models: list[Model]) -> Iterator[Model]:
    """The configs that are not in the model-index file, which tells what was published: deploy twins and recipes."""
    weights = {model.name: model.weights for model in models}
    for name, file in list_configs().items():
        if name not in weights:
            train = name.replace('_deploy', '_8xb32')
            switched = f'{SWITCHED}{train}' if weights.get(train) else None
            yield Model(name, config=str(file), weights=switched, _filepath=models[0].filepath)


def _load_switched(address: str, map_location: Any = None) -> dict[str, Any]:
    model = get_model(address.removeprefix(SWITCHED), pretrained=True)
    meta = dict(dataset_meta=model._dataset_meta)
    return dict(state_dict=reparameterize(model, inplace=True).state_dict(), meta=meta)


def _load_address(address: str, map_location: Any = None) -> Any:
    """Download a checkpoint and read it safely, always onto the CPU."""
    return load_file(download_address(address))
