"""The networks and runtimes that can be timed, and the cases of a run. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from ..runtimes.table import FORMATS


@dataclass(frozen=True)
class Network:
    """A kind of network.

    Attributes:
        title: Title in the table and the chart.
        package: Name of the package that has the network.
        has_arch: Whether the network exists in RepVGG's archs. If not, it is timed once beside them.
        is_file: Whether the network exists as an exported file only.
    """

    title: str
    package: str = 'mmrepvgg'
    has_arch: bool = True
    is_file: bool = False


NETWORKS: dict[str, Network] = {
    'deploy': Network('mmrepvgg, deploy form'),
    'train': Network('mmrepvgg, train form'),
    # from uint8 images in memory to predictions, as in a test: normalisation, softmax, data samples
    'tested': Network('mmrepvgg, deploy form, images to predictions', is_file=True),
    'mmpretrain': Network("mmpretrain's RepVGG, deploy form", 'mmpretrain'),
    'timm': Network("timm's RepVGG, deploy form", 'timm'),
    'train-merged': Network('mmrepvgg, train form, merged branches'),
    'train-mmpretrain': Network("mmpretrain's RepVGG, train form", 'mmpretrain'),
    'train-timm': Network("timm's RepVGG, train form", 'timm'),
    'train-official': Network("the official repository's RepVGG, train form"),
    'resnet50': Network("timm's ResNet-50", 'timm', has_arch=False),
    'resnet101': Network("timm's ResNet-101", 'timm', has_arch=False),
}

# Networks of a model by name, such as timm:mobileone_s0, in the place of an arch. The last one is timm's own switch.
NAMED = {'train': 'train form', 'deploy': 'deploy form by mmrepvgg', 'timm': 'deploy form by timm'}

# The train forms of this project, and of others.
OWN_TRAIN_FORMS = ('train', 'train-merged')
OTHER_TRAIN_FORMS = ('train-mmpretrain', 'train-timm', 'train-official')

LAYOUTS = ('nchw', 'channels_last')


@dataclass(frozen=True)
class Runtime:
    """A way to run a network.

    Attributes:
        title: Title in the table and the chart.
        layouts: Layouts from which the user chooses; empty if the runtime chooses.
        devices: Devices on which it runs.
        networks: Networks that it runs; None for all.
        has_int8: Whether it computes in int8.
        takes_files: Whether it runs files of :func:`mmrepvgg.export_model`.
        trains: Whether it computes training steps.
    """

    title: str
    layouts: tuple[str, ...] = ()
    devices: tuple[str, ...] = ('cpu',)
    networks: tuple[str, ...] | None = None
    has_int8: bool = False
    takes_files: bool = False
    trains: bool = False

    def runs(self, network: str) -> bool:
        """Whether it runs this network, a key of ``NETWORKS``."""
        return (self.networks is None or network in self.networks) and self.takes_files >= NETWORKS[network].is_file


_TRAINED = (*OWN_TRAIN_FORMS, *OTHER_TRAIN_FORMS, 'resnet50', 'resnet101')

RUNTIMES: dict[str, Runtime] = {
    'eager': Runtime('PyTorch eager', LAYOUTS, ('cpu', 'cuda')),
    'compiled': Runtime('torch.compile', LAYOUTS, ('cpu', 'cuda')),
    'cuda-graph': Runtime('CUDA graph', LAYOUTS, ('cuda',)),
    **{
        row.runtime: Runtime(row.runtime_title, has_int8=bool(row.quantizers), takes_files=True)
        for row in FORMATS
        if row.runtime
    },
    # forward, backward and SGD; in bf16 and fp16 by autocast
    'train-step': Runtime('training step', LAYOUTS, ('cpu', 'cuda'), _TRAINED, trains=True),
    # torch.compile lays out convolutions in channels_last itself. Other networks then crash: trial.py says why.
    'train-step-compiled': Runtime(
        'compiled training step', ('channels_last',), ('cpu', 'cuda'), OWN_TRAIN_FORMS, trains=True
    ),
}

PRECISIONS = ('fp32', 'bf16', 'fp16', 'int8')
DEVICES = ('cpu', 'cuda')


@dataclass(frozen=True)
class Case:
    """One row of the benchmark.

    Attributes:
        network: Key of ``NETWORKS``.
        arch: Arch of RepVGG, or name of a model, such as ``'timm:mobileone_s0'``; None for a network that is neither.
        runtime: Key of ``RUNTIMES``.
        layout: One of ``LAYOUTS``; None if the runtime chooses.
        precision: One of ``PRECISIONS``.
        device: One of ``DEVICES``.
        threads: Number of CPU threads.
        batch_size: Number of images.
    """

    network: str
    arch: str | None
    runtime: str
    layout: str | None
    precision: str
    device: str
    threads: int
    batch_size: int

    @property
    def model(self) -> str:
        """Name of its weights: the arch, or the network if it has no arch."""
        return self.arch or self.network

    @property
    def title(self) -> str:
        """Title of the network in the table and the chart."""
        return NAMED[self.network] if is_named(self.arch) else NETWORKS[self.network].title

    @property
    def place(self) -> tuple[str, int, int]:
        """The device, the number of threads and the number of images."""
        return (self.device, self.threads, self.batch_size)

    @property
    def mode(self) -> tuple[object, ...]:
        """All fields but network and arch. Cases of one mode differ in nothing else."""
        return (self.runtime, self.layout, self.precision, *self.place)

    @property
    def mode_title(self) -> str:
        parts = [RUNTIMES[self.runtime].title, self.layout, self.precision]
        return ', '.join(part for part in parts if part)

    @property
    def place_title(self) -> str:
        return f'{self.device}, {self.threads} thread(s), batch {self.batch_size}'

    def __str__(self) -> str:
        parts = [self.arch, self.title, self.mode_title, self.place_title]
        return ', '.join(part for part in parts if part)


def is_named(arch: str | None) -> bool:
    """Whether ``arch`` is the name of a model, with its system."""
    return ':' in (arch or '')


def _exists(network: str, arch: str) -> bool:
    if is_named(arch):
        return network in NAMED and (network != 'timm' or arch.startswith('timm:'))
    return NETWORKS[network].has_arch


def plan_cases(
    archs: Sequence[str],
    networks: Sequence[str],
    runtimes: Sequence[str],
    layouts: Sequence[str] = LAYOUTS,
    precisions: Sequence[str] = ('fp32',),
    devices: Sequence[str] = ('cpu',),
    threads: Sequence[int] = (1,),
    batch_sizes: Sequence[int] = (1,),
) -> list[Case]:
    """List every possible combination once. ``threads``, ``batch_sizes`` and ``archs`` vary slowest.

    Raises:
        ValueError: If no combination is possible.
    """
    models: list[tuple[str | None, list[str]]] = [
        *((arch, [name for name in networks if _exists(name, arch)]) for arch in archs),
        *((None, [name]) for name in networks if not NETWORKS[name].has_arch),
    ]
    cases: list[Case] = []
    for num_threads, batch_size, (arch, names) in product(threads, batch_sizes, models):
        for device, precision, runtime in product(devices, precisions, runtimes):
            row = RUNTIMES[runtime]
            if device not in row.devices or (precision == 'int8' and not row.has_int8):
                continue
            if row.trains and is_named(arch):
                continue
            chosen = [name for name in layouts if name in row.layouts] if row.layouts else [None]
            cases += [
                Case(name, arch, runtime, layout, precision, device, num_threads, batch_size)
                for layout, name in product(chosen, names)
                if row.runs(name)
            ]
    if not cases:
        raise ValueError(
            f'nothing to time: no runtime of {", ".join(runtimes)} runs any of {", ".join(networks)} on '
            f'{", ".join(devices)}; train-step runs {", ".join(RUNTIMES["train-step"].networks or ())}, cuda-graph '
            'runs on cuda, exported files and the network tested run on cpu, int8 runs in '
            f'{" and ".join(name for name, row in RUNTIMES.items() if row.has_int8)}'
        )
    return list(dict.fromkeys(cases))


def drop_other_train_forms(cases: Sequence[Case]) -> list[Case]:
    """Leave out train forms as files, which nobody ships."""
    return [case for case in cases if case.network not in OWN_TRAIN_FORMS or not RUNTIMES[case.runtime].takes_files]
