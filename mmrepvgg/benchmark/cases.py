"""What can be timed, as tables, and the cases that a command line asks for. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from ..runtimes.table import FORMATS


@dataclass(frozen=True)
class Network:
    """A kind of network.

    Attributes:
        title: For the table and the chart.
        package: Which installed package has it.
        has_arch: Whether it exists in RepVGG's archs; if not, it is timed once beside them.
        is_file: Whether it exists as an exported file only.
    """

    title: str
    package: str = 'mmrepvgg'
    has_arch: bool = True
    is_file: bool = False


NETWORKS: dict[str, Network] = {
    'deploy': Network('mmrepvgg, deploy form'),
    'train': Network('mmrepvgg, train form'),
    # uint8 images in memory to predictions, as a file is tested: normalisation, softmax, data samples
    'tested': Network('mmrepvgg, deploy form, images to predictions', is_file=True),
    'mmpretrain': Network("mmpretrain's RepVGG, deploy form", 'mmpretrain'),
    'timm': Network("timm's RepVGG, deploy form", 'timm'),
    'resnet50': Network("timm's ResNet-50", 'timm', has_arch=False),
    'resnet101': Network("timm's ResNet-101", 'timm', has_arch=False),
}

LAYOUTS = ('nchw', 'channels_last')


@dataclass(frozen=True)
class Runtime:
    """A way to run a network.

    Attributes:
        title: For the table and the chart.
        layouts: Between which layouts the user chooses; empty where the runtime chooses by itself.
        devices: Where it runs.
        networks: For which networks; None for all.
        has_int8: Whether it computes in int8.
        takes_files: Whether what it runs are files as :func:`mmrepvgg.export_model` writes them.
    """

    title: str
    layouts: tuple[str, ...] = ()
    devices: tuple[str, ...] = ('cpu',)
    networks: tuple[str, ...] | None = None
    has_int8: bool = False
    takes_files: bool = False

    def runs(self, network: str) -> bool:
        """Whether it runs this one of ``NETWORKS``."""
        return (self.networks is None or network in self.networks) and self.takes_files >= NETWORKS[network].is_file


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
    'train-step': Runtime('training step', LAYOUTS, ('cpu', 'cuda'), ('train', 'resnet50', 'resnet101')),
}

PRECISIONS = ('fp32', 'bf16', 'fp16', 'int8')
DEVICES = ('cpu', 'cuda')


@dataclass(frozen=True)
class Case:
    """One row of the benchmark.

    Attributes:
        network: A key of ``NETWORKS``.
        arch: RepVGG's arch; None for a network that is no RepVGG.
        runtime: A key of ``RUNTIMES``.
        layout: One of ``LAYOUTS``; None where the runtime chooses.
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
        """Which weights it has: those of an arch, or of a network that has none."""
        return self.arch or self.network

    @property
    def place(self) -> tuple[str, int, int]:
        """Where it runs: device, number of threads and of images."""
        return (self.device, self.threads, self.batch_size)

    @property
    def mode(self) -> tuple[object, ...]:
        """All but the network: cases with the same mode differ in nothing else."""
        return (self.runtime, self.layout, self.precision, *self.place)

    @property
    def mode_title(self) -> str:
        parts = [RUNTIMES[self.runtime].title, self.layout, self.precision]
        return ', '.join(part for part in parts if part)

    def __str__(self) -> str:
        parts = [self.arch, NETWORKS[self.network].title, self.mode_title, self.device]
        return ', '.join([part for part in parts if part] + [f'{self.threads} thread(s), batch {self.batch_size}'])


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
    """Every combination that means something, each once; ``threads``, ``batch_sizes`` and ``archs`` vary slowest.

    Raises:
        ValueError: If the choices go together in no way at all.
    """
    models: list[tuple[str | None, list[str]]] = [
        *((arch, [name for name in networks if NETWORKS[name].has_arch]) for arch in archs),
        *((None, [name]) for name in networks if not NETWORKS[name].has_arch),
    ]
    cases: list[Case] = []
    for num_threads, batch_size, (arch, names) in product(threads, batch_sizes, models):
        for device, precision, runtime in product(devices, precisions, runtimes):
            row = RUNTIMES[runtime]
            if device not in row.devices or (precision == 'int8' and not row.has_int8):
                continue
            chosen: Sequence[str | None] = layouts if row.layouts else [None]
            cases += [
                Case(name, arch, runtime, layout, precision, device, num_threads, batch_size)
                for layout, name in product(chosen, names)
                if row.runs(name)
            ]
    if not cases:
        raise ValueError(
            f'nothing to time: no runtime of {", ".join(runtimes)} runs any of {", ".join(networks)} on '
            f'{", ".join(devices)}; a training step is that of {", ".join(RUNTIMES["train-step"].networks or ())}, a '
            'CUDA graph is on cuda, exported files (and what is tested) are on cpu, int8 is in '
            f'{" and ".join(name for name, row in RUNTIMES.items() if row.has_int8)}'
        )
    return list(dict.fromkeys(cases))
