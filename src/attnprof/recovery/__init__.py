"""Exact formulas from exact counts: which piecewise polynomial of the sizes comes to these integers.

Pure mathematics: a function of whole numbers goes in, a formula that was checked at sizes it was not made from
comes out, or the sentence that says why there is none. Nothing here knows what is counted.
"""
