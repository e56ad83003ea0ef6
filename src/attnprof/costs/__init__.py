"""What one op costs: pure functions of a signature, never of a tensor.

``registry`` holds the formulas, ``pricing`` turns a signature into a verdict, ``traffic`` has the byte
rules; every other file is one family of formulas, each with its derivation beside it.
"""
