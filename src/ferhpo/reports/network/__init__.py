"""Panels that look inside a network. looking.py runs the network for them, sheet.py lays out pictures."""
