"""OpenVINO and NNCF report to their makers over the network unless told not to; here they are told."""

import sys
from types import ModuleType


def import_openvino() -> ModuleType:
    """Import ``openvino`` without its telemetry: it and NNCF do without that package where it is missing.

    Nothing changes for a process that imported it before.
    """
    if 'openvino_telemetry' not in sys.modules:
        sys.modules['openvino_telemetry'] = None  # type: ignore[assignment]  # the import system's "not there"
    import openvino

    return openvino
