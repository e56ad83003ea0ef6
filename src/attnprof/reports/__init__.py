"""A report in the forms people read: tables, text formats, files."""
