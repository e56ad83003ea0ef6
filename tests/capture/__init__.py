"""Capture, judged from outside: who is charged for each op, in which phase, and that nothing else changes."""
