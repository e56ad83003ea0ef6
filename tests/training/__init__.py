"""Training plans: which weights are trained, in what precision, how often, and what runs again; counted by hand."""
