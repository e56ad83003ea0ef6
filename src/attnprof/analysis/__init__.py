"""From priced ops to answers: the module tree with its conservation law, and the report."""
