"""The messages of this broker: what may be asked, what is answered, and what the outside world says.

Models and their reading only; no I/O, no settings, nothing of ours imported.
"""
