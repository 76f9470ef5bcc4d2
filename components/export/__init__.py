"""Networks as ONNX graphs with preprocessing inside, and the runtime that runs them."""
