"""From a registered version to one that an alias names: gates, audit, rollback.

promote.py  the verbs promote and rollback
facts.py    what is known of a candidate, beside the present champion
gates.py    what is asked of a model, and whether it has it
card.py     the model card, in the description of the version
purpose.py  what a model must not be for
"""
