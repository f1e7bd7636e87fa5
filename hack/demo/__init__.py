"""``make demo``: the main job on a real cluster with a real model, step by step."""
