"""What torch really runs: the only folder that knows torch's internals. It counts ops, never FLOPs."""
