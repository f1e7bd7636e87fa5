"""From a request to its answer, whatever the protocol: the served models, their queues, threads and caches."""
