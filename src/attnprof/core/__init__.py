"""The values that travel between capture, costs, analysis and reports. Standard library only."""
