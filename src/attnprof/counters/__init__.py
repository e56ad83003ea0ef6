"""Other FLOP counters, run on the same model: their numbers, and what they say of each op."""
