"""What happens to registered models after they were registered.

aliases.py  aliases, moved in one step, with an audit log
"""
