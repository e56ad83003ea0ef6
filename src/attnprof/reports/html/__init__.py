"""The report as one HTML page: everything in the file, nothing loaded from elsewhere."""
