"""What would be served, measured on ONNX Runtime."""
