"""Trial lists and scores in; error rates, thresholds, calibration and plots out."""
