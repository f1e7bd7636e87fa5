"""What is told of requests and of the process: metrics, statistics, logs, traces."""
