"""An independent check of every price: plain Python definitions, executed and counted one scalar at a time.

``counting`` counts arithmetic, ``buffers`` records the memory touched, ``references_*`` define the ops in
terms of both, ``agreement`` runs a definition beside the real kernel: the definition must reproduce torch's
numbers, and the price of torch's call must equal what was counted. Nothing here knows a closed form.
"""
