"""ONNX files as victims, judged by what ONNX Runtime answers and records."""
