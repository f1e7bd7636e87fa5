"""Which version serves, which is tried, which is gone back to: a pure state machine."""
