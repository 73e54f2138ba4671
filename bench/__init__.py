"""Measurements of the parts, as ratios taken side by side in one run."""
