"""A checkpoint in, one self-describing `.onnx` out, proven equal to it."""
