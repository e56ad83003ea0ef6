"""The plugin as projects meet it: whole sessions of pytest, in projects of their own."""
