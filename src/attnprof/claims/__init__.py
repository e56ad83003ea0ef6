"""Claims of how a cost grows, read as data and held against an exact formula: ``O(N·d²)``, ``6·s·d² + 4·s²·d``."""
