"""Other counters beside attnprof: their numbers by the rules they document, and every difference explained."""
