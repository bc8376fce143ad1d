"""A network behind ONNX Runtime and OpenVINO, on inputs that they read where they lie."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .cases import Case

_OPENVINO_TYPES = {'fp32': 'f32', 'bf16': 'bf16', 'fp16': 'f16'}


def prepare_onnxruntime(case: Case, network: nn.Module, inputs: Tensor) -> Callable[[], Tensor]:
    """A call that runs one batch and returns the logits ``(N, num_classes)``, in memory that the next call reuses.

    Args:
        case: What is asked for.
        network: In eval mode, in fp32 on the CPU.
        inputs: ``(N, 3, H, W)``, in fp32 on the CPU.

    Raises:
        ImportError: If onnx, onnxscript or onnxruntime is not installed.
        ValueError: If the precision is not fp32.
    """
    if case.precision != 'fp32':
        raise ValueError(f"precision must be fp32: ONNX Runtime's CPU kernels have no other, got {case.precision}")
    import onnxruntime

    with _quiet():
        program = torch.onnx.export(network, (inputs,), dynamo=True, verbose=False)
    assert program is not None  # it is, with dynamo=True
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = case.threads
    # or its threads would go on looking for work while the next subject is timed
    options.add_session_config_entry('session.force_spinning_stop', '1')
    session = onnxruntime.InferenceSession(
        program.model_proto.SerializeToString(), options, providers=['CPUExecutionProvider']
    )
    binding = session.io_binding()
    binding.bind_ortvalue_input(
        session.get_inputs()[0].name, onnxruntime.OrtValue.ortvalue_from_numpy(inputs.numpy(), 'cpu')
    )
    (output,) = session.get_outputs()
    logits = torch.empty(output.shape)
    binding.bind_output(output.name, 'cpu', 0, 'float32', output.shape, logits.data_ptr())

    def run() -> Tensor:
        session.run_with_iobinding(binding)
        return logits

    return run


def prepare_openvino(case: Case, network: nn.Module, inputs: Tensor) -> Callable[[], Tensor]:
    """As :func:`prepare_onnxruntime`, with OpenVINO.

    Raises:
        ImportError: If openvino is not installed.
    """
    import openvino

    with _quiet():
        model = openvino.convert_model(network, example_input=inputs[:1], input=[tuple(inputs.shape)])
    compiled = openvino.Core().compile_model(
        model,
        'CPU',
        {
            # without it, it computes in bf16 wherever the CPU can
            'INFERENCE_PRECISION_HINT': _OPENVINO_TYPES[case.precision],
            'INFERENCE_NUM_THREADS': case.threads,
            'PERFORMANCE_HINT': 'LATENCY',
        },
    )
    request = compiled.create_infer_request()
    tensor = openvino.Tensor(inputs.numpy(), shared_memory=True)

    def run() -> Tensor:
        request.set_input_tensor(tensor)
        request.infer()
        return torch.from_numpy(request.get_output_tensor().data)

    return run


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' warnings, which are about their own insides."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield
