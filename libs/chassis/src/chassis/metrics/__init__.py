"""What a process counts and measures, and how it is told: `/metrics` of its ops listener.

`families` has what a module counts with, `work` counts all that passes by `observe`, `exposition` writes the text.
"""
