"""Panels that look inside a network. looking.py has what they share, sheet.py lays out pictures."""
