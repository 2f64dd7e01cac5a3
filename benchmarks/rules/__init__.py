"""Rules beside each other: how near their gradients are to the exact one, and how well they learn.

One protocol for every rule and network, with published figures beside ours.
"""
