"""Tests of the zoo: what each module computes, what it costs, and what it says of bad sizes."""
