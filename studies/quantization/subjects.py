"""The models of the study: recipes, kinds of model, seeds. Imports no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """A way to train models.

    Attributes:
        title: Title in tables.
        lr: Largest learning rate, for the batch size of the config.
        epochs: Number of epochs of a RepVGG. Other kinds of model may take a multiple of it.
        schedule: ``'cosine'`` from the first iteration, or ``'one-cycle'`` with a warm-up of 30%.
    """

    title: str
    lr: float
    epochs: int
    schedule: str = 'cosine'


@dataclass(frozen=True)
class Kind:
    """A kind of model.

    Attributes:
        title: Title in tables.
        settings: Changes to the base config.
        epochs_factor: Factor for the number of epochs of a recipe.
        fine_tuning_epochs: Number of epochs of a fine-tuning, at a tenth of the learning rate. It starts from the
            trained RepVGG of the same recipe and seed. 0 means a training from random weights.
    """

    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    epochs_factor: float = 1.0
    fine_tuning_epochs: int = 0


RECIPES = {
    'steep': Recipe('lr 0.1, cosine', 0.1, 20),
    'gentle': Recipe('lr 0.05, one-cycle', 0.05, 25, 'one-cycle'),
}

KINDS = {
    'repvgg': Kind('RepVGG'),
    'custom-l2': Kind('RepVGG, custom L2', {'default_hooks.custom_l2': dict(type='mmrepvgg.CustomL2Hook')}),
    'qarepvgg': Kind(
        'QARepVGG',
        {'model.backbone.block': 'QARepVGGBlock', 'optim_wrapper.optimizer.weight_decay': 4e-5},
        epochs_factor=3.0,
    ),
    'qat': Kind(
        'RepVGG, QAT per-tensor',
        {
            'model.backbone.quantization': dict(granularity='per-tensor', momentum=0.05),
            'default_hooks.quantization': dict(
                type='mmrepvgg.QuantizationAwareHook', freeze_ranges_after=8, clip_scales=4.0
            ),
        },
        fine_tuning_epochs=10,
    ),
}


@dataclass(frozen=True)
class Subject:
    """One model of the study: keys of :data:`RECIPES` and :data:`KINDS`, and the seed of its training."""

    recipe: str
    kind: str
    seed: int

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f'{self.recipe}_{self.kind}_{self.seed}'

    @property
    def is_fine_tuned(self) -> bool:
        """Whether its training starts from another model."""
        return KINDS[self.kind].fine_tuning_epochs > 0

    @property
    def start(self) -> 'Subject':
        """The model from which a fine-tuning starts."""
        return Subject(self.recipe, 'repvgg', self.seed)

    def count_epochs(self, max_epochs: int | None = None) -> int:
        """Count the epochs of its own training, at most ``max_epochs``."""
        kind = KINDS[self.kind]
        epochs = kind.fine_tuning_epochs or round(RECIPES[self.recipe].epochs * kind.epochs_factor)
        return epochs if max_epochs is None else min(epochs, max_epochs)


def list_subjects(recipes: Sequence[str], kinds: Sequence[str], seeds: Sequence[int]) -> list[Subject]:
    """List every combination. Models from which others start come first, and are added if they are missing."""
    if any(KINDS[kind].fine_tuning_epochs for kind in kinds):
        kinds = ['repvgg', *(kind for kind in kinds if kind != 'repvgg')]
    subjects = [
        Subject(recipe, kind, seed)
        for kind in sorted(kinds, key=lambda kind: KINDS[kind].fine_tuning_epochs)
        for recipe in recipes
        for seed in seeds
    ]
    return list(dict.fromkeys(subjects))
