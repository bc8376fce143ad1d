"""The commands, one row each. The module of a command is imported only when it is needed."""

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        name: Name that the user types. Its module has the same name, with underscores.
        summary: Summary in one line.
        function: Name of the library function behind it, which messages of the library use.
        arguments: Arguments that the user types next.
    """

    name: str
    summary: str
    function: str
    arguments: str = ''

    def load(self) -> ModuleType:
        """The module with ``add_arguments`` and ``run``; its docstring is the text of ``--help``."""
        return import_module(f'{__package__}.{self.name.replace("-", "_")}')

    def __str__(self) -> str:
        return f'mmrepvgg {self.name} {self.arguments}'.rstrip()


COMMANDS = {
    command.name: command
    for command in (
        Command('new', 'write a config for your own images', 'new_project', 'DATA'),
        Command('train', 'train a model', 'train', 'CONFIG'),
        Command('test', 'test a checkpoint or an exported file', 'evaluate', 'CONFIG CHECKPOINT'),
        Command(
            'reparameterize',
            'switch a trained checkpoint to deploy form',
            'reparameterize_checkpoint',
            'TRAIN_CONFIG SRC DST',
        ),
        Command(
            'compare',
            'compare the two forms of a model, or each layer',
            'compare_forms',
            'TRAIN_CONFIG CHECKPOINT DEPLOYED',
        ),
        Command('report', 'write a page about a training', 'write_report', 'WORK_DIR'),
        Command('convert', 'convert weights from and to other systems', 'convert_checkpoint', 'SRC DST'),
        Command('export', 'write a file for a runtime', 'export_model', 'CONFIG CHECKPOINT OUT'),
        Command('fuse', 'fuse an ONNX file that was exported with its branches', 'fuse_onnx', 'SRC DST'),
        Command('analyze', 'predict what int8 will cost a model', 'analyze', 'CONFIG CHECKPOINT'),
        Command('quantize', 'write an int8 file for a runtime', 'quantize_model', 'CONFIG CHECKPOINT OUT'),
        Command('predict', 'predict the classes of images', 'Predictor', 'CONFIG CHECKPOINT IMAGES'),
        Command(
            'predict-many',
            'predict folders of any size by Ray, into Parquet',
            'predict_many',
            'CONFIG CHECKPOINT IMAGES',
        ),
        Command('demo', 'serve a page that shows what a model says of images', 'serve_demo', 'MODEL_FILE'),
        Command('flops', 'count parameters, multiply-adds and activations', 'measure_cost', 'CONFIG'),
        Command('benchmark', 'time networks side by side', 'run_benchmark'),
        Command('benchmark-data', 'time the training data, and say what bounds a training', 'benchmark_data', 'CONFIG'),
        Command('check-images', 'name the images that are missing or damaged', 'ImageCheck', 'CONFIG'),
        Command('export-inputs', 'write test images for hardware without Python', 'write_inputs', 'CONFIG OUT_DIR'),
        Command('score-outputs', 'score what such hardware gave for them', 'score_outputs', 'INPUTS OUTPUTS'),
        Command('shard', 'put the images of a config into tar shards', 'write_shards', 'CONFIG OUT_DIR'),
        Command('doctor', 'say what is installed, what works, and what is wrong', 'examine_environment'),
        Command('prepare-digits', 'write a small data set of handwritten digits', 'prepare_digits'),
    )
}
