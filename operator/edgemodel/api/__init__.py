"""The kinds users write and read, as types: pydantic and the standard library, nothing else."""
