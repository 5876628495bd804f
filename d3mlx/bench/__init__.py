"""Measured forward times, times predicted from published figures, and the speed of whole answers."""
