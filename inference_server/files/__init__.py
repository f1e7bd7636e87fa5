"""What lies on disk, judged before it is used: model directories, ONNX files, golden samples."""
