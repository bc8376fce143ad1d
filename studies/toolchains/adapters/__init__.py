"""One script a toolchain: float file and images in, outputs of the int8 file out.

Each is run by the Python of its toolchain's environment, where mmrepvgg is not installed, as
``python -m studies.toolchains.adapters.<name>`` with this repository's root as ``PYTHONPATH``.
"""
