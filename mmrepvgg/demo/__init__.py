"""Pages on which one drops images: a local one for any file, and one that runs an ONNX file in the browser."""
