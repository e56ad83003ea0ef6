"""Models of the ``transformers`` package, built small and with random weights: real architectures, no downloads."""
