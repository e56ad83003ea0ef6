"""Models in files: exported programs, TorchScript, weights, Hugging Face configurations.

A file is what its bytes say, not its suffix, and nothing in it is executed unless the user asked for that.
"""
