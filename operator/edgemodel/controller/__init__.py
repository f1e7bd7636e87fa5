"""Watch, queue, worker: the thin shell around one pass; the only importer of kopf."""
