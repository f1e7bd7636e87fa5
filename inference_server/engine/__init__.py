"""One model on ONNX Runtime: loaded, warmed up, measured and run. The only importer of onnxruntime."""
